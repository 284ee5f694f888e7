import { TurnmillError } from '../protocol/errors.ts'
import type { StreamPart } from '../protocol/parts.ts'

/** How long a model call may take, in ms. */
export interface Deadlines {
  firstPartMs: number
  /** The first part of a call with reasoning. */
  reasoningFirstPartMs: number
  /** Silence between two parts. Pings are no parts. */
  silenceMs: number
  attemptMs: number
}

/**
 * Runs a model call under its deadlines. A deadline that passes closes the provider's socket, and the stream ends with
 * an `error` of code `provider_timeout`; so does an abort of `signal`, with the abort's own reason where it is ours.
 */
export async function* withDeadlines(
  call: (signal: AbortSignal) => AsyncIterable<StreamPart>,
  deadlines: Deadlines,
  { signal, reasoning }: { signal: AbortSignal; reasoning: boolean },
): AsyncGenerator<StreamPart, void, undefined> {
  const deadline = new AbortController()
  const expire = (what: string, ms: number) => () => deadline.abort(timedOut(what, ms))
  const firstPartMs = reasoning ? deadlines.reasoningFirstPartMs : deadlines.firstPartMs
  const attemptTimer = setTimeout(expire('an answer', deadlines.attemptMs), deadlines.attemptMs)
  let silenceTimer = setTimeout(expire('the first part', firstPartMs), firstPartMs)
  const silent = expire('the next part', deadlines.silenceMs)
  try {
    for await (const part of call(AbortSignal.any([signal, deadline.signal]))) {
      clearTimeout(silenceTimer)
      silenceTimer = setTimeout(silent, deadlines.silenceMs)
      yield part.type === 'error' ? explain(part, signal, deadline.signal) : part
    }
  } finally {
    clearTimeout(attemptTimer)
    clearTimeout(silenceTimer)
  }
}

const timedOut = (what: string, ms: number): TurnmillError =>
  new TurnmillError('provider_timeout', `the provider was silent for ${ms} ms, expected ${what}`)

/** An adapter only knows that it was aborted; we know why. */
function explain(part: StreamPart & { type: 'error' }, ...signals: AbortSignal[]): StreamPart {
  const reason: unknown = signals.find(({ aborted }) => aborted)?.reason
  return reason instanceof TurnmillError ? { ...part, error: reason } : part
}
