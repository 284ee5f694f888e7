import { createLeaseKeeper, createTurnProcessor, type JobOutcome } from './agent/index.ts'
import { readJob, startTurnWorker, TURNS_QUEUE, type TurnJobHandler } from './queue/index.ts'
import type { Services } from './services.ts'
import type { Tool } from './tools/index.ts'
import { createTurnEffects } from './turn-effects.ts'
import { openWorkerTools, type WorkerTools } from './worker-tools.ts'
import { drain, nameOutcome, workerStopped, type Worker } from './worker.ts'

/** A worker for turns. Starting it rejects where its tools cannot be loaded, too. */
export type TurnWorker = Worker

export interface TurnWorkerOptions {
  /** Tools of the host's own, made by `defineTool`; they come beside those that are configured. */
  tools?: readonly Tool[]
}

export function createTurnWorker(
  services: Services,
  { tools: own = [] }: TurnWorkerOptions = {},
): TurnWorker {
  const { chats, config, logger, metrics } = services
  const leases = createLeaseKeeper({
    chats,
    leaseMs: config.leaseMs,
    renewalMs: config.leaseRenewalMs,
    onError: (error) => logger.warn({ error }, 'leases were not renewed'),
  })
  const stopping = new AbortController()
  let stopListening: (() => void) | undefined
  let worker: ReturnType<typeof startTurnWorker> | undefined
  let tools: WorkerTools | undefined

  const createHandler = (opened: WorkerTools): TurnJobHandler => {
    const process = createTurnProcessor({
      chats,
      effects: { ...createTurnEffects(services, opened), stopping: stopping.signal },
      leases,
      maxTakeovers: config.maxTakeovers,
      onTakeover: () => metrics.takeovers.inc(),
      logger,
    })
    return async (job) => {
      const claim = readJob(job.data)
      if (claim !== null)
        return count(await process({ ...claim, jobId: job.id, attemptsMade: job.attemptsMade }))
      logger.warn({ event: 'security', jobId: job.id }, 'the job names no turn')
      return count('nameless')
    }
  }
  const count = (outcome: JobOutcome): JobOutcome => {
    metrics.jobs.inc({ queue: TURNS_QUEUE, outcome: nameOutcome(outcome) })
    return outcome
  }

  return {
    start: async () => {
      tools ??= await openWorkerTools(services, own)
      leases.start()
      void services.parts.onPoke(leases.poke).then((stop) => (stopListening = stop))
      worker ??= startTurnWorker(services.backend, createHandler(tools), {
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
      await tools?.close()
      tools = undefined
    },
  }
}
