import { UnrecoverableError } from 'bullmq'
import { toTurnError, type TurnmillError } from '../protocol/errors.ts'
import type { JobNote } from '../protocol/views.ts'
import type { JobWorker, QueueBackend } from './backend.ts'
import { formatFailure, readJob, type JobFailure } from './jobs.ts'
import { TURNS_QUEUE } from './turns.ts'

/** A job as its handler sees it: the payload is a hint, and of any shape. */
export interface ReceivedJob {
  id: string
  data: unknown
  /** 0 for a first delivery, a duplicate and a stalled redelivery; 1 and more after an operator's retry. */
  attemptsMade: number
}

/**
 * Ends the job: `null` and a note as completed, an error as failed with its code and its turn. A retried job that came
 * too late is `superseded`; one whose turn runs once more, under a job of its own, is `reopened`.
 */
export type JobOutcome = TurnmillError | JobNote | null

export type TurnJobHandler = (job: ReceivedJob) => Promise<JobOutcome>

export interface TurnWorkerOptions {
  concurrency: number
  lockMs: number
  stalledCheckMs: number
  onError(error: Error): void
}

export interface TurnJobWorker {
  /** Resolves once it takes jobs. A connection that could not be set up stays so: whoever started it ends. */
  ready(): Promise<void>
  /** Takes no new jobs; those under way go on. */
  pause(): Promise<void>
  /** Waits for the jobs under way. May hang while Redis is away: give it a deadline. */
  close(): Promise<void>
}

/** High enough that BullMQ never fails a job for its dead workers: the turn's own row counts those. */
const MAX_STALLED = 1_000_000

/** Runs the jobs of the `turns` queue. */
export function startTurnWorker(
  backend: QueueBackend,
  handle: TurnJobHandler,
  options: TurnWorkerOptions,
): TurnJobWorker {
  const worker: JobWorker<object> = backend.worker<object>(
    TURNS_QUEUE,
    async (job) => {
      const received = { id: job.id ?? '', data: job.data, attemptsMade: job.attemptsMade }
      const outcome = await settle(handle, received, options)
      if (outcome === null || typeof outcome === 'string') return outcome
      throw jobError({ code: outcome.code, turnId: readJob(job.data)?.turnId ?? null })
    },
    {
      concurrency: options.concurrency,
      lockDuration: options.lockMs,
      stalledInterval: options.stalledCheckMs,
      maxStalledCount: MAX_STALLED,
    },
  )
  worker.on('error', options.onError)
  return {
    ready: () => worker.waitUntilReady(),
    pause: () => worker.pause(true),
    close: () => worker.close(),
  }
}

/** What a handler throws is a bug or an outage: its text goes to the log, for the queue keeps none. */
async function settle(
  handle: TurnJobHandler,
  job: ReceivedJob,
  { onError }: Pick<TurnWorkerOptions, 'onError'>,
): Promise<JobOutcome> {
  try {
    return await handle(job)
  } catch (error) {
    onError(error as Error)
    return toTurnError(error)
  }
}

/** BullMQ keeps an error's message and stack, and Bull Board shows both. */
function jobError(failure: JobFailure): UnrecoverableError {
  const error = new UnrecoverableError(formatFailure(failure))
  error.stack = ''
  return error
}
