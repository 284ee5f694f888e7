/**
 * Writes the next migration: `npm run migration -- <name> [--why "<reason>"]`.
 *
 * Compares prisma/migrations with prisma/schema.prisma on a throw-away Postgres and writes what is missing. CHECKs, partial
 * indexes, triggers and functions are added by hand, and listed in test/integration/migrations.test.ts.
 */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { startEmbeddedPostgres } from '../src/db/embedded.ts'
import { diffMigrationsWithSchema } from './schema-engine.ts'

const USAGE = 'usage: npm run migration -- <name in snake_case> [--why "<reason>"]'
const MIGRATIONS_DIR = fileURLToPath(new URL('../prisma/migrations', import.meta.url))
const SCHEMA_FILE = fileURLToPath(new URL('../prisma/schema.prisma', import.meta.url))

interface MigrationRequest {
  name: string
  /** Stands at the head of the script; left to be filled in when absent. */
  why: string | undefined
}

function parseRequest(args: string[]): MigrationRequest {
  const { values, positionals } = parseArgs({
    args,
    options: { why: { type: 'string' } },
    allowPositionals: true,
  })
  const [name, ...rest] = positionals
  if (name === undefined || rest.length > 0) throw new Error(USAGE)
  if (!/^[a-z0-9]+(_[a-z0-9]+)*$/.test(name))
    throw new Error(`migration name is ${name}, expected snake_case; ${USAGE}`)
  return { name, why: values.why }
}

async function diffOnThrowawayPostgres(): Promise<string> {
  const dataDir = await mkdtemp(path.join(tmpdir(), 'turnmill-shadow-'))
  const postgres = await startEmbeddedPostgres({ dataDir, flags: ['-c', 'fsync=off'] })
  try {
    return await diffMigrationsWithSchema({
      databaseUrl: postgres.url,
      migrationsDir: MIGRATIONS_DIR,
      schemaFile: SCHEMA_FILE,
    })
  } finally {
    await postgres.stop()
    await rm(dataDir, { recursive: true, force: true })
  }
}

/** `YYYYMMDDHHMMSS` in UTC, as Prisma names migrations. */
function timestamp(now: Date): string {
  return now.toISOString().replaceAll(/\D/g, '').slice(0, 14)
}

async function writeMigration({ name, why }: MigrationRequest, sql: string): Promise<string> {
  const directory = path.join(MIGRATIONS_DIR, `${timestamp(new Date())}_${name}`)
  const file = path.join(directory, 'migration.sql')
  await mkdir(directory)
  await writeFile(file, `-- Why: ${why ?? ''}\n\n${sql}\n`)
  return file
}

async function main(): Promise<void> {
  const request = parseRequest(process.argv.slice(2))
  const sql = await diffOnThrowawayPostgres()
  if (sql === '') {
    console.log('prisma/migrations and prisma/schema.prisma agree: nothing to do')
    return
  }
  const file = await writeMigration(request, sql)
  console.log(`wrote ${path.relative(process.cwd(), file)}`)
  if (request.why === undefined) console.log('fill in the reason after `-- Why:` at its head')
}

await main().catch((error: unknown) => {
  console.error((error as Error).message)
  process.exitCode = 1
})
