import { once } from 'node:events'
import type { Socket } from 'node:net'
import {
  createPostgresBackend,
  createRedisBackend,
  runMigrations,
  withBackend,
  type BackendFactory,
  type IQueueBackend,
  type JobProgress,
  type PgPool,
  type Processor,
  type Queue,
  type QueueOptions,
  type Worker,
  type WorkerOptions,
} from 'bullmq'
import { Redis } from 'ioredis'
import pg from 'pg'
import type { JobNote } from '../protocol/views.ts'

export type JobQueue<Data> = Queue<Data, void, string, Data, void, string, IQueueBackend>
export type JobWorker<Data> = Worker<Data, JobNote | null, string, IQueueBackend, JobProgress, unknown>

/** BullMQ on one of its backends. This module alone knows which. */
export interface QueueBackend {
  readonly kind: 'redis' | 'postgres'
  queue<Data extends object>(
    name: string,
    options?: Omit<QueueOptions<unknown>, 'connection'>,
  ): JobQueue<Data>
  worker<Data extends object>(
    name: string,
    process: Processor<Data, JobNote | null>,
    options?: Omit<WorkerOptions<unknown>, 'connection'>,
  ): JobWorker<Data>
  /** Calls back, in one of all processes, when the connection has come back: what was lost meanwhile can be put back. */
  onReturn(listener: () => void): void
  ping(): Promise<void>
  close(): Promise<void>
}

/** How soon a lost Redis connection is tried again, in ms; BullMQ's default backoff took 6 to 13 s to come back. */
const RECONNECT_MS = 500

const redisOptions = { retryStrategy: () => RECONNECT_MS, connectTimeout: 2000 }

/**
 * @param prefix begins every key.
 * @param onError told of connection errors, which ioredis then repairs by itself.
 */
export async function openRedisBackend(
  url: string,
  prefix: string,
  onError: (error: Error) => void,
): Promise<QueueBackend> {
  // A producer fails at once in an outage (the reconciler repeats what it could not say); a worker waits for the end of it.
  const producer = new Redis(url, {
    ...redisOptions,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 1,
    commandTimeout: 2000,
  })
  producer.on('error', onError)
  try {
    await firstConnection(producer)
    await refuseEviction(producer)
  } catch (error) {
    producer.disconnect()
    throw error
  }
  const consumer = new Redis(url, { ...redisOptions, maxRetriesPerRequest: null })
  consumer.on('error', onError)
  return {
    ...bind('redis', createRedisBackend, { producer, consumer }, prefix),
    onReturn: (listener) => {
      producer.on('ready', () => void isFirst(producer, prefix).then((first) => first && listener(), onError))
    },
    ping: async () => {
      await producer.ping()
    },
    close: async () => {
      producer.disconnect()
      consumer.disconnect()
    },
  }
}

export interface PostgresBackendOptions {
  /** The same database that holds the truth; the queue has its own schema `bullmq` in it. */
  url: string
  onError(error: Error): void
  openSocket?: () => Socket
  /** At least workers + 1. */
  poolSize?: number
}

export async function openPostgresBackend(options: PostgresBackendOptions): Promise<QueueBackend> {
  const { url, onError, openSocket, poolSize = 10 } = options
  const pool = new pg.Pool({
    connectionString: url,
    options: '-c search_path=bullmq',
    max: poolSize,
    keepAlive: true,
    ...(openSocket === undefined ? {} : { stream: openSocket }),
  })
  // Each queue and each worker listens to it, too.
  pool.setMaxListeners(0)
  pool.on('error', onError)
  pool.on('connect', (client) => client.on('error', onError))
  try {
    await createQueueSchema(pool)
  } catch (error) {
    await pool.end()
    throw error
  }
  const bound = bind(
    'postgres',
    createPostgresBackend,
    { producer: pool as unknown as PgPool, consumer: pool as unknown as PgPool },
    undefined,
  )
  return {
    ...bound,
    onReturn: () => undefined,
    ping: async () => {
      await pool.query('select 1')
    },
    close: () => pool.end(),
  }
}

async function createQueueSchema(pool: pg.Pool): Promise<void> {
  const client = await pool.connect()
  try {
    // Two processes that start at once must not create the schema twice.
    await client.query(`select pg_advisory_lock(hashtextextended('turnmill bullmq schema', 0))`)
    await runMigrations(client, 'bullmq')
    await client.query(`select pg_advisory_unlock(hashtextextended('turnmill bullmq schema', 0))`)
  } finally {
    client.release()
  }
}

function bind<Connection>(
  kind: QueueBackend['kind'],
  factory: BackendFactory<IQueueBackend, Connection>,
  { producer, consumer }: { producer: Connection; consumer: Connection },
  prefix: string | undefined,
): Pick<QueueBackend, 'kind' | 'queue' | 'worker'> {
  const { Queue, Worker } = withBackend(factory as BackendFactory<IQueueBackend, unknown>)
  const common = prefix === undefined ? {} : { prefix }
  return {
    kind,
    queue: (name, options) => new Queue(name, { ...common, ...options, connection: producer }) as never,
    worker: (name, process, options) =>
      new Worker(name, process, { ...common, ...options, connection: consumer }),
  }
}

async function firstConnection(redis: Redis): Promise<void> {
  if (redis.status === 'ready') return
  try {
    await once(redis, 'ready')
  } catch (error) {
    throw new Error(`Redis cannot be reached: ${(error as Error).message}; check REDIS_URL`, { cause: error })
  }
}

/** How long the other processes of a fleet leave a return to the first one, in ms. */
const RETURN_MS = 3000

const isFirst = async (redis: Redis, prefix: string): Promise<boolean> =>
  (await redis.set(`${prefix}:returned`, '', 'PX', RETURN_MS, 'NX')) !== null

/** A Redis that evicts keys loses jobs without a word; BullMQ only warns. */
async function refuseEviction(redis: Redis): Promise<void> {
  const policy = await maxmemoryPolicy(redis)
  if (policy !== null && policy !== 'noeviction')
    throw new Error(
      `Redis has maxmemory-policy ${policy}, expected noeviction: it would drop jobs when it is full; set it in redis.conf, or with CONFIG SET maxmemory-policy noeviction`,
    )
}

// Managed services forbid CONFIG but tell the policy in INFO.
async function maxmemoryPolicy(redis: Redis): Promise<string | null> {
  const info = await redis.info('memory')
  return /maxmemory_policy:(\S+)/.exec(info)?.[1] ?? null
}
