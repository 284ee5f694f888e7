import { createLiveCalls, type LiveCalls } from '../../src/api/live-calls.ts'

/** Queries that the test answers. */
function createBench(): {
  calls: LiveCalls
  asked: Promise<readonly string[]>
  answer(usable: string[]): void
} {
  const asked = Promise.withResolvers<readonly string[]>()
  const usable = Promise.withResolvers<Set<string>>()
  const calls = createLiveCalls({
    findUsableKeys: (apiKeyIds) => {
      asked.resolve(apiKeyIds)
      return usable.promise
    },
    periodMs: 1,
    onError: (error) => {
      throw error
    },
  })
  return { calls, asked: asked.promise, answer: (keys) => usable.resolve(new Set(keys)) }
}

let bench: ReturnType<typeof createBench>
beforeEach(() => {
  bench = createBench()
  bench.calls.start()
})
afterEach(() => bench.calls.stop())

const aborted = async (signal: AbortSignal): Promise<void> => {
  if (!signal.aborted)
    await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
}

test('a call whose key can no longer be used is ended, and told why', async () => {
  const { signal } = bench.calls.add('dead')
  const alive = bench.calls.add('alive')
  expect(await bench.asked).toEqual(['dead', 'alive'])
  bench.answer(['alive'])
  await aborted(signal)
  expect(signal.reason).toMatchObject({ code: 'gateway_unauthorized' })
  expect(alive.signal.aborted).toBe(false)
})

test('a call that begins while the keys are looked at is left alone', async () => {
  const dead = bench.calls.add('dead')
  await bench.asked
  const { signal } = bench.calls.add('new')
  const another = bench.calls.add('dead')
  bench.answer([])
  await aborted(dead.signal)
  expect([signal.aborted, another.signal.aborted]).toEqual([false, false])
})
