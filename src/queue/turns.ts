import type { QueueBackend } from './backend.ts'
import { openJobProducer, type JobProducer } from './job-queue.ts'
import { readJob, type TurnJob } from './jobs.ts'
import {
  startJobWorker,
  type JobOutcome,
  type JobWorkerOptions,
  type ReceivedJob,
  type QueueWorker,
} from './worker.ts'

export const TURNS_QUEUE = 'turns'

/** The name of every job on it. */
export const TURN_JOB = 'turn'

/** The producers' side of the `turns` queue. Its `enqueue` is the one way a turn's job is made. */
export type TurnQueue = JobProducer<TurnJob>

export const openTurnQueue = (backend: QueueBackend): TurnQueue =>
  openJobProducer(backend, TURNS_QUEUE, TURN_JOB)

export type TurnJobHandler = (job: ReceivedJob) => Promise<JobOutcome>

/** Runs the jobs of the `turns` queue. */
export const startTurnWorker = (
  backend: QueueBackend,
  handle: TurnJobHandler,
  options: JobWorkerOptions,
): QueueWorker =>
  startJobWorker(
    backend,
    { name: TURNS_QUEUE, subject: 'turn', idOf: (data) => readJob(data)?.turnId ?? null },
    handle,
    options,
  )
