import type { Claim } from '../chats/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { runAttempt, type AttemptEffects } from './attempt.ts'
import {
  sleepUnlessAborted,
  withRetries,
  type NoteRetry,
  type RetryPolicy,
  type StepOutcome,
} from './retries.ts'

/** Everything a turn does to the world. */
export interface TurnEffects extends AttemptEffects {
  retries: RetryPolicy
  noteRetry: NoteRetry
  /** Commits what the last committed step still lacks: the results that came while the turn waited. */
  settleCalls(claim: Claim): Promise<void>
  /** Aborts once this worker takes no new jobs: whoever only waits for its next attempt gives its turn back at once. */
  stopping: AbortSignal
}

export type TurnOutcome = StepOutcome

/** Runs a claimed turn up to what is to be committed. @throws {TurnmillError} where nothing is to be said beside it. */
export async function runTurn(claim: Claim, effects: TurnEffects, signal: AbortSignal): Promise<TurnOutcome> {
  const startedAt = performance.now()
  demandUsableKey(claim)
  if (claim.committedSteps > 0) await effects.settleCalls(claim)
  // The model is offered no tools yet, so that its next answer is the last.
  const step = claim.committedSteps + 1
  return withRetries(
    { claim, step, attempt: (number) => runAttempt({ claim, step, number, startedAt }, effects, signal) },
    {
      policy: effects.retries,
      noteRetry: effects.noteRetry,
      sleep: (ms, held) => sleepUnlessAborted(ms, AbortSignal.any([held, effects.stopping])),
    },
    signal,
  )
}

/** A key ID that is there is checked in both routing modes; where none is, the route decides. */
export function demandUsableKey({
  keyState,
  apiKeyId,
  ownerActive,
  chatId,
}: Pick<Claim, 'keyState' | 'apiKeyId' | 'ownerActive' | 'chatId'>): void {
  if (keyState === 'invalid')
    throw new TurnmillError(
      'key_revoked',
      `API key ${apiKeyId} is expired or revoked, or its owner is not active`,
    )
  if (!ownerActive) throw new TurnmillError('key_revoked', `the owner of chat ${chatId} is not active`)
}
