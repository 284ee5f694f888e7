import { untilCommitted, type HeldLease, type LeaseKeeper } from '../agent/index.ts'
import type { Spent } from '../chats/index.ts'
import { toTurnError, TurnmillError } from '../protocol/errors.ts'
import type { JobNote } from '../protocol/views.ts'
import type { Logger } from '../telemetry/logger.ts'
import { findWords, type RunEffects } from './ask.ts'
import type { AuxiliaryRuns, RunClaim, RunClaimRequest, UnclaimedRun } from './runs.ts'
import { createSpentSum, type SpentSum } from './spent.ts'

export interface RunProcessorDeps {
  runs: Pick<AuxiliaryRuns, 'claim' | 'reopen' | 'complete' | 'fail' | 'release'>
  effects: RunEffects
  leases: Pick<LeaseKeeper, 'hold' | 'drop'>
  logger: Logger
}

/** What becomes of the job: `null` and a note end it as completed, an error as failed. */
export type RunJobOutcome = TurnmillError | JobNote | null

/** Takes one job through its run. The job is a hint: whether there is anything to do, the run's row says. */
export function createRunProcessor(
  deps: RunProcessorDeps,
): (request: RunClaimRequest) => Promise<RunJobOutcome> {
  const { leases, logger } = deps
  return async (request) => {
    const claim = await claimRun(request, deps)
    if (claim === null) return null
    if (claim === 'mismatch') return refuseJob(request, logger)
    if (claim === 'ended' && request.attemptsMade > 0) return reopen(request, deps)
    if (typeof claim === 'string') return claim
    const lease = toLease(claim)
    const signal = leases.hold(lease)
    try {
      return await settle(claim, signal, deps)
    } finally {
      leases.drop(lease)
    }
  }
}

/** A run's lease is kept among those of the same process; there, its id stands where a turn's does. */
const toLease = ({ runId, epoch, apiKeyId }: RunClaim): HeldLease => ({ turnId: runId, epoch, apiKeyId })

/** `null` while Postgres is away: the job has said nothing about its run, and the reconciler makes another one. */
async function claimRun(
  request: RunClaimRequest,
  { runs, logger }: RunProcessorDeps,
): Promise<RunClaim | UnclaimedRun | null> {
  try {
    return await runs.claim(request)
  } catch (error) {
    if (toTurnError(error).code !== 'database_unavailable') throw error
    logger.warn({ runId: request.runId, jobId: request.jobId }, 'the run was not claimed: Postgres is away')
    return null
  }
}

/** A forged or damaged job: the run is not touched, and the reconciler gives it a job of its own. */
function refuseJob({ runId, jobId, compare }: RunClaimRequest, logger: Logger): TurnmillError {
  logger.warn(
    { event: 'security', code: 'job_key_mismatch', runId, jobId, claimed: compare },
    'the job names another key or chat than its run',
  )
  return new TurnmillError('job_key_mismatch', `job ${jobId} names another API key or chat than run ${runId}`)
}

/** An operator has retried the job of a run that ended; a duplicate delivery has made no attempt and never gets here. */
async function reopen(request: RunClaimRequest, { runs, logger }: RunProcessorDeps): Promise<JobNote> {
  const note = (await runs.reopen(request)) ? 'reopened' : 'superseded'
  logger.info({ runId: request.runId, jobId: request.jobId, note }, 'a job was retried')
  return note
}

/** What a run came to, before its end is written. */
type Found = { type: 'found'; words: string | null } | { type: 'failed'; error: TurnmillError }

async function settle(claim: RunClaim, signal: AbortSignal, deps: RunProcessorDeps): Promise<RunJobOutcome> {
  const { runs, logger } = deps
  const { runId, purpose, epoch } = claim
  const spent = createSpentSum()
  const found = await find(claim, signal, spent, deps)
  try {
    if (found.type === 'failed')
      return await settleFailure({ claim, ...found, spent: spent.total() }, signal, deps)
    await untilCommitted(() => runs.complete(claim, found.words, spent.total()), signal)
    logger.debug({ runId, purpose, epoch, found: found.words !== null }, 'auxiliary run completed')
  } catch (error) {
    // Whoever lost the run has no say in it any more, and what could not be written the next worker tries.
    if (toTurnError(error).code !== 'turn_fenced')
      logger.error({ runId, purpose, epoch, error }, 'the run was not settled')
  }
  return null
}

async function find(
  claim: RunClaim,
  signal: AbortSignal,
  spent: SpentSum,
  { effects, logger }: RunProcessorDeps,
): Promise<Found> {
  try {
    return { type: 'found', words: await findWords(claim, effects, spent, signal) }
  } catch (error) {
    const problem = toTurnError(error)
    if (problem.code === 'turn_failed')
      logger.error({ runId: claim.runId, error }, 'unexpected error in an auxiliary run')
    return { type: 'failed', error: problem }
  }
}

interface FailedRun {
  claim: RunClaim
  error: TurnmillError
  spent: Spent
}

async function settleFailure(
  { claim, error, spent }: FailedRun,
  signal: AbortSignal,
  { runs, logger }: RunProcessorDeps,
): Promise<RunJobOutcome> {
  if (error.code === 'turn_fenced') return null
  // Neither a stopping worker nor a database that went away is the run's fault: it goes on elsewhere.
  if (error.code === 'worker_stopped' || error.code === 'database_unavailable') {
    await untilCommitted(() => runs.release(claim, spent), signal)
    return null
  }
  await untilCommitted(() => runs.fail(claim, error, spent), signal)
  const { runId, chatId, purpose } = claim
  logger.warn({ runId, chatId, purpose, code: error.code }, 'an auxiliary run has failed')
  return error
}
