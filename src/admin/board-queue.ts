import { BullMQAdapter } from '@bull-board/api/bullMQAdapter'
import type { QueueWorker } from '@bull-board/api/typings/app'
import type { FlowProducer, Job, Queue } from 'bullmq'
import type { JobQueue } from '../queue/index.ts'
import { isJobId, showJob } from './shown-job.ts'

/** A failed job may be retried, one that has ended well may not. */
const OPTIONS = { allowRetries: true, allowCompletedRetries: false }

/**
 * A queue as Bull Board sees it. Whatever the board reads passes through here; its own formatters know four of a job's
 * fields, and neither the reason of a failure nor stack traces, options, logs or IDs.
 */
export class BoardQueue extends BullMQAdapter {
  constructor(queue: JobQueue<object>) {
    // Read-only mode would take the retry away with the rest; board-page.ts hides what board-guard.ts refuses.
    // Its queue type names a connection, which a queue of either backend has brought along.
    super(queue as unknown as Queue, OPTIONS)
  }

  /** A stranger's job is listed, and neither opened nor retried: its ID may be any text. */
  override async getJob(id: string): Promise<Job | undefined> {
    const job = isJobId(id) ? await super.getJob(id) : undefined
    return job === undefined ? undefined : shown(job)
  }

  override async getJobs(...range: Parameters<BullMQAdapter['getJobs']>): Promise<Job[]> {
    return (await super.getJobs(...range)).map(shown)
  }

  /** Names of connections are free text. */
  override async getWorkers(): Promise<QueueWorker[] | null> {
    return (await super.getWorkers())?.map((worker) => ({ ...worker, name: null })) ?? null
  }

  // Turnmill writes neither logs nor schedules nor flows; what is there was written by somebody else.

  override async getJobLogs(): Promise<string[]> {
    return []
  }

  override async getJobSchedulers(): Promise<[]> {
    return []
  }

  override async getJobSchedulersCount(): Promise<number> {
    return 0
  }

  override async getFlowProducer(): Promise<FlowProducer | null> {
    return null
  }
}

/** The job itself, but for how it is told and retried. */
const shown = (job: Job): Job =>
  Object.create(job, {
    toJSON: { value: () => showJob(job.toJSON()) },
    retry: { value: (state: string) => retry(job, state) },
  }) as Job

/**
 * Retries a failed job; of several retries at once the first one does it. The board would retry one that has ended well,
 * too, whatever its options say.
 *
 * @throws with a `statusCode`, which the board answers with.
 */
async function retry(job: Job, state: string): Promise<void> {
  if (state !== 'failed') throw refusal(409, `job ${job.id} is ${state}, expected a failed one`)
  try {
    await job.retry(state)
  } catch (error) {
    const present = await job.getState()
    if (present === 'failed') throw error
    if (present === 'unknown') throw refusal(404, `job ${job.id} does not exist any more`)
  }
}

const refusal = (statusCode: number, message: string): Error =>
  Object.assign(new Error(message), { statusCode })
