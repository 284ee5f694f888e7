import pg from 'pg'
import type { PrismaClient } from './generated/client.ts'
import { toDatabaseError } from './errors.ts'
import type { LentPool } from './lent-pool.ts'
import { createPrisma } from './prisma.ts'
import type { Statement } from './statement.ts'
import { startWatchdog, type Watchdog } from './watchdog.ts'

export interface DatabaseOptions {
  url: string
  /** Connections at most. */
  poolSize: number
  /** How long a caller waits for a connection before `database_unavailable`, in ms. */
  connectTimeoutMs: number
  /** How long Postgres may say nothing at all before everything that waits for it fails, in ms. */
  silenceMs: number
  /** Shown in `pg_stat_activity`. */
  applicationName: string
}

/** One pool, seen two ways: prepared statements for the hot path, Prisma for the rest. */
export interface Database {
  readonly pool: pg.Pool
  /** Made when first asked for, which takes some milliseconds and 3 MB. */
  readonly prisma: PrismaClient
  /** Whether it is the inside of a transaction (`joinTransaction`): one connection, and transactions are savepoints. */
  readonly joined: boolean
  /** Idle ones, for the next transactions that are joined. */
  readonly lentPools: LentPool[]
  /** For further connections to the same Postgres, which are to be cut with those of the pool. */
  openSocket: Watchdog['openSocket']
  close(): Promise<void>
}

const IDLE_MS = 300_000

/** Opens the pool lazily: the first query connects. Pipelined, so that a whole transaction can be one round trip. */
export function openDatabase(options: DatabaseOptions): Database {
  const watchdog = startWatchdog(options)
  const pool = new pg.Pool({
    connectionString: options.url,
    stream: watchdog.openSocket,
    max: options.poolSize,
    connectionTimeoutMillis: options.connectTimeoutMs,
    application_name: options.applicationName,
    // A connection costs an authentication; a burst after a pause should not pay for ten of them at once.
    idleTimeoutMillis: IDLE_MS,
    keepAlive: true,
    pipeline: true,
  })
  // An idle connection that breaks is replaced by the pool; the next query tells whoever needs to know.
  pool.on('error', () => undefined)
  // One that breaks between two statements of a transaction has nobody else to tell, and an error that nobody hears
  // ends the process; the next statement fails by itself.
  pool.on('connect', (client) => client.on('error', () => undefined))
  let prisma: PrismaClient | undefined
  const close = async (): Promise<void> => {
    await prisma?.$disconnect()
    // A silent Postgres takes no leave: until its connections have ended, somebody must be able to cut them.
    if (!pool.ending) await pool.end()
    await watchdog.stop()
  }
  return {
    pool,
    get prisma() {
      return (prisma ??= createPrisma(pool))
    },
    joined: false,
    lentPools: [],
    openSocket: watchdog.openSocket,
    close,
  }
}

/**
 * Runs one prepared statement outside a transaction and gives its rows; inside one where the database is joined.
 *
 * @throws {TurnmillError} `database_unavailable` where Postgres cannot be reached.
 */
export async function query<Row extends object>(db: Database, statement: Statement): Promise<Row[]> {
  try {
    return (await db.pool.query<Row>(statement)).rows
  } catch (error) {
    throw toDatabaseError(error)
  }
}
