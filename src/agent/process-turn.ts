import type { Chats, Claim, ClaimRequest, Spent, StepResult, Unclaimed } from '../chats/index.ts'
import { toTurnError, TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import type { JobNote } from '../protocol/views.ts'
import type { Logger } from '../telemetry/logger.ts'
import { NOTHING_SPENT } from './model-call.ts'
import type { LeaseKeeper } from './leases.ts'
import { sleepUnlessAborted, type NoteRetry } from './retries.ts'
import { runTurn, type TurnEffects, type TurnOutcome } from './turn.ts'
import { isLost, RETRY_MS, untilCommitted } from './until-committed.ts'

export interface TurnProcessorDeps {
  chats: Pick<
    Chats,
    | 'claim'
    | 'reopen'
    | 'finish'
    | 'finishWithoutAnswer'
    | 'finishInterrupted'
    | 'isInterrupting'
    | 'fail'
    | 'noteRetry'
    | 'commitStep'
    | 'compact'
    | WriteOnTheWay
    | 'backoff'
    | 'release'
  >
  effects: Omit<TurnEffects, 'noteRetry' | 'commitStep' | 'compact' | WriteOnTheWay>
  leases: Pick<LeaseKeeper, 'hold' | 'drop'>
  maxTakeovers: number
  /** Called when a claim took a turn from a worker that was lost. */
  onTakeover(): void
  logger: Logger
}

/** Writes after which the turn goes on, and which may be repeated while Postgres is away. */
type WriteOnTheWay = 'startCalls' | 'keepResults' | 'commitResults' | 'addSpent'

/** What becomes of the job: `null` and a note end it as completed, an error as failed. */
export type JobOutcome = TurnmillError | JobNote | null

/**
 * Takes one job through its turn. The job is a hint: whether there is anything to do, the turn's row says.
 */
export function createTurnProcessor(deps: TurnProcessorDeps): (request: ClaimRequest) => Promise<JobOutcome> {
  const { leases, logger } = deps
  return async (request) => {
    const claim = await claimTurn(request, deps)
    if (claim === null) return null
    if (claim === 'mismatch') return refuseJob(request, logger)
    if (claim === 'ended' && request.attemptsMade > 0) return reopen(request, deps)
    if (typeof claim === 'string') {
      logger.debug({ turnId: request.turnId, jobId: request.jobId, why: claim }, 'job without effect')
      return claim
    }
    logger.debug({ turnId: claim.turnId, epoch: claim.epoch, jobId: request.jobId }, 'turn claimed')
    if (claim.takenOver) deps.onTakeover()
    const signal = leases.hold(claim)
    try {
      return await settle(claim, signal, deps)
    } finally {
      leases.drop(claim)
    }
  }
}

/** An operator has retried the job of a turn that ended; a duplicate delivery has made no attempt and never gets here. */
async function reopen(request: ClaimRequest, { chats, logger }: TurnProcessorDeps): Promise<JobNote> {
  const reopened = await chats.reopen(request)
  const note = reopened ? 'reopened' : 'superseded'
  logger.info({ turnId: request.turnId, jobId: request.jobId, note }, 'a job was retried')
  return note
}

/** How long a worker tries to claim while Postgres is away. Later, the reconciler gives the turn another job. */
const CLAIM_TRIES = 20

/** `null` where Postgres stays away, or the worker stops meanwhile: the job has said nothing about its turn, so it does not fail. */
async function claimTurn(
  request: ClaimRequest,
  { chats, effects, logger }: TurnProcessorDeps,
): Promise<Claim | Unclaimed | null> {
  for (let tries = 1; ; tries++) {
    try {
      return await chats.claim(request)
    } catch (error) {
      if (toTurnError(error).code !== 'database_unavailable') throw error
      if (tries === CLAIM_TRIES || effects.stopping.aborted) {
        logger.warn(
          { turnId: request.turnId, jobId: request.jobId },
          'the turn was not claimed: Postgres is away',
        )
        return null
      }
      await sleepUnlessAborted(RETRY_MS, effects.stopping).catch(() => undefined)
    }
  }
}

/** A forged or damaged job: the turn is not touched, and the reconciler gives it a job of its own. */
function refuseJob({ turnId, jobId, compare }: ClaimRequest, logger: Logger): TurnmillError {
  logger.warn(
    { event: 'security', code: 'job_key_mismatch', turnId, jobId, claimed: compare },
    'the job names another key or chat than its turn',
  )
  return new TurnmillError(
    'job_key_mismatch',
    `job ${jobId} names another API key or chat than turn ${turnId}`,
  )
}

async function settle(claim: Claim, signal: AbortSignal, deps: TurnProcessorDeps): Promise<JobOutcome> {
  const { chats, logger } = deps
  const outcome = await run(claim, signal, deps)
  const commit = (write: () => Promise<void>): Promise<void> => untilCommitted(write, signal)
  try {
    // Whoever lost the turn has no say in it any more.
    if (isFenced(outcome)) {
      await keepSpent(claim, spentOf(outcome), chats)
      return letGo(claim, isLost(signal) ? 'lease' : 'write', logger)
    }
    if (outcome.type === 'failed') return await settleFailure(claim, outcome, commit, deps)
    await commit(() => settleOutcome(claim, outcome, chats))
    return null
  } catch (error) {
    const problem = toTurnError(error)
    if (problem.code === 'turn_fenced') {
      await keepSpent(claim, spentOf(outcome), chats)
      return letGo(claim, 'write', logger)
    }
    logger.error({ turnId: claim.turnId, epoch: claim.epoch, error }, 'the turn was not settled')
    return problem.code === 'turn_failed' ? failUnsettled(claim, problem, chats) : null
  }
}

const isFenced = (outcome: TurnOutcome): boolean =>
  outcome.type === 'failed' && outcome.error.code === 'turn_fenced'

/** What was spent on a turn that was superseded is its own all the same. Nothing is added where another worker has it. */
async function keepSpent(claim: Claim, spent: Spent, chats: Pick<Chats, 'addSpent'>): Promise<void> {
  // Once: while Postgres is away nobody waits for it.
  if (spent.usage !== null) await chats.addSpent(claim, spent).catch(() => undefined)
}

function spentOf(outcome: TurnOutcome): Spent {
  if (outcome.type === 'answered') return spentOn(outcome.result)
  if (outcome.type === 'interrupted' && outcome.partial !== null) return spentOn(outcome.partial)
  return 'spent' in outcome ? outcome.spent : NOTHING_SPENT
}

const spentOn = ({ usage, costMicros }: StepResult): Spent & { id: string } => ({
  id: newId(),
  usage,
  costMicros,
})

/** @param why `write`: a write was refused; `lease`: its renewal found the turn elsewhere. */
function letGo({ turnId, epoch }: Claim, why: 'write' | 'lease', logger: Logger): null {
  logger.info({ turnId, epoch, why }, 'the turn is no longer held by this worker')
  return null
}

/** What Postgres refuses once it refuses again: the turn fails, rather than being run anew for the same end. */
async function failUnsettled(
  claim: Claim,
  problem: TurnmillError,
  chats: TurnProcessorDeps['chats'],
): Promise<JobOutcome> {
  try {
    await chats.fail(claim, problem, NOTHING_SPENT)
    return problem
  } catch {
    // The lease runs out, and the next worker tries.
    return null
  }
}

type WrittenOutcome = Exclude<TurnOutcome, FailedOutcome>

async function settleOutcome(
  claim: Claim,
  outcome: WrittenOutcome,
  chats: TurnProcessorDeps['chats'],
): Promise<void> {
  switch (outcome.type) {
    case 'answered': {
      // A stop that came after the last part: the answer is committed all the same, as far as it goes.
      const end = () => chats.finishInterrupted(claim, outcome.result, NOTHING_SPENT)
      return unlessInterrupting(claim, chats, () => chats.finish(claim, outcome.result), end)
    }
    case 'done': {
      const end = () => chats.finishInterrupted(claim, null, NOTHING_SPENT)
      return unlessInterrupting(claim, chats, () => chats.finishWithoutAnswer(claim), end)
    }
    case 'parked':
      return
    case 'interrupted':
      return chats.finishInterrupted(claim, outcome.partial, outcome.spent)
    case 'backoff': {
      const end = () => chats.finishInterrupted(claim, null, outcome.spent)
      return unlessInterrupting(claim, chats, () => chats.backoff(claim, outcome), end)
    }
  }
}

/** A turn that was told to stop is not given back but ended. */
const release = (claim: Claim, spent: Spent, chats: TurnProcessorDeps['chats']): Promise<void> =>
  unlessInterrupting(
    claim,
    chats,
    () => chats.release(claim, spent),
    () => chats.finishInterrupted(claim, null, spent),
  )

/** Writes, or does the other thing where the write is refused since the turn was told to stop meanwhile. */
async function unlessInterrupting<Written, Otherwise>(
  claim: Claim,
  chats: Pick<Chats, 'isInterrupting'>,
  write: () => Promise<Written>,
  otherwise: () => Otherwise | Promise<Otherwise>,
): Promise<Written | Otherwise> {
  try {
    return await write()
  } catch (error) {
    if (toTurnError(error).code !== 'turn_fenced' || !(await chats.isInterrupting(claim))) throw error
    return otherwise()
  }
}

async function run(claim: Claim, signal: AbortSignal, deps: TurnProcessorDeps): Promise<TurnOutcome> {
  const { effects, maxTakeovers, logger } = deps
  // Told to stop, and then its worker was lost: what remains is to end it.
  if (claim.state === 'interrupting') return INTERRUPTED
  try {
    if (claim.takeovers > maxTakeovers)
      throw new TurnmillError(
        'worker_lost',
        `turn ${claim.turnId} was taken over ${claim.takeovers} times without progress, expected at most ${maxTakeovers}`,
      )
    return await runTurn(claim, { ...effects, ...createWrites(signal, deps) }, signal)
  } catch (error) {
    const problem = toTurnError(error)
    if (problem.code === 'turn_interrupted') return INTERRUPTED
    // A write on the way was refused since the turn was told to stop, and this worker still holds it.
    if (problem.code === 'turn_fenced' && (await wasToldToStop(claim, deps))) return INTERRUPTED
    if (problem.code === 'turn_failed')
      logger.error({ turnId: claim.turnId, error }, 'unexpected error in a turn')
    return { type: 'failed', error: problem, spent: NOTHING_SPENT }
  }
}

/** While Postgres is away nobody can say so, and the next worker finds it out. */
const wasToldToStop = (claim: Claim, { chats }: TurnProcessorDeps): Promise<boolean> =>
  chats.isInterrupting(claim).catch(() => false)

/** Told to stop with nothing to show for it. */
const INTERRUPTED: TurnOutcome = { type: 'interrupted', partial: null, spent: NOTHING_SPENT }

/** The writes of a turn that goes on, repeated while Postgres is away. */
function createWrites(
  signal: AbortSignal,
  deps: TurnProcessorDeps,
): Pick<TurnEffects, 'noteRetry' | 'commitStep' | 'compact' | WriteOnTheWay> {
  const { chats } = deps
  const repeating =
    <Values extends unknown[]>(write: (...values: Values) => Promise<void>) =>
    (...values: Values): Promise<void> =>
      untilCommitted(() => write(...values), signal)
  const commit = createCommit(signal, chats)
  return {
    noteRetry: createNoteRetry(commit, deps),
    commitStep: (claim, result) => {
      const spent = spentOn(result)
      return commit(claim, spent, () => chats.commitStep(claim, result, spent.id))
    },
    compact: (claim, compaction) => commit(claim, compaction.spent, () => chats.compact(claim, compaction)),
    startCalls: repeating(chats.startCalls),
    keepResults: repeating(chats.keepResults),
    commitResults: createCommitResults(signal, chats),
    addSpent: repeating(chats.addSpent),
  }
}

/** Where the turn was told to stop meanwhile, what its calls came to is kept: its end commits it. */
const createCommitResults =
  (
    signal: AbortSignal,
    chats: Pick<Chats, 'isInterrupting' | 'commitResults' | 'keepResults'>,
  ): TurnEffects['commitResults'] =>
  (claim, step, results) => {
    const commit = () => chats.commitResults(claim, step, results)
    const keep = async (): Promise<void> => {
      await chats.keepResults(claim, results)
      throw new TurnmillError('turn_interrupted', `turn ${claim.turnId} was told to stop`)
    }
    return untilCommitted(() => unlessInterrupting(claim, chats, commit, keep), signal)
  }

const createNoteRetry =
  (commit: Commit, { chats, logger }: TurnProcessorDeps): NoteRetry =>
  async (claim, retry, spent) => {
    const { step, attempts, retryAt, error } = retry
    logger.info({ turnId: claim.turnId, step, attempts, retryAt, code: error.code }, 'an attempt failed')
    return commit(claim, spent, () => chats.noteRetry(claim, retry, spent))
  }

/**
 * Writes what a turn that goes on has spent. Says so where it was told to stop meanwhile: then nothing is written.
 *
 * @throws {TurnmillError} `turn_fenced`, with what was spent kept where the turn was superseded.
 */
type Commit = (
  claim: Claim,
  spent: Spent,
  write: () => Promise<void>,
) => Promise<'committed' | 'interrupting'>

const createCommit =
  (signal: AbortSignal, chats: Pick<Chats, 'isInterrupting' | 'addSpent'>): Commit =>
  async (claim, spent, write) => {
    const commit = (): Promise<'committed'> => write().then(() => 'committed')
    const stop = () => 'interrupting' as const
    try {
      return await untilCommitted(() => unlessInterrupting(claim, chats, commit, stop), signal)
    } catch (error) {
      if (toTurnError(error).code === 'turn_fenced') await keepSpent(claim, spent, chats)
      throw error
    }
  }

type FailedOutcome = Extract<TurnOutcome, { type: 'failed' }>

async function settleFailure(
  claim: Claim,
  { error, spent }: FailedOutcome,
  commit: (write: () => Promise<void>) => Promise<void>,
  { chats }: TurnProcessorDeps,
): Promise<JobOutcome> {
  // Neither a stopping worker nor a database that went away is the turn's fault: it goes on elsewhere.
  if (error.code === 'worker_stopped' || error.code === 'database_unavailable') {
    await commit(() => release(claim, spent, chats))
    return null
  }
  await commit(() => chats.fail(claim, error, spent))
  return error
}
