export {
  AUXILIARY_JOB,
  AUXILIARY_QUEUE,
  openAuxiliaryQueue,
  startAuxiliaryJobs,
  type AuxiliaryQueue,
} from './auxiliary.ts'
export { openPostgresBackend, openRedisBackend, type JobQueue, type QueueBackend } from './backend.ts'
export type { JobProducer } from './job-queue.ts'
export {
  formatFailure,
  JOB_TRIGGERS,
  readAuxiliaryJob,
  readFailure,
  readJob,
  type AuxiliaryJob,
  type AuxiliaryJobClaim,
  type JobClaim,
  type JobComparison,
  type JobFailure,
  type JobTrigger,
  type TurnJob,
} from './jobs.ts'
export {
  openTurnQueue,
  startTurnWorker,
  TURN_JOB,
  TURNS_QUEUE,
  type TurnJobHandler,
  type TurnQueue,
} from './turns.ts'
export type { JobOutcome, JobWorkerOptions, ReceivedJob, QueueWorker } from './worker.ts'
