import { TurnmillError } from '../protocol/errors.ts'

/** Aborts with its caller's signal, and when the call has lasted too long. */
export function limitCall(
  caller: AbortSignal | null,
  limitMs: number,
): { signal: AbortSignal; release(): void } {
  const controller = new AbortController()
  const onAbort = (): void => controller.abort(caller?.reason)
  const timer = setTimeout(
    () => controller.abort(new TurnmillError('provider_timeout', `the call took longer than ${limitMs} ms`)),
    limitMs,
  ).unref()
  if (caller?.aborted === true) onAbort()
  else caller?.addEventListener('abort', onAbort, { once: true })
  const release = (): void => {
    clearTimeout(timer)
    caller?.removeEventListener('abort', onAbort)
  }
  return { signal: controller.signal, release }
}
