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
  let stopping = new AbortController()
  let listening: Promise<() => void> | undefined
  let worker: ReturnType<typeof startTurnWorker> | undefined
  let tools: Promise<WorkerTools> | undefined

  const createHandler = (opened: WorkerTools, signal: AbortSignal): TurnJobHandler => {
    const process = createTurnProcessor({
      chats,
      effects: { ...createTurnEffects(services, opened), stopping: signal },
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

  /** At once for all who ask together; a failure is not remembered. */
  const openTools = async (): Promise<WorkerTools> => {
    const opening = (tools ??= openWorkerTools(services, own))
    try {
      return await opening
    } catch (error) {
      if (tools === opening) tools = undefined
      throw error
    }
  }

  return {
    start: async () => {
      if (stopping.signal.aborted) stopping = new AbortController()
      const { signal } = stopping
      const opened = await openTools()
      // Told to stop meanwhile, which has the tools closed.
      signal.throwIfAborted()
      leases.start()
      // A function of this start alone: the end of an earlier one takes away its own.
      listening ??= services.parts.onPoke((turnId) => leases.poke(turnId))
      worker ??= startTurnWorker(services.backend, createHandler(opened, signal), {
        concurrency: config.workerConcurrency,
        lockMs: config.lockMs,
        stalledCheckMs: config.stalledCheckMs,
        onError: (error) => logger.warn({ error }, 'queue trouble'),
      })
      await worker.ready()
      signal.throwIfAborted()
    },
    stop: async () => {
      stopping.abort(workerStopped())
      const opened = tools
      tools = undefined
      if (worker === undefined) {
        // Its module may take its time, and nothing waits for it.
        void opened?.then((late) => late.close()).catch(() => undefined)
        return
      }
      await drain(worker.close(), leases.abortAll, config.drainMs)
      worker = undefined
      void listening?.then((stopListening) => stopListening())
      listening = undefined
      leases.stop()
      await (await opened)?.close()
    },
  }
}
