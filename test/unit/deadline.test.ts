import { setTimeout as sleep } from 'node:timers/promises'
import { startDeadline } from '../../src/protocol/deadline.ts'

/** Nothing else of this process runs meanwhile, as after a SIGSTOP. */
function freeze(ms: number): void {
  const until = performance.now() + ms
  while (performance.now() < until);
}

/** Resolves with how long a deadline took to pass, in ms. */
function timeDeadline(ms: number): { passed: Promise<number>; deadline: ReturnType<typeof startDeadline> } {
  const startedAt = performance.now()
  const { promise, resolve } = Promise.withResolvers<number>()
  const deadline = startDeadline(ms, () => resolve(performance.now() - startedAt))
  return { passed: promise, deadline }
}

describe('a deadline', () => {
  test('passes after its time', async () => {
    const ms = await timeDeadline(30).passed
    expect(ms).toBeGreaterThanOrEqual(29)
  })

  test('waits the time that the process was frozen for once more', async () => {
    const { passed } = timeDeadline(100)
    freeze(200)
    expect(await passed).toBeGreaterThanOrEqual(299)
  })

  test('begins anew when it is restarted, and never passes once it is cleared', async () => {
    const { passed, deadline } = timeDeadline(50)
    await sleep(30)
    deadline.restart()
    expect(await passed).toBeGreaterThanOrEqual(79)
    const cleared = timeDeadline(10)
    cleared.deadline.clear()
    expect(await Promise.race([cleared.passed, sleep(40, 'never')])).toBe('never')
  })
})
