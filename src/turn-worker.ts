import {
  createLeaseKeeper,
  createTurnProcessor,
  type JobOutcome,
  type RetryPolicy,
  type TurnProcessorDeps,
} from './agent/index.ts'
import type { Config } from './config.ts'
import { loadImages } from './files/index.ts'
import { buildRoute, connectRoute, readRouteFacts, type ReadFacts, type RoutingMode } from './models/index.ts'
import { TurnmillError } from './protocol/errors.ts'
import type { Gateway, Route } from './protocol/routes.ts'
import type { ProviderConnection } from './providers/contract.ts'
import { providerAdapters } from './providers/index.ts'
import { readJob, startTurnWorker, type TurnJobHandler } from './queue/index.ts'
import type { Services } from './services.ts'
import { createPartWriter } from './streams/index.ts'

/** A worker for turns. `stop` lets them end for the drain time, gives the rest back, and resolves when nothing runs. */
export interface TurnWorker {
  /** Resolves once it takes jobs; rejects where its queue cannot be set up. */
  start(): Promise<void>
  stop(): Promise<void>
}

export function createTurnWorker(services: Services): TurnWorker {
  const { chats, config, logger, metrics } = services
  const gateway = config.gatewayRouting ? services.gateway : null
  const leases = createLeaseKeeper({
    chats,
    leaseMs: config.leaseMs,
    renewalMs: config.leaseRenewalMs,
    onError: (error) => logger.warn({ error }, 'leases were not renewed'),
  })
  const stopping = new AbortController()
  const effects = { ...createEffects(services, gateway), stopping: stopping.signal }
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
    metrics.jobs.inc({ outcome: nameOutcome(outcome) })
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
      stopping.abort(stopped())
      if (worker !== undefined) await drain(worker.close(), leases.abortAll, config.drainMs)
      worker = undefined
      stopListening?.()
      leases.stop()
    },
  }
}

const nameOutcome = (outcome: JobOutcome): string =>
  outcome === null ? 'completed' : typeof outcome === 'string' ? outcome : 'failed'

function createEffects(
  services: Services,
  gateway: Gateway | null,
): Omit<TurnProcessorDeps['effects'], 'stopping'> {
  const { chats, config, db, encryption, logger, parts } = services
  const mode: RoutingMode = { gatewayRouting: config.gatewayRouting, gatewayPresent: gateway !== null }
  const readFacts: ReadFacts = (request) => readRouteFacts(db, encryption, request)
  const connect = (route: Route): ProviderConnection => {
    const connection = connectRoute(route, gateway, services.providerFetch)
    return route.recordHttp === true ? services.debugRuns.record(route, connection) : connection
  }
  return {
    settleCalls: chats.settleCalls,
    loadContext: async (claim) => loadImages(db, claim.userId, await chats.context(claim.chatId)),
    buildRoute: async (claim, place) => {
      const built = await buildRoute(
        mode,
        readFacts,
        {
          purpose: 'chat',
          chatId: claim.chatId,
          turnId: claim.turnId,
          place,
          chatUserId: claim.userId,
          modelConfigIds: [claim.modelConfigId, claim.chatModelConfigId].filter((id) => id !== null),
        },
        claim,
      )
      return claim.debug ? { ...built, route: { ...built.route, recordHttp: true } } : built
    },
    callModel: (route, request, signal) =>
      providerAdapters[route.wireFormat]({ connection: connect(route), request, signal }),
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
    deadlines: {
      firstPartMs: config.firstPartTimeoutMs,
      reasoningFirstPartMs: config.reasoningFirstPartTimeoutMs,
      silenceMs: config.silenceTimeoutMs,
      attemptMs: config.attemptTimeoutMs,
    },
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

const stopped = (): TurnmillError =>
  new TurnmillError('worker_stopped', 'the worker was told to stop before the turn ended')

/** How long a worker waits for the queue once its turns are given back, in ms: Redis may be away. */
const CLOSE_LIMIT_MS = 3000

/** Waits for the turns under way, then gives them back. */
async function drain(
  closed: Promise<void>,
  abortAll: (reason: TurnmillError) => void,
  drainMs: number,
): Promise<void> {
  const timers: NodeJS.Timeout[] = []
  const after = (ms: number): Promise<'late'> =>
    new Promise((resolve) => timers.push(setTimeout(() => resolve('late'), ms)))
  if ((await Promise.race([closed, after(drainMs)])) === 'late') {
    abortAll(stopped())
    await Promise.race([closed, after(CLOSE_LIMIT_MS)])
  }
  timers.forEach(clearTimeout)
}
