import {
  AskFailedError,
  askModel,
  demandUsableKey,
  RETRYABLE,
  retryDelayMs,
  sleepUnlessAborted,
  type AttemptEffects,
  type RetryPolicy,
} from '../agent/index.ts'
import type { BuiltRoute } from '../models/index.ts'
import { TurnmillError, toTurnError } from '../protocol/errors.ts'
import { toOneLine } from './one-line.ts'
import { toRunRequest } from './prompts.ts'
import type { RunClaim, RunMaterial } from './runs.ts'
import type { SpentSum } from './spent.ts'

/** Everything that a run does to the world before its end is written. */
export interface RunEffects extends Pick<AttemptEffects, 'callModel' | 'deadlines'> {
  material(claim: RunClaim): Promise<RunMaterial>
  /** @throws {TurnmillError} failing closed. */
  buildRoute(claim: RunClaim): Promise<BuiltRoute>
  /** A wait above `giveUpAboveMs` ends the run: there is a fallback. */
  retries: RetryPolicy
  maxTakeovers: number
  /** Aborts once this worker takes no new jobs: whoever only waits for its next attempt gives its run back at once. */
  stopping: AbortSignal
}

/** The longest title or label, in characters. */
const LENGTH = 80

/**
 * Finds what a run is for: a title or a label, on one line.
 *
 * @param spent is given what each call used, also those that failed.
 * @returns `null` where the model had nothing to say, or nobody has a use for it any more: then it is not asked.
 * @throws {TurnmillError} what made the last attempt fail, or what `signal` or `stopping` were aborted with.
 */
export async function findWords(
  claim: RunClaim,
  effects: RunEffects,
  spent: SpentSum,
  signal: AbortSignal,
): Promise<string | null> {
  if (!claim.wanted) return null
  demandProgress(claim, effects)
  demandUsableKey(claim)
  const material = await effects.material(claim)
  for (let attempt = 1; ; attempt++) {
    try {
      return await ask({ claim, material, spent }, effects, signal)
    } catch (error) {
      const waitMs = waitAfter(toTurnError(error), attempt, effects.retries)
      if (waitMs === null) throw error
      await sleepUnlessAborted(waitMs, AbortSignal.any([signal, effects.stopping]))
    }
  }
}

interface Question {
  claim: RunClaim
  material: RunMaterial
  spent: SpentSum
}

/** One call, over a route made anew. */
async function ask(
  { claim, material, spent }: Question,
  effects: RunEffects,
  signal: AbortSignal,
): Promise<string | null> {
  const built = await effects.buildRoute(claim)
  try {
    const request = toRunRequest(claim.purpose, material, built.facts)
    const reply = await askModel(effects, built, request, signal)
    spent.add(reply.spent)
    return toOneLine(reply.text, LENGTH)
  } catch (error) {
    if (error instanceof AskFailedError) spent.add(error.spent)
    throw error
  }
}

/** In ms; `null` where a further attempt is of no use, or would have to wait for too long. */
function waitAfter(error: TurnmillError, attempt: number, policy: RetryPolicy): number | null {
  if (!RETRYABLE.has(error.code) || attempt >= policy.attempts) return null
  const waitMs = retryDelayMs(policy, attempt, error.retryAfterMs)
  return waitMs > policy.giveUpAboveMs ? null : waitMs
}

function demandProgress({ runId, takeovers }: RunClaim, { maxTakeovers }: RunEffects): void {
  if (takeovers > maxTakeovers)
    throw new TurnmillError(
      'worker_lost',
      `run ${runId} was taken over ${takeovers} times without an end, expected at most ${maxTakeovers}`,
    )
}
