import { limitCall } from '../../src/gateway/limit-call.ts'

const reasonOf = async ({ signal }: { signal: AbortSignal }): Promise<unknown> => {
  if (!signal.aborted)
    await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
  return signal.reason
}

test('a call that lasts too long is ended as one whose provider is too slow, not as one that was left', async () => {
  const limited = limitCall(null, 1)
  const waiting = setTimeout(() => undefined, 10_000)
  expect(await reasonOf(limited)).toMatchObject({ code: 'provider_timeout' })
  clearTimeout(waiting)
})

test('a call ends when its caller leaves, and hears nothing once it is over', async () => {
  const [leaving, staying] = [new AbortController(), new AbortController()]
  const [left, over] = [limitCall(leaving.signal, 10_000), limitCall(staying.signal, 1)]
  over.release()
  leaving.abort('left')
  staying.abort('late')
  expect(await reasonOf(left)).toBe('left')
  expect(over.signal.aborted).toBe(false)
  left.release()
})

test('a call whose caller has left before it began is ended', async () => {
  expect(await reasonOf(limitCall(AbortSignal.abort('gone'), 10_000))).toBe('gone')
})
