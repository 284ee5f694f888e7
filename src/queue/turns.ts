import type { QueueBackend } from './backend.ts'
import type { TurnJob } from './jobs.ts'

export const TURNS_QUEUE = 'turns'

/** The name of every job on it. */
export const TURN_JOB = 'turn'

/** Finished jobs that are kept for operators to look at; a kept job swallows an add of its id, so ids never repeat. */
const KEPT = { completed: { age: 3600, count: 1000 }, failed: { age: 7 * 24 * 3600, count: 10_000 } }

/** Job states in which a job is going to be run by somebody. */
const EXPECTED = new Set<string>(['waiting', 'prioritized', 'delayed', 'wait', 'paused'])

/** The producers' side of the `turns` queue. */
export interface TurnQueue {
  /** Resolves once the queue can be used. A connection that could not be set up stays so: whoever started it ends. */
  ready(): Promise<void>
  /** The one way a turn's job is made. Adding an id twice makes one job. `ahead` of all that wait, or at their end. */
  enqueue(jobId: string, job: TurnJob, place?: { ahead: boolean }): Promise<void>
  /** Of these jobs, those that nobody is going to run: unknown, finished, or with a worker that may be gone. */
  findLost(jobIds: readonly string[]): Promise<Set<string>>
  close(): Promise<void>
}

export function openTurnQueue(backend: QueueBackend): TurnQueue {
  const queue = backend.queue<TurnJob>(TURNS_QUEUE, {
    defaultJobOptions: { attempts: 1, removeOnComplete: KEPT.completed, removeOnFail: KEPT.failed },
  })
  // Connection errors also come as events, and an event without a listener would end the process.
  queue.on('error', () => undefined)
  return {
    ready: () => queue.waitUntilReady(),
    enqueue: async (jobId, job, { ahead } = { ahead: false }) => {
      await queue.add(TURN_JOB, job, { jobId, lifo: ahead })
    },
    findLost: async (jobIds) => {
      const states = await Promise.all(jobIds.map((jobId) => queue.getJobState(jobId)))
      return new Set(jobIds.filter((_, index) => !EXPECTED.has(states[index] ?? 'unknown')))
    },
    close: () => queue.close(),
  }
}
