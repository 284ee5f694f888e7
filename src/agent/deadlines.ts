import { startDeadline, type Deadline } from '../protocol/deadline.ts'
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
  const expired = new AbortController()
  const within = (ms: number, what: string): Deadline =>
    startDeadline(ms, () => expired.abort(timedOut(what, ms)))
  const whole = within(deadlines.attemptMs, 'an answer')
  const first = within(reasoning ? deadlines.reasoningFirstPartMs : deadlines.firstPartMs, 'the first part')
  let next: Deadline | undefined
  try {
    for await (const part of call(AbortSignal.any([signal, expired.signal]))) {
      first.clear()
      if (next === undefined) next = within(deadlines.silenceMs, 'the next part')
      else next.restart()
      yield part.type === 'error' ? explain(part, signal, expired.signal) : part
    }
  } finally {
    for (const deadline of [whole, first, next]) deadline?.clear()
  }
}

const timedOut = (what: string, ms: number): TurnmillError =>
  new TurnmillError('provider_timeout', `the provider was silent for ${ms} ms, expected ${what}`)

/** An adapter only knows that it was aborted; we know why. */
function explain(part: StreamPart & { type: 'error' }, ...signals: AbortSignal[]): StreamPart {
  const reason: unknown = signals.find(({ aborted }) => aborted)?.reason
  return reason instanceof TurnmillError ? { ...part, error: reason } : part
}
