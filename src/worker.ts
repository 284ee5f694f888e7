import { TurnmillError } from './protocol/errors.ts'
import type { JobNote } from './protocol/views.ts'

/** Runs the jobs of one queue. `stop` lets what is under way end for the drain time, gives the rest back, and resolves when nothing runs. */
export interface Worker {
  /** Resolves once it takes jobs. Rejects where its queue cannot be set up, or with `worker_stopped` where it is stopped meanwhile. */
  start(): Promise<void>
  stop(): Promise<void>
}

/** Several as one: they drain side by side. */
export const joinWorkers = (workers: readonly Worker[]): Worker => ({
  start: async () => {
    await Promise.all(workers.map((worker) => worker.start()))
  },
  stop: async () => {
    await Promise.all(workers.map((worker) => worker.stop()))
  },
})

/** How a job ended, as the metrics count it: `null` and a note as completed. */
export const nameOutcome = (outcome: TurnmillError | JobNote | null): string =>
  outcome === null ? 'completed' : typeof outcome === 'string' ? outcome : 'failed'

export const workerStopped = (): TurnmillError =>
  new TurnmillError('worker_stopped', 'the worker was told to stop before its work was done')

/**
 * How long a worker waits for its work to be given back and for the queue, in ms: Postgres or Redis may be away. What it
 * leaves of the margin of the exit is for settling calls and closing connections.
 */
const CLOSE_LIMIT_MS = 2000

/** Waits for the work under way, then has it given back. */
export async function drain(
  closed: Promise<void>,
  abortAll: (reason: TurnmillError) => void,
  drainMs: number,
): Promise<void> {
  const timers: NodeJS.Timeout[] = []
  const after = (ms: number): Promise<'late'> =>
    new Promise((resolve) => timers.push(setTimeout(() => resolve('late'), ms)))
  if ((await Promise.race([closed, after(drainMs)])) === 'late') {
    abortAll(workerStopped())
    await Promise.race([closed, after(CLOSE_LIMIT_MS)])
  }
  timers.forEach(clearTimeout)
}
