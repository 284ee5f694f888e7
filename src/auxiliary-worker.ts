import { createLeaseKeeper, type LeaseKeeper, type RetryPolicy } from './agent/index.ts'
import { createRunProcessor, type AuxiliaryRuns, type RunEffects } from './auxiliary/index.ts'
import type { Config } from './config/index.ts'
import { createModelCalls } from './model-calls.ts'
import { AUXILIARY_QUEUE, readAuxiliaryJob, startAuxiliaryJobs, type QueueWorker } from './queue/index.ts'
import type { Services } from './services.ts'
import { drain, nameOutcome, workerStopped, type Worker } from './worker.ts'

/** A worker for titles and status labels. */
export function createAuxiliaryWorker(services: Services): Worker {
  const { auxiliaryRuns, backend, config, logger, metrics } = services
  const leases = createRunLeases(auxiliaryRuns, services)
  let stopping = new AbortController()
  let worker: QueueWorker | undefined

  return {
    start: async () => {
      if (stopping.signal.aborted) stopping = new AbortController()
      const { signal } = stopping
      const process = createRunProcessor({
        runs: auxiliaryRuns,
        effects: createEffects(services, signal),
        leases,
        logger,
      })
      leases.start()
      worker ??= startAuxiliaryJobs(
        backend,
        async ({ id: jobId, data, attemptsMade }) => {
          const claim = readAuxiliaryJob(data)
          if (claim === null) logger.warn({ event: 'security', jobId }, 'the job names no auxiliary run')
          const outcome = claim === null ? 'nameless' : await process({ ...claim, jobId, attemptsMade })
          metrics.jobs.inc({ queue: AUXILIARY_QUEUE, outcome: nameOutcome(outcome) })
          return outcome
        },
        {
          concurrency: config.auxiliaryConcurrency,
          lockMs: config.lockMs,
          stalledCheckMs: config.stalledCheckMs,
          onError: (error) => logger.warn({ error }, 'queue trouble'),
        },
      )
      await worker.ready()
      signal.throwIfAborted()
    },
    stop: async () => {
      stopping.abort(workerStopped())
      if (worker !== undefined) await drain(worker.close(), leases.abortAll, config.drainMs)
      worker = undefined
      leases.stop()
    },
  }
}

/** Renews the leases of runs as those of turns are; nobody tells a run to stop. */
const createRunLeases = (runs: AuxiliaryRuns, { config, logger }: Services): LeaseKeeper =>
  createLeaseKeeper({
    chats: {
      renew: async (held) => {
        const renewed = await runs.renew(held.map(({ turnId, epoch }) => ({ runId: turnId, epoch })))
        return renewed.map(({ runId, ...lease }) => ({ turnId: runId, state: 'running', ...lease }))
      },
    },
    leaseMs: config.leaseMs,
    renewalMs: config.leaseRenewalMs,
    onError: (error) => logger.warn({ error }, 'leases of auxiliary runs were not renewed'),
  })

function createEffects(services: Services, stopping: AbortSignal): RunEffects {
  const { auxiliaryRuns, config, debugRuns } = services
  const calls = createModelCalls(services)
  return {
    callModel: calls.callModel,
    deadlines: { ...calls.deadlines, attemptMs: Math.min(calls.deadlines.attemptMs, CALL_LIMIT_MS) },
    material: auxiliaryRuns.material,
    buildRoute: async (claim) =>
      calls.buildRoute(
        {
          purpose: claim.purpose,
          chatId: claim.chatId,
          turnId: claim.turnId,
          place: null,
          chatUserId: claim.userId,
          explicitModelConfigId: null,
          chatModelConfigId: claim.chatModelConfigId,
        },
        { ...claim, recordHttp: await debugRuns.isOn(claim.chatId) },
      ),
    retries: createRetryPolicy(config),
    maxTakeovers: config.maxTakeovers,
    stopping,
  }
}

/** The longest call for one line of text, in ms. */
const CALL_LIMIT_MS = 120_000

/** Attempts at a run; there is a fallback, so more are not worth it. */
const ATTEMPTS = 3

/** A longer wait than this ends the run, in ms: it holds one of few slots. */
const GIVE_UP_ABOVE_MS = 10_000

const createRetryPolicy = (config: Config): RetryPolicy => ({
  firstMs: config.retryFirstMs,
  maximumMs: Math.min(config.retryMaximumMs, GIVE_UP_ABOVE_MS),
  attempts: Math.min(config.retryAttempts, ATTEMPTS),
  backoffAboveMs: GIVE_UP_ABOVE_MS,
  giveUpAboveMs: GIVE_UP_ABOVE_MS,
  random: Math.random,
})
