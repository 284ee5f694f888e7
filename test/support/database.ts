/** Databases for tests: a migrated one for every file that wants it. */
import pg from 'pg'
import { TEMPLATE_DATABASE, TEST_ENVIRONMENT } from './environment.ts'

export interface TestDatabase {
  /** Connection URL of a superuser. */
  url: string
  /** Drops it, with whoever is still connected. */
  drop(): Promise<void>
}

/** URL of the run's Postgres server, for tests of the server itself. */
export function testPostgresUrl(): string {
  const url = process.env[TEST_ENVIRONMENT.postgresUrl]
  if (url === undefined)
    throw new Error(`${TEST_ENVIRONMENT.postgresUrl} is unset, expected Jest's global setup to set it`)
  return url
}

/** A database of its own, with all migrations applied and no rows. Takes 20 to 100 ms. */
export async function createTestDatabase(): Promise<TestDatabase> {
  return createDatabase(TEMPLATE_DATABASE)
}

/** A database of its own with nothing in it. */
export async function createEmptyDatabase(): Promise<TestDatabase> {
  return createDatabase('template0')
}

async function createDatabase(template: string): Promise<TestDatabase> {
  const name = `turnmill_test_${crypto.randomUUID().replaceAll('-', '')}`
  await runOnServer(`create database ${name} template ${template}`)
  const url = new URL(testPostgresUrl())
  url.pathname = `/${name}`
  return { url: url.href, drop: () => runOnServer(`drop database if exists ${name} with (force)`) }
}

async function runOnServer(sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: testPostgresUrl() })
  await client.connect()
  try {
    await client.query(sql)
  } finally {
    await client.end()
  }
}
