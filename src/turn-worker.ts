import { createLeaseKeeper, createTurnProcessor, type JobOutcome } from './agent/index.ts'
import { TurnmillError } from './protocol/errors.ts'
import { readJob, startTurnWorker, type TurnJobHandler } from './queue/index.ts'
import type { Services } from './services.ts'
import type { Tool } from './tools/index.ts'
import { createTurnEffects } from './turn-effects.ts'

/** A worker for turns. `stop` lets them end for the drain time, gives the rest back, and resolves when nothing runs. */
export interface TurnWorker {
  /** Resolves once it takes jobs; rejects where its queue cannot be set up. */
  start(): Promise<void>
  stop(): Promise<void>
}

export interface TurnWorkerOptions {
  /** Tools of the host's own, made by `defineTool`; they come beside those that are configured. */
  tools?: readonly Tool[]
}

export function createTurnWorker(services: Services, { tools = [] }: TurnWorkerOptions = {}): TurnWorker {
  const { chats, config, logger, metrics } = services
  const gateway = config.gatewayRouting ? services.gateway : null
  const leases = createLeaseKeeper({
    chats,
    leaseMs: config.leaseMs,
    renewalMs: config.leaseRenewalMs,
    onError: (error) => logger.warn({ error }, 'leases were not renewed'),
  })
  const stopping = new AbortController()
  const workerTools = { source: { toolsFor: async () => tools }, computerFor: null }
  const effects = { ...createTurnEffects(services, gateway, workerTools), stopping: stopping.signal }
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
