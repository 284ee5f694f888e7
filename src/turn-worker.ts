import {
  createLeaseKeeper,
  createTurnProcessor,
  type JobOutcome,
  type RetryPolicy,
  type TurnProcessorDeps,
} from './agent/index.ts'
import type { Config } from './config.ts'
import { createModelCalls } from './model-calls.ts'
import { readJob, startTurnWorker, TURNS_QUEUE, type TurnJobHandler } from './queue/index.ts'
import type { Services } from './services.ts'
import { createPartWriter } from './streams/index.ts'
import { drain, nameOutcome, workerStopped, type Worker } from './worker.ts'

/** A worker for turns. */
export type TurnWorker = Worker

export function createTurnWorker(services: Services): TurnWorker {
  const { chats, config, logger, metrics } = services
  const leases = createLeaseKeeper({
    chats,
    leaseMs: config.leaseMs,
    renewalMs: config.leaseRenewalMs,
    onError: (error) => logger.warn({ error }, 'leases were not renewed'),
  })
  const stopping = new AbortController()
  const effects = { ...createEffects(services), stopping: stopping.signal }
  const process = createTurnProcessor({
    chats,
    effects,
    leases,
    maxTakeovers: config.maxTakeovers,
    onTakeover: () => metrics.takeovers.inc(),
    logger,
  })
  const handle: TurnJobHandler = async (job) => {
    const claim = readJob(job.data)
    if (claim !== null)
      return count(await process({ ...claim, jobId: job.id, attemptsMade: job.attemptsMade }))
    logger.warn({ event: 'security', jobId: job.id }, 'the job names no turn')
    return count('nameless')
  }
  const count = (outcome: JobOutcome): JobOutcome => {
    metrics.jobs.inc({ queue: TURNS_QUEUE, outcome: nameOutcome(outcome) })
    return outcome
  }
  let stopListening: (() => void) | undefined
  let worker: ReturnType<typeof startTurnWorker> | undefined

  return {
    start: async () => {
      leases.start()
      void services.parts.onPoke(leases.poke).then((stop) => (stopListening = stop))
      worker ??= startTurnWorker(services.backend, handle, {
        concurrency: config.workerConcurrency,
        lockMs: config.lockMs,
        stalledCheckMs: config.stalledCheckMs,
        onError: (error) => logger.warn({ error }, 'queue trouble'),
      })
      await worker.ready()
    },
    stop: async () => {
      stopping.abort(workerStopped())
      if (worker !== undefined) await drain(worker.close(), leases.abortAll, config.drainMs)
      worker = undefined
      stopListening?.()
      leases.stop()
    },
  }
}

function createEffects(services: Services): Omit<TurnProcessorDeps['effects'], 'stopping'> {
  const { chats, config, logger, parts } = services
  const calls = createModelCalls(services)
  return {
    ...calls,
    settleCalls: chats.settleCalls,
    loadContext: (claim) => chats.context(claim.chatId),
    buildRoute: (claim, place) =>
      calls.buildRoute(
        {
          purpose: 'chat',
          chatId: claim.chatId,
          turnId: claim.turnId,
          place,
          chatUserId: claim.userId,
          modelConfigIds: [claim.modelConfigId, claim.chatModelConfigId].filter((id) => id !== null),
        },
        claim,
      ),
    openParts: (claim, step, attempt) =>
      createPartWriter(
        {
          chatId: claim.chatId,
          snapshotVersion: claim.snapshotVersion,
          turn: claim.number,
          step,
          epoch: claim.epoch,
          attempt,
        },
        {
          log: parts,
          flushMs: config.partFlushMs,
          flushBytes: config.partFlushBytes,
          onError: (error) => logger.debug({ error }, 'parts were not logged'),
        },
      ),
    retries: createRetryPolicy(config),
  }
}

/** The longest wait that a provider may ask a turn for, in ms. */
const GIVE_UP_ABOVE_MS = 600_000

const createRetryPolicy = (config: Config): RetryPolicy => ({
  firstMs: config.retryFirstMs,
  maximumMs: config.retryMaximumMs,
  attempts: config.retryAttempts,
  backoffAboveMs: config.backoffAboveMs,
  giveUpAboveMs: GIVE_UP_ABOVE_MS,
  random: Math.random,
})
