import type { Config } from './config/index.ts'
import { openDatabase, toStartError, type Database } from './db/index.ts'
import {
  openAuxiliaryQueue,
  openPostgresBackend,
  openRedisBackend,
  openTurnQueue,
  type AuxiliaryQueue,
  type QueueBackend,
  type TurnQueue,
} from './queue/index.ts'
import { openPostgresPartLog, openRedisPartLog, type PartLog } from './streams/index.ts'

/** What a process holds open to Postgres and Redis. */
export interface Connections {
  db: Database
  backend: QueueBackend
  queue: TurnQueue
  auxiliaryQueue: AuxiliaryQueue
  parts: PartLog
  close(): Promise<void>
}

/**
 * Opens them one after the other; where one cannot be had, those before it are closed.
 *
 * @param onError told of connection errors, which repair themselves.
 * @throws {Error} that says what to do.
 */
export async function openConnections(
  config: Config,
  url: string,
  onError: (error: unknown) => void,
): Promise<Connections> {
  const opened: (() => Promise<unknown>)[] = []
  const close = async (): Promise<void> => {
    for (const end of opened.splice(0).reverse()) await end().catch(onError)
  }
  try {
    const db = openDatabase({
      url,
      poolSize: config.databasePoolSize,
      connectTimeoutMs: config.databaseConnectTimeoutMs,
      silenceMs: config.databaseSilenceMs,
      applicationName: 'turnmill',
    })
    opened.push(() => db.close())
    const backend =
      config.redisUrl === null
        ? await openPostgresBackend({ url, onError, openSocket: db.openSocket }).catch(failStart)
        : await openRedisBackend(config.redisUrl, config.queuePrefix, onError)
    opened.push(() => backend.close())
    const queue = openTurnQueue(backend)
    const auxiliaryQueue = openAuxiliaryQueue(backend)
    // Side by side: where its server is away, each takes its time, and a process that ends has little.
    opened.push(() => Promise.all([queue, auxiliaryQueue].map((one) => one.close().catch(onError))))
    await Promise.all([queue.ready(), auxiliaryQueue.ready()])
    const parts = openPartLog(config, { db, url, onError })
    opened.push(() => parts.close())
    return { db, backend, queue, auxiliaryQueue, parts, close }
  } catch (error) {
    await close()
    throw error
  }
}

const failStart = (error: unknown): never => {
  throw toStartError(error)
}

const openPartLog = (
  { redisUrl, queuePrefix: prefix, partLogTtlMs: ttlMs }: Config,
  { db, url, onError }: { db: Database; url: string; onError: (error: unknown) => void },
): PartLog =>
  redisUrl === null
    ? openPostgresPartLog({ db, url, ttlMs, onError })
    : openRedisPartLog({ url: redisUrl, prefix, ttlMs, onError })
