import { setTimeout as sleep } from 'node:timers/promises'
import type { JobQueue } from '../../src/queue/backend.ts'

/** Takes a job out of its queue; where the machine is busy, it may come after the answer of the request that made it. */
export async function takeJob<T>(queue: JobQueue<T>, jobId: string): Promise<void> {
  while ((await queue.getJob(jobId)) === undefined) await sleep(20)
  await queue.remove(jobId)
}
