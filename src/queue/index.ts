export { openPostgresBackend, openRedisBackend, type QueueBackend } from './backend.ts'
export { readJob, type JobClaim, type JobTrigger, type TurnJob } from './jobs.ts'
export { openTurnQueue, TURNS_QUEUE, type TurnQueue } from './turns.ts'
export {
  startTurnWorker,
  type ReceivedJob,
  type TurnJobHandler,
  type TurnJobWorker,
  type TurnWorkerOptions,
} from './worker.ts'
