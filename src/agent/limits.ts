import type { Claim, FamilySpent } from '../chats/index.ts'
import { TurnmillError } from '../protocol/errors.ts'

/** How much a turn may do. */
export interface TurnLimits {
  /** Steps of one turn; the last of them is offered no tools, and ends the turn as `step_limit` where it asks for some all the same. */
  steps: number
  /** How long one turn may run, in ms, over all its claims. Waiting is not running. */
  runningMs: number
  /**
   * Steps of a turn that its user began and of all turns of subagents that it has set off, directly or not, together: however
   * long these go on, and whatever its user begins meanwhile. A turn of a subagent's chat that its user begins while no turn
   * of the parent's goes on counts by itself.
   */
  familySteps: number
  /** What they may cost together, in micro-dollars; `null` for any amount. */
  familyCostMicros: number | null
}

export interface LimitEffects {
  turnLimits: TurnLimits
  /** What was done by the turn that a user began, which set this one off or is it, and by all that it has set off. */
  familySpent(claim: Claim): Promise<FamilySpent>
}

/**
 * Before each attempt but the first of a root's turn, which has spent nothing.
 *
 * @param attempt of the step: 1, 2, …
 *
 * @throws {TurnmillError} `step_limit` or `cost_limit`.
 */
export async function demandWithinLimits(
  claim: Claim,
  { step, attempt }: { step: number; attempt: number },
  { turnLimits, familySpent }: LimitEffects,
): Promise<void> {
  const { steps, familySteps, familyCostMicros } = turnLimits
  if (step > steps)
    throw new TurnmillError('step_limit', `turn ${claim.turnId} has taken ${steps} steps, expected fewer`)
  if (step === 1 && attempt === 1 && claim.depth === 0) return
  const spent = await familySpent(claim)
  if (spent.steps >= familySteps)
    throw new TurnmillError(
      'step_limit',
      `the turn and its subagents have taken ${spent.steps} steps, expected fewer than ${familySteps}`,
    )
  if (familyCostMicros !== null && spent.costMicros >= familyCostMicros)
    throw new TurnmillError(
      'cost_limit',
      `the turn and its subagents have cost ${spent.costMicros} micro-dollars, expected less than ${familyCostMicros}`,
    )
}

export const turnTimedOut = ({ turnId }: Claim, { runningMs }: TurnLimits): TurnmillError =>
  new TurnmillError('turn_timeout', `turn ${turnId} has run for ${runningMs} ms, expected less`)
