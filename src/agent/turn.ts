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
}

export type TurnOutcome = StepOutcome

/** There are no tools yet, so that a turn is one step. */
const STEP = 1

/** Runs a claimed turn up to what is to be committed. @throws {TurnmillError} where nothing is to be said beside it. */
export async function runTurn(claim: Claim, effects: TurnEffects, signal: AbortSignal): Promise<TurnOutcome> {
  const startedAt = performance.now()
  demandUsableKey(claim)
  return withRetries(
    {
      claim,
      step: STEP,
      attempt: (number) => runAttempt({ claim, step: STEP, number, startedAt }, effects, signal),
    },
    { policy: effects.retries, noteRetry: effects.noteRetry, sleep: sleepUnlessAborted },
    signal,
  )
}

/** A key ID that is there is checked in both routing modes; where none is, the route decides. */
function demandUsableKey({ keyState, apiKeyId, ownerActive, chatId }: Claim): void {
  if (keyState === 'invalid')
    throw new TurnmillError(
      'key_revoked',
      `API key ${apiKeyId} is expired or revoked, or its owner is not active`,
    )
  if (!ownerActive) throw new TurnmillError('key_revoked', `the owner of chat ${chatId} is not active`)
}
