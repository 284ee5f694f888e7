import type { Config } from './config/index.ts'
import { openDatabase, type Database } from './db/index.ts'
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
  await using opened = new AsyncDisposableStack()
  const db = openDatabase({
    url,
    poolSize: config.databasePoolSize,
    connectTimeoutMs: config.databaseConnectTimeoutMs,
    silenceMs: config.databaseSilenceMs,
    applicationName: 'turnmill',
  })
  opened.defer(() => db.close())
  const backend =
    config.redisUrl === null
      ? await openPostgresBackend({ url, onError, openSocket: db.openSocket })
      : await openRedisBackend(config.redisUrl, config.queuePrefix, onError)
  opened.defer(() => backend.close())
  const queue = openTurnQueue(backend)
  opened.defer(() => queue.close().catch(onError))
  const auxiliaryQueue = openAuxiliaryQueue(backend)
  opened.defer(() => auxiliaryQueue.close().catch(onError))
  await Promise.all([queue.ready(), auxiliaryQueue.ready()])
  const parts =
    config.redisUrl === null
      ? openPostgresPartLog({ db, url, ttlMs: config.partLogTtlMs, onError })
      : openRedisPartLog({
          url: config.redisUrl,
          prefix: config.queuePrefix,
          ttlMs: config.partLogTtlMs,
          onError,
        })
  opened.defer(() => parts.close())
  const kept = opened.move()
  return { db, backend, queue, auxiliaryQueue, parts, close: () => kept.disposeAsync() }
}
