import type { Claim, Spent } from '../chats/index.ts'
import { toStoredError, TurnmillError, type ErrorCode } from '../protocol/errors.ts'
import type { RetryState } from '../protocol/views.ts'
import type { AttemptOutcome } from './attempt.ts'

/**
 * The one retry loop. The SDKs' own are off, and the queue tries nothing again.
 *
 * R1 a failed attempt's text is dropped, never joined to the next one's.
 * R2 what failed is written before the wait, so that neither a takeover nor a crash begins to count anew, or loses what
 *    the attempt cost.
 * R3 the longest wait that holds a slot is `backoffAboveMs`; for a longer one the turn is given back.
 * R4 what is to be tried with a shorter history is tried at once, and as an attempt of its own, even beyond the last one.
 */
export interface RetryPolicy {
  /** The wait after the first failure, in ms. Doubles with every further one. */
  firstMs: number
  /** The longest wait of our own making, in ms. */
  maximumMs: number
  /** Attempts at one step. */
  attempts: number
  /** A longer wait than this gives the turn back, in ms. */
  backoffAboveMs: number
  /** A provider that asks for a longer wait than this fails the turn, in ms. */
  giveUpAboveMs: number
  /** From 0 up to 1, as `Math.random` gives it. */
  random(): number
}

/**
 * Writes down that an attempt failed and what it spent. `interrupting` where the turn was told to stop meanwhile, and
 * nothing was written.
 *
 * @throws {TurnmillError} `turn_fenced`.
 */
export type NoteRetry = (
  claim: Claim,
  retry: RetryState,
  spent: Spent,
) => Promise<'committed' | 'interrupting'>

/** How a step ended, or why the turn is given back. */
export type StepOutcome = Tried<AttemptOutcome>

type Tried<Outcome> =
  | Outcome
  /** The next attempt is far off: the turn waits for it without a slot. */
  | { type: 'backoff'; delayMs: number; retry: RetryState; spent: Spent }

export interface RetryableStep<Outcome> {
  claim: Claim
  step: number
  /**
   * @param number of the attempt: 1, 2, … over all claims of the turn.
   * @param before why the one before it failed, if there was one.
   */
  attempt(number: number, before: ErrorCode | null): Promise<Outcome>
}

type Failed = Extract<AttemptOutcome, { type: 'failed' }>
type Interrupted = Extract<AttemptOutcome, { type: 'interrupted' }>

const isFailed = (outcome: { type: string } | Failed): outcome is Failed => outcome.type === 'failed'

export interface RetryEffects {
  policy: RetryPolicy
  noteRetry: NoteRetry
  /** Rejects with the signal's reason as soon as it aborts. */
  sleep(ms: number, signal: AbortSignal): Promise<void>
}

/** Tries a step until it is answered, or further tries are of no use. @throws what `signal` was aborted with. */
export async function withRetries<Outcome extends { type: string }>(
  { claim, step, attempt }: RetryableStep<Outcome>,
  { policy, noteRetry, sleep }: RetryEffects,
  signal: AbortSignal,
): Promise<Tried<Outcome | Failed | Interrupted>> {
  const former = claim.retry?.step === step ? claim.retry : null
  if (former !== null) await sleep(remainingMs(former, policy), signal)
  let before = former?.error.code ?? null
  for (let number = (former?.attempts ?? 0) + 1; ; number++) {
    const outcome = await attempt(number, before)
    if (!isFailed(outcome)) return outcome
    const { error, spent, shorten = false } = outcome
    if (!shorten && (!RETRYABLE.has(error.code) || number >= policy.attempts)) return outcome
    const delayMs = shorten ? 0 : retryDelayMs(policy, number, error.retryAfterMs)
    if (!shorten && wantsTooMuch(error, policy)) return { ...outcome, error: rateLimited(error, policy) }
    const retry = toRetryState(step, number, error, delayMs)
    before = error.code
    if (delayMs > policy.backoffAboveMs) return { type: 'backoff', delayMs, retry, spent }
    if ((await noteRetry(claim, retry, spent)) === 'interrupting')
      return { type: 'interrupted', partial: null, spent }
    await sleep(delayMs, signal)
  }
}

/** What another call may well do better. `worker_stopped` and `database_unavailable` are no failures of an attempt. */
export const RETRYABLE: ReadonlySet<ErrorCode> = new Set([
  'provider_overloaded',
  'provider_unreachable',
  'provider_timeout',
  'provider_stream_broken',
  'budget_busy',
])

/**
 * How long to wait before the next attempt, in ms: doubling, by up to a half less, so that turns which failed together
 * do not come back together. What the provider asked for is a minimum, spread upwards by up to the first wait.
 *
 * @param failed attempts so far, from 1.
 */
export function retryDelayMs(policy: RetryPolicy, failed: number, retryAfterMs?: number): number {
  const { firstMs, maximumMs, random } = policy
  const own = Math.min(maximumMs, firstMs * 2 ** (failed - 1)) * (1 - random() / 2)
  const asked = retryAfterMs === undefined ? 0 : retryAfterMs + random() * firstMs
  return Math.ceil(Math.max(own, asked))
}

/** The rest of a wait that another claim of the turn began, by a clock that may differ from ours. */
const remainingMs = ({ retryAt }: RetryState, { backoffAboveMs }: RetryPolicy): number =>
  Math.min(Math.max(0, Date.parse(retryAt) - Date.now()), backoffAboveMs)

const toRetryState = (step: number, attempts: number, error: TurnmillError, delayMs: number): RetryState => ({
  step,
  attempts,
  error: toStoredError(error),
  retryAt: new Date(Date.now() + delayMs).toISOString(),
})

const wantsTooMuch = ({ retryAfterMs = 0 }: TurnmillError, { giveUpAboveMs }: RetryPolicy): boolean =>
  retryAfterMs > giveUpAboveMs

const rateLimited = (
  { message, retryAfterMs }: TurnmillError,
  { giveUpAboveMs }: RetryPolicy,
): TurnmillError =>
  new TurnmillError(
    'rate_limited',
    `the provider asked for a wait of ${retryAfterMs} ms, expected at most ${giveUpAboveMs}: ${message}`,
    { retryAfterMs },
  )

/** Rejects with the signal's reason as soon as it aborts, also before it began. */
export function sleepUnlessAborted(ms: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const onAbort = (): void => reject(signal.reason as Error)
  const timer = setTimeout(resolve, ms)
  if (signal.aborted) onAbort()
  signal.addEventListener('abort', onAbort)
  return promise.finally(() => {
    clearTimeout(timer)
    signal.removeEventListener('abort', onAbort)
  })
}
