/**
 * Applies the project's migrations, without Prisma's engine: at run time there is none.
 *
 * - **M1** A migration and its row in the ledger are one transaction: both are there, or neither is.
 * - **M2** Runners take turns, under the advisory lock that Prisma's own takes as well.
 * - **M3** A ledger that contradicts the files on disk is refused before anything is changed.
 */
import pg from 'pg'
import { toStartError } from './errors.ts'
import { findMigrationsDir, readMigrationFiles } from './migration-files.ts'
import { applyMigration, MigrationError, openLedger, selectPending } from './migration-ledger.ts'

export { MigrationError } from './migration-ledger.ts'

/** Key of Prisma's advisory lock. Source: https://www.prisma.io/docs/orm/prisma-migrate/workflows/development-and-production#advisory-locking */
const LOCK_KEY = 72_707_369

/** SQLSTATE of a lock that was not given within lock_timeout. */
const LOCK_NOT_AVAILABLE = '55P03'

export interface MigrateOptions {
  /** The project's own by default. */
  migrationsDir?: string
  /** Told of every applied migration, one line each. */
  log?: (line: string) => void
  /** How long to wait for another runner, in milliseconds; its migrations may be long. */
  lockTimeoutMs?: number
}

export interface MigrateResult {
  /** Names of the migrations that this call applied, in order. */
  applied: string[]
}

/**
 * Brings a database up to the migrations on disk. Running it again changes nothing.
 *
 * @param connection URL or settings of a role that owns the schema; not a transaction-pooling proxy (the lock is the session's).
 * @throws {Error} naming `DATABASE_URL`, where Postgres cannot be reached or does not let the role in.
 * @throws {MigrationError} for an edited, missing or failed migration, a script that fails, or a lock not given in time.
 */
export async function migrate(
  connection: string | pg.ClientConfig,
  {
    migrationsDir = findMigrationsDir(),
    log = () => undefined,
    lockTimeoutMs = 300_000,
  }: MigrateOptions = {},
): Promise<MigrateResult> {
  const files = await readMigrationFiles(migrationsDir)
  const client = new pg.Client(connection)
  client.on('error', () => undefined) // A lost connection also rejects the query that runs on it.
  await client.connect().catch((error: unknown) => {
    throw toStartError(error)
  })
  try {
    await takeLock(client, lockTimeoutMs)
    const pending = selectPending(files, await openLedger(client))
    for (const file of pending) {
      await applyMigration(client, file)
      log(`applied migration ${file.name}`)
    }
    return { applied: pending.map((file) => file.name) }
  } finally {
    await client.end() // Which gives the lock back.
  }
}

async function takeLock(client: pg.Client, lockTimeoutMs: number): Promise<void> {
  try {
    await client.query(`set lock_timeout = ${lockTimeoutMs}`)
    await client.query('select pg_advisory_lock($1)', [LOCK_KEY])
    await client.query('reset lock_timeout')
  } catch (error) {
    if ((error as { code?: string }).code !== LOCK_NOT_AVAILABLE) throw error
    throw new MigrationError(
      `the migration lock was not given within ${lockTimeoutMs} ms, expected another runner to finish by then`,
      { cause: error },
    )
  }
}
