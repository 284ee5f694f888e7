import type { Claim, OpenCall, StepResult } from '../chats/index.ts'
import { startDeadline } from '../protocol/deadline.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { isToolCall } from '../protocol/messages.ts'
import { answerCalls, type CallEffects } from './answer-calls.ts'
import { runAttempt, type AttemptEffects } from './attempt.ts'
import { compactHistory, type CompactionMemory } from './compaction.ts'
import { NOTHING_SPENT } from './model-call.ts'
import { demandWithinLimits, turnTimedOut, type LimitEffects } from './limits.ts'
import {
  sleepUnlessAborted,
  withRetries,
  type NoteRetry,
  type RetryableStep,
  type RetryPolicy,
  type StepOutcome,
} from './retries.ts'
import type { ToolBox } from './tool-box.ts'

/** Everything a turn does to the world. */
export interface TurnEffects extends AttemptEffects, CallEffects, LimitEffects {
  retries: RetryPolicy
  noteRetry: NoteRetry
  /** What the model may ask for. @throws {TurnmillError} the signal's reason; `database_unavailable`. */
  openTools(claim: Claim, signal: AbortSignal): Promise<ToolBox>
  /** The calls of the last committed step that have no committed result. */
  openCalls(claim: Claim): Promise<OpenCall[]>
  /** `interrupting` where the turn was told to stop meanwhile, and nothing was written. */
  commitStep(claim: Claim, result: StepResult): Promise<'committed' | 'interrupting'>
  /** Aborts once this worker takes no new jobs: whoever only waits for its next attempt gives its turn back at once. */
  stopping: AbortSignal
}

export type TurnOutcome =
  | StepOutcome
  /** It waits for its client or for subagents, and is not held any more. */
  | { type: 'parked' }
  /** All is committed, and there is no answer to give. */
  | { type: 'done' }

/** A turn under way. */
interface Run {
  claim: Claim
  tools: ToolBox
  effects: TurnEffects
  /** Aborts when the turn is to stop, was lost, or has run for too long. */
  signal: AbortSignal
  /** By this process's monotonic clock. */
  startedAt: number
  compactions: CompactionMemory
}

/** Runs a claimed turn up to what is to be committed. @throws {TurnmillError} where nothing is to be said beside it. */
export async function runTurn(claim: Claim, effects: TurnEffects, held: AbortSignal): Promise<TurnOutcome> {
  demandUsableKey(claim)
  const expired = new AbortController()
  const remainingMs = Math.max(0, effects.turnLimits.runningMs - claim.runningMs)
  const deadline = startDeadline(remainingMs, () => expired.abort(turnTimedOut(claim, effects.turnLimits)))
  const signal = AbortSignal.any([held, expired.signal])
  try {
    const tools = await effects.openTools(claim, signal)
    signal.throwIfAborted()
    const compactions = { givenUp: false, refusedStep: 0 }
    return await goOn({ claim, tools, effects, signal, startedAt: performance.now(), compactions })
  } finally {
    deadline.clear()
  }
}

/** Finishes what is committed already, and only then calls the model. */
async function goOn(run: Run): Promise<TurnOutcome> {
  const { claim, effects } = run
  const open = claim.committedSteps === 0 ? [] : await effects.openCalls(claim)
  if ((await answer(run, open)) === 'parked') return { type: 'parked' }
  return claim.trigger === 'compact' ? compactOnly(run) : takeSteps(run)
}

/** One step after the other, until one asks for nothing more. */
async function takeSteps(run: Run): Promise<TurnOutcome> {
  const { claim, effects } = run
  for (let step = claim.committedSteps + 1; ; step++) {
    const outcome = await takeStep(run, step)
    if (outcome.type !== 'answered') return outcome
    const calls = callsOf(outcome.result)
    if (calls.length === 0) return outcome
    if ((await effects.commitStep(claim, outcome.result)) === 'interrupting')
      return { type: 'interrupted', partial: outcome.result, spent: NOTHING_SPENT }
    if ((await answer(run, calls)) === 'parked') return { type: 'parked' }
  }
}

/** One model call, as often as it takes. The last step that a turn may take is offered no tools. */
function takeStep(run: Run, step: number): Promise<StepOutcome> {
  const { claim, effects, signal, startedAt, compactions } = run
  const tools = step >= effects.turnLimits.steps ? [] : run.tools.definitions
  return retrying(run, step, async (number, before) => {
    await demandWithinLimits(claim, { step, attempt: number }, effects)
    return runAttempt({ claim, step, number, startedAt, before, tools, compactions }, effects, signal)
  })
}

/** A turn that was asked for a summary, and nothing else. */
async function compactOnly(run: Run): Promise<TurnOutcome> {
  const { claim, effects, signal } = run
  const outcome = await retrying(run, 1, (number, before) =>
    compactHistory({ claim, step: 1, number, before }, effects, signal),
  )
  return outcome.type === 'compacted' ? { type: 'done' } : outcome
}

const retrying = <T extends { type: string }>(
  { claim, effects, signal }: Run,
  step: number,
  attempt: RetryableStep<T>['attempt'],
) =>
  withRetries(
    { claim, step, attempt },
    {
      policy: effects.retries,
      noteRetry: effects.noteRetry,
      sleep: (ms, held) => sleepUnlessAborted(ms, AbortSignal.any([held, effects.stopping])),
    },
    signal,
  )

async function answer(
  { claim, tools, effects, signal }: Run,
  calls: readonly OpenCall[],
): Promise<'answered' | 'parked'> {
  const [first] = calls
  if (first === undefined) return 'answered'
  return answerCalls({ claim, step: first.step, calls, tools, signal }, effects)
}

/** The calls of a step that was committed just now: nothing has become of them yet. */
const callsOf = ({ step, parts }: StepResult): OpenCall[] =>
  parts.filter(isToolCall).map((call) => ({
    step,
    call,
    state: 'requested',
    result: { output: null, isError: false, images: [] },
    startedMs: null,
  }))

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
