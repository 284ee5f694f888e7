/** The servers of a test run: one Postgres and one Redis, started before the first test file and stopped after the last. */
import { rm } from 'node:fs/promises'
import pg from 'pg'
import { startEmbeddedPostgres } from '../../src/db/embedded.ts'
import { migrate } from '../../src/db/migrate.ts'
import { openPostgresBackend } from '../../src/queue/backend.ts'
import { TEMPLATE_DATABASE, TEST_ENVIRONMENT } from './environment.ts'
import { startRedis } from './redis.ts'
import { makeScratch } from './scratch.ts'

/** Losing a test's data to a power cut costs nothing. */
const FAST_AND_FORGETFUL = [
  'fsync=off',
  'synchronous_commit=off',
  'full_page_writes=off',
  'max_connections=300',
]

export interface TestServers {
  stop(): Promise<void>
}

/** Starts both servers, makes the template database and puts their addresses into the environment. */
export async function startTestServers(): Promise<TestServers> {
  const dataDir = await makeScratch('turnmill-test-')
  const stops = [() => rm(dataDir, { recursive: true, force: true })]
  const stop = async (): Promise<void> => {
    for (const stopOne of stops.splice(0)) await stopOne()
  }
  try {
    const redis = await startRedis()
    stops.unshift(() => redis.stop())
    const flags = FAST_AND_FORGETFUL.flatMap((setting) => ['-c', setting])
    const postgres = await startEmbeddedPostgres({ dataDir, flags })
    stops.unshift(() => postgres.stop())
    await createTemplate(postgres.url)
    process.env[TEST_ENVIRONMENT.redisUrl] = redis.url
    process.env[TEST_ENVIRONMENT.postgresUrl] = postgres.url
  } catch (error) {
    await stop()
    throw error
  }
  return { stop }
}

async function createTemplate(postgresUrl: string): Promise<void> {
  const admin = new pg.Client({ connectionString: postgresUrl })
  await admin.connect()
  try {
    await hashPasswordLightly(admin, postgresUrl)
    await admin.query(`create database ${TEMPLATE_DATABASE}`)
    const url = new URL(postgresUrl)
    url.pathname = `/${TEMPLATE_DATABASE}`
    await migrate(url.href)
    // Whoever opens the backend would make its schema first, in each database anew.
    const backend = await openPostgresBackend({
      url: url.href,
      onError: (error) => process.stderr.write(`${error.message}\n`),
    })
    await backend.close()
    await admin.query(`alter database ${TEMPLATE_DATABASE} with is_template true allow_connections false`)
  } finally {
    await admin.end()
  }
}

/** Each connection proves that it knows the password, for which it hashes it 4,096 times by default. */
async function hashPasswordLightly(admin: pg.Client, postgresUrl: string): Promise<void> {
  await admin.query('set scram_iterations = 1')
  await admin.query(
    `alter role current_user password ${admin.escapeLiteral(decodeURIComponent(new URL(postgresUrl).password))}`,
  )
}
