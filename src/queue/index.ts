export { openPostgresBackend, openRedisBackend, type JobQueue, type QueueBackend } from './backend.ts'
export {
  formatFailure,
  JOB_TRIGGERS,
  readFailure,
  readJob,
  type JobClaim,
  type JobFailure,
  type JobTrigger,
  type TurnJob,
} from './jobs.ts'
export { openTurnQueue, TURN_JOB, TURNS_QUEUE, type TurnQueue } from './turns.ts'
export {
  startTurnWorker,
  type ReceivedJob,
  type TurnJobHandler,
  type TurnJobWorker,
  type TurnWorkerOptions,
} from './worker.ts'
