import {
  createPostgresBackend,
  createRedisBackend,
  runMigrations,
  withBackend,
  type BackendFactory,
  type IQueueBackend,
  type Processor,
} from 'bullmq'
import { Redis } from 'ioredis'
import pg from 'pg'

/** What both processes of the floor stand on: a pool, and BullMQ on the same backend as Turnmill's. */

export const QUEUE = 'turns'

export interface FloorJob {
  turnId: string
}

/** As many connections as a Turnmill process has. */
export const openPool = (): pg.Pool => new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 20 })

const KEPT = { completed: { age: 3600, count: 1000 }, failed: { age: 7 * 24 * 3600, count: 10_000 } }

export async function openQueue() {
  const { Queue, connection } = await openBackend()
  return new Queue(QUEUE, {
    connection,
    defaultJobOptions: { attempts: 1, removeOnComplete: KEPT.completed, removeOnFail: KEPT.failed },
  })
}

export async function startWorker(run: (job: FloorJob) => Promise<void>): Promise<void> {
  const { Worker, connection } = await openBackend()
  const process: Processor<FloorJob> = (job) => run(job.data)
  const worker = new Worker(QUEUE, process as Processor, {
    connection,
    concurrency: 100,
    lockDuration: 10_000,
    stalledInterval: 5000,
  })
  worker.on('error', (error) => report('queue trouble', error))
  worker.on('failed', (_job, error) => report('a job failed', error))
}

async function openBackend() {
  const { REDIS_URL, DATABASE_URL } = process.env
  if (REDIS_URL !== undefined)
    return bind(createRedisBackend, new Redis(REDIS_URL, { maxRetriesPerRequest: null }))
  const pool = new pg.Pool({ connectionString: DATABASE_URL, options: '-c search_path=bullmq', max: 10 })
  await migrateOnce(pool)
  return bind(createPostgresBackend, pool)
}

async function migrateOnce(pool: pg.Pool): Promise<void> {
  const client = await pool.connect()
  await runMigrations(client, 'bullmq')
  client.release()
}

function bind(factory: unknown, connection: unknown) {
  const { Queue, Worker } = withBackend(factory as BackendFactory<IQueueBackend, unknown>)
  return { Queue, Worker, connection }
}

/** A log line as the bench reads it. */
export const say = (msg: string, fields: object = {}): void =>
  console.log(JSON.stringify({ level: 'info', msg, ...fields }))

const report = (msg: string, { message }: Error): void =>
  console.error(JSON.stringify({ level: 'error', msg, error: { message } }))
