import { UnrecoverableError } from 'bullmq'
import { toTurnError, type TurnmillError } from '../protocol/errors.ts'
import type { JobNote } from '../protocol/views.ts'
import type { JobWorker, QueueBackend } from './backend.ts'
import { formatFailure, type JobFailure, type JobSubject } from './jobs.ts'

/** A job as its handler sees it: the payload is a hint, and of any shape. */
export interface ReceivedJob {
  id: string
  data: unknown
  /** 0 for a first delivery, a duplicate and a stalled redelivery; 1 and more after an operator's retry. */
  attemptsMade: number
}

/**
 * Ends the job: `null` and a note as completed, an error as failed with its code and what it was for. A retried job that
 * came too late is `superseded`; one whose turn runs once more, under a job of its own, is `reopened`.
 */
export type JobOutcome = TurnmillError | JobNote | null

type JobHandler = (job: ReceivedJob) => Promise<JobOutcome>

/** A queue, as its worker needs to know it. */
interface WorkedQueue {
  name: string
  /** What its jobs are for. */
  subject: JobSubject
  /** The id of that, of a payload of any shape; `null` where it names none. */
  idOf(data: unknown): string | null
}

export interface JobWorkerOptions {
  concurrency: number
  lockMs: number
  stalledCheckMs: number
  onError(error: Error): void
}

export interface QueueWorker {
  /** Resolves once it takes jobs. A connection that could not be set up stays so: whoever started it ends. */
  ready(): Promise<void>
  /** Takes no new jobs; those under way go on. */
  pause(): Promise<void>
  /** Waits for the jobs under way. May hang while Redis is away: give it a deadline. */
  close(): Promise<void>
}

/** High enough that BullMQ never fails a job for its dead workers: the row that it is for counts those. */
const MAX_STALLED = 1_000_000

/** Runs the jobs of a queue. */
export function startJobWorker(
  backend: QueueBackend,
  queue: WorkedQueue,
  handle: JobHandler,
  options: JobWorkerOptions,
): QueueWorker {
  const worker: JobWorker<object> = backend.worker<object>(
    queue.name,
    async (job) => {
      const received = { id: job.id ?? '', data: job.data, attemptsMade: job.attemptsMade }
      const outcome = await settle(handle, received, options)
      if (outcome === null || typeof outcome === 'string') return outcome
      throw jobError({ code: outcome.code, subject: queue.subject, id: queue.idOf(job.data) })
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
  handle: JobHandler,
  job: ReceivedJob,
  { onError }: Pick<JobWorkerOptions, 'onError'>,
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
