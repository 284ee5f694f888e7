import type { QueueBackend } from './backend.ts'

/** Finished jobs that are kept for operators to look at; a kept job swallows an add of its id, so ids never repeat. */
const KEPT = { completed: { age: 3600, count: 1000 }, failed: { age: 7 * 24 * 3600, count: 10_000 } }

/** Job states in which a job is going to be run by somebody. */
const EXPECTED = new Set<string>(['waiting', 'prioritized', 'delayed', 'wait', 'paused'])

/** The producers' side of one queue, whose jobs all have this payload. */
export interface JobProducer<Job> {
  /** Resolves once the queue can be used. A connection that could not be set up stays so: whoever started it ends. */
  ready(): Promise<void>
  /** Adding an id twice makes one job. `ahead` of all that wait, or at their end. */
  enqueue(jobId: string, job: Job, place?: { ahead: boolean }): Promise<void>
  /** Of these jobs, those that nobody is going to run: unknown, finished, or with a worker that may be gone. */
  findLost(jobIds: readonly string[]): Promise<Set<string>>
  close(): Promise<void>
}

/** @param jobName the name of every job on the queue. */
export function openJobProducer<Job extends object>(
  backend: QueueBackend,
  queueName: string,
  jobName: string,
): JobProducer<Job> {
  const queue = backend.queue<object>(queueName, {
    defaultJobOptions: { attempts: 1, removeOnComplete: KEPT.completed, removeOnFail: KEPT.failed },
  })
  // Connection errors also come as events, and an event without a listener would end the process.
  queue.on('error', () => undefined)
  return {
    ready: () => queue.waitUntilReady(),
    enqueue: async (jobId, job, { ahead } = { ahead: false }) => {
      await queue.add(jobName, job, { jobId, lifo: ahead })
    },
    findLost: async (jobIds) => {
      const states = await Promise.all(jobIds.map((jobId) => queue.getJobState(jobId)))
      return new Set(jobIds.filter((_, index) => !EXPECTED.has(states[index] ?? 'unknown')))
    },
    close: () => queue.close(),
  }
}
