/** The storm's own Postgres and Redis, each of which can be brought down and comes back at the same address. */
import { mkdir } from 'node:fs/promises'
import path from 'node:path'
import { Redis } from 'ioredis'
import pg from 'pg'
import { startEmbeddedPostgres, type EmbeddedPostgres } from '../../src/db/embedded.ts'
import { findFreePort } from '../../src/db/free-port.ts'
import { startRedis, type TestRedis } from '../support/redis.ts'

export interface Server {
  readonly url: string
  /** Ends it without a word; what it has not written is lost. */
  crash(): Promise<void>
  /** At the same address, on the same data. */
  restart(): Promise<void>
  stop(): Promise<void>
}

// A killed server loses nothing by it: what it has written is the kernel's. A commit is still written before it is answered.
const POSTGRES_FLAGS = ['fsync=off', 'max_connections=300'].flatMap((setting) => ['-c', setting])

export async function startStormPostgres(directory: string): Promise<Server> {
  const options = {
    dataDir: path.join(directory, 'postgres'),
    port: await findFreePort(),
    flags: POSTGRES_FLAGS,
  }
  let server: EmbeddedPostgres = await startEmbeddedPostgres(options)
  return {
    url: await createDatabase(server.url, 'storm'),
    crash: async () => {
      process.kill(server.pid, 'SIGQUIT')
      await server.exited
    },
    restart: async () => {
      server = await startEmbeddedPostgres(options)
    },
    stop: () => server.stop(),
  }
}

async function createDatabase(serverUrl: string, name: string): Promise<string> {
  const client = new pg.Client({ connectionString: serverUrl })
  await client.connect()
  await client.query(`create database ${name}`)
  await client.end()
  const url = new URL(serverUrl)
  url.pathname = `/${name}`
  return url.href
}

export interface RedisServer extends Server {
  flush(): Promise<void>
}

export async function startStormRedis(directory: string): Promise<RedisServer> {
  const dir = path.join(directory, 'redis')
  await mkdir(dir, { recursive: true })
  const options = { port: await findFreePort(), args: ['--appendonly', 'yes', '--dir', dir] }
  let server: TestRedis = await startRedis(options)
  return {
    url: server.url,
    crash: async () => {
      process.kill(server.pid, 'SIGKILL')
      await server.stop()
    },
    restart: async () => {
      server = await startRedis(options)
    },
    flush: () => flush(server.url),
    stop: () => server.stop(),
  }
}

async function flush(url: string): Promise<void> {
  const client = new Redis(url, { lazyConnect: true, retryStrategy: () => null })
  client.on('error', () => undefined)
  try {
    await client.connect()
    await client.flushall()
  } finally {
    client.disconnect()
  }
}
