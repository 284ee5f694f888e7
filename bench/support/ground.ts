import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { startEmbeddedPostgres } from '../../src/db/embedded.ts'
import { startRedis } from '../../test/support/redis.ts'
import type { Cleanup } from './cleanup.ts'
import { startNodeProcess } from './node-process.ts'
import { ProviderJournal } from './provider-journal.ts'

/** A server of our own. Its process id is there so that its CPU time can be read. */
export interface Server {
  url: string
  pid: number
}

const FLAGS = ['shared_preload_libraries=pg_stat_statements', 'max_connections=200']

/** A new Postgres with its default durability: a commit is on the disk before it is answered. */
export async function startPostgres(cleanup: Cleanup): Promise<Server> {
  const dataDir = await mkdtemp(path.join(tmpdir(), 'turnmill-bench-'))
  cleanup.add(() => rm(dataDir, { recursive: true, force: true }))
  const postgres = await startEmbeddedPostgres({ dataDir, flags: FLAGS.flatMap((flag) => ['-c', flag]) })
  cleanup.add(() => postgres.stop())
  await runSql(postgres.url, 'create extension pg_stat_statements')
  return postgres
}

/** An empty database on that server. */
export async function createDatabase(server: Server, name: string): Promise<string> {
  await runSql(server.url, `create database ${name}`)
  const url = new URL(server.url)
  url.pathname = `/${name}`
  return url.href
}

/** Tells the planner what the tables hold, as autovacuum does within the first minute of a deployment's life. */
export const analyze = (databaseUrl: string): Promise<void> => runSql(databaseUrl, 'vacuum analyze')

async function runSql(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(sql)
  } finally {
    await client.end()
  }
}

/** A Redis on 127.0.0.1 that keeps nothing on disk. */
export async function startQueueRedis(cleanup: Cleanup): Promise<Server> {
  const redis = await startRedis()
  cleanup.add(() => redis.stop())
  return redis
}

/** The provider that answers at once, in a process of its own. */
export async function startProvider(cleanup: Cleanup, parts: number): Promise<Server> {
  const { origin, pid } = await startServer(cleanup, 'provider-server', { BENCH_PARTS: String(parts) })
  return { url: `${origin}/v1`, pid }
}

/** The same for Chat Completions, whole or streamed. */
export async function startChatProvider(cleanup: Cleanup, parts: number): Promise<Server> {
  const { origin, pid } = await startServer(cleanup, 'chat-provider-server', { BENCH_PARTS: String(parts) })
  return { url: `${origin}/v1`, pid }
}

/** The provider that does what each message tells it, in a process of its own. */
export interface ScriptedProvider {
  /** As a provider's base URL. */
  url: string
  journal: ProviderJournal
}

/** @param env its settings, see `scripted-provider-server.ts`. */
export async function startScriptedProvider(
  cleanup: Cleanup,
  env: Readonly<Record<string, string>>,
): Promise<ScriptedProvider> {
  const { origin } = await startServer(cleanup, 'scripted-provider-server', env)
  const journal = await ProviderJournal.open(origin)
  cleanup.add(async () => journal.close())
  return { url: `${origin}/v1`, journal }
}

async function startServer(
  cleanup: Cleanup,
  file: string,
  env: Readonly<Record<string, string>>,
): Promise<{ origin: string; pid: number }> {
  const entry = fileURLToPath(new URL(`./${file}.ts`, import.meta.url))
  const server = await startNodeProcess(cleanup, { name: 'provider', entry, env, readyMessage: 'listening' })
  return { origin: `http://127.0.0.1:${String(server.ready.port)}`, pid: server.pid }
}
