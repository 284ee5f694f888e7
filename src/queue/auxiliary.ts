import type { QueueBackend } from './backend.ts'
import { openJobProducer, type JobProducer } from './job-queue.ts'
import { readAuxiliaryJob, type AuxiliaryJob } from './jobs.ts'
import {
  startJobWorker,
  type JobOutcome,
  type JobWorkerOptions,
  type ReceivedJob,
  type QueueWorker,
} from './worker.ts'

export const AUXILIARY_QUEUE = 'auxiliary'

/** The name of every job on it. */
export const AUXILIARY_JOB = 'auxiliary'

/** The producers' side of the `auxiliary` queue. Its `enqueue` is the one way the job of an auxiliary run is made. */
export type AuxiliaryQueue = JobProducer<AuxiliaryJob>

export const openAuxiliaryQueue = (backend: QueueBackend): AuxiliaryQueue =>
  openJobProducer(backend, AUXILIARY_QUEUE, AUXILIARY_JOB)

/** Runs the jobs of the `auxiliary` queue. */
export const startAuxiliaryJobs = (
  backend: QueueBackend,
  handle: (job: ReceivedJob) => Promise<JobOutcome>,
  options: JobWorkerOptions,
): QueueWorker =>
  startJobWorker(
    backend,
    { name: AUXILIARY_QUEUE, subject: 'run', idOf: (data) => readAuxiliaryJob(data)?.runId ?? null },
    handle,
    options,
  )
