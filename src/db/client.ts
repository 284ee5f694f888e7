import { createHash } from 'node:crypto'
import { PrismaPg } from '@prisma/adapter-pg'
import pg from 'pg'
import { PrismaClient } from './generated/client.ts'
import { toDatabaseError } from './errors.ts'
import type { Statement } from './statement.ts'

export interface DatabaseOptions {
  url: string
  /** Connections at most. */
  poolSize: number
  /** How long a caller waits for a connection before `database_unavailable`, in ms. */
  connectTimeoutMs: number
  /** Shown in `pg_stat_activity`. */
  applicationName: string
}

/** One pool, seen two ways: prepared statements for the hot path, Prisma for the rest. */
export interface Database {
  readonly pool: pg.Pool
  readonly prisma: PrismaClient
  close(): Promise<void>
}

const IDLE_MS = 300_000

/** Opens the pool lazily: the first query connects. Pipelined, so that a whole transaction can be one round trip. */
export function openDatabase(options: DatabaseOptions): Database {
  const pool = new pg.Pool({
    connectionString: options.url,
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
  const prisma = new PrismaClient({ adapter: new PrismaPg(pool, { statementNameGenerator: statementName }) })
  return { pool, prisma, close: () => closeOnce(prisma, pool) }
}

async function closeOnce(prisma: PrismaClient, pool: pg.Pool): Promise<void> {
  await prisma.$disconnect()
  if (!pool.ending) await pool.end()
}

const statementName = ({ sql }: { sql: string }): string =>
  `prisma-${createHash('sha1').update(sql).digest('base64url')}`

/**
 * Runs one prepared statement outside a transaction and gives its rows.
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
