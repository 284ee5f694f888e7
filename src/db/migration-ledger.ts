/** Prisma's own ledger of applied migrations, so that `prisma migrate status` and this project's runner agree. */
import type pg from 'pg'
import { matchesChecksum, migrationChecksum } from './migration-files.ts'
import type { MigrationFile } from './migration-files.ts'

/** Migrations were refused or failed; the message names the migration, what was found and what was expected. */
export class MigrationError extends Error {
  override readonly name = 'MigrationError'
}

interface LedgerRow {
  migration_name: string
  checksum: string
  started_at: Date
  finished_at: Date | null
}

const LEDGER = '_prisma_migrations'

/** Source: schema-engine/connectors/sql-schema-connector/src/flavour/postgres of prisma-engines. */
const CREATE_LEDGER = `
  create table if not exists _prisma_migrations (
    id                  varchar(36) primary key not null,
    checksum            varchar(64) not null,
    finished_at         timestamptz,
    migration_name      varchar(255) not null,
    logs                text,
    rolled_back_at      timestamptz,
    started_at          timestamptz not null default now(),
    applied_steps_count integer not null default 0
  )`

/** Makes the ledger if it is not there, and reads it. Rows that somebody marked as rolled back count for nothing. */
export async function openLedger(client: pg.Client): Promise<LedgerRow[]> {
  const { rows: existing } = await client.query<{ ledger: string | null }>(
    'select to_regclass($1)::text as ledger',
    [LEDGER],
  )
  if (existing[0]?.ledger !== LEDGER) await client.query(CREATE_LEDGER)
  const { rows } = await client.query<LedgerRow>(
    `select migration_name, checksum, started_at, finished_at from _prisma_migrations
      where rolled_back_at is null order by migration_name`,
  )
  return rows
}

/**
 * Holds the ledger against the migrations on disk and returns those still to be applied.
 *
 * Migrations that are recorded, unknown here and later than all known ones belong to the next version, which runs beside
 * this one during a deployment; they are left alone.
 *
 * @throws {MigrationError} for a migration that failed, that was edited after it was applied, or that is gone from disk.
 */
export function selectPending(
  files: readonly MigrationFile[],
  ledger: readonly LedgerRow[],
): MigrationFile[] {
  const known = new Map(files.map((file) => [file.name, file]))
  const lastKnown = files.at(-1)?.name ?? ''
  for (const row of ledger) {
    refuseFailed(row)
    const file = known.get(row.migration_name)
    if (file !== undefined) refuseEdited(row, file)
    else if (row.migration_name < lastKnown) refuseMissing(row, lastKnown)
  }
  const applied = new Set(ledger.map((row) => row.migration_name))
  return files.filter((file) => !applied.has(file.name))
}

function refuseFailed(row: LedgerRow): void {
  if (row.finished_at !== null) return
  throw new MigrationError(
    `migration ${row.migration_name} is recorded as started at ${row.started_at.toISOString()} and never finished, ` +
      'expected it to be finished or absent; repair the database, then run `prisma migrate resolve`',
  )
}

function refuseEdited(row: LedgerRow, file: MigrationFile): void {
  if (matchesChecksum(file.sql, row.checksum)) return
  throw new MigrationError(
    `migration ${row.migration_name} has checksum ${migrationChecksum(file.sql)} on disk, ` +
      `expected ${row.checksum} as applied; restore the file and put the change into a new migration`,
  )
}

function refuseMissing(row: LedgerRow, lastKnown: string): void {
  throw new MigrationError(
    `migration ${row.migration_name} is applied but not on disk, expected only migrations later than ${lastKnown} ` +
      'to be unknown; deploy the version that has it, or restore the file',
  )
}

/** Applies one migration and records it, both or neither. */
export async function applyMigration(client: pg.Client, file: MigrationFile): Promise<void> {
  await client.query('begin')
  try {
    const { rows } = await client.query<{ at: Date }>('select clock_timestamp() as at')
    await client.query(file.sql)
    await client.query(
      `insert into _prisma_migrations (id, checksum, migration_name, started_at, finished_at, applied_steps_count)
       values ($1, $2, $3, $4, clock_timestamp(), 1)`,
      [crypto.randomUUID(), migrationChecksum(file.sql), file.name, rows[0]?.at],
    )
    await client.query('commit')
  } catch (error) {
    await client.query('rollback').catch(() => undefined)
    throw new MigrationError(
      `migration ${file.name} failed and left nothing behind, expected it to apply: ${describeFailure(error, file.sql)}`,
      { cause: error },
    )
  }
}

/** Postgres's message with the line of the script that it is about, where Postgres says so. */
function describeFailure(error: unknown, sql: string): string {
  const { message, position } = error as { message: string; position?: string }
  if (position === undefined) return message
  return `${message} (line ${sql.slice(0, Number(position)).split('\n').length})`
}
