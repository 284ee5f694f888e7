import type { PoolClient, QueryResult } from 'pg'
import type { Database } from './client.ts'
import { isTransient, toDatabaseError } from './errors.ts'
import type { Statement } from './statement.ts'

/** An open transaction at READ COMMITTED. Each statement sees what was committed before it began. */
export interface Transaction {
  query<Row extends object>(statement: Statement): Promise<Row[]>
  /**
   * Runs the last statements and commits, all in one round trip. Gives the rows of each.
   * After it the transaction is over.
   */
  commitWith(statements: readonly Statement[]): Promise<object[][]>
}

const RETRIES = 3

/**
 * Runs `work` in one transaction, committed when it returns (unless it has committed itself) and rolled back when it
 * throws. A deadlock or serialization failure runs it again, so `work` must have no effects outside the transaction.
 *
 * @throws {TurnmillError} `database_unavailable` where Postgres cannot be reached.
 */
export async function withTransaction<T>(db: Database, work: (tx: Transaction) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await runOnce(db, work)
    } catch (error) {
      if (!isTransient(error) || attempt > RETRIES) throw toDatabaseError(error)
    }
  }
}

/** A transaction of statements that do not need each other's answers: one round trip. */
export const batch = (db: Database, statements: readonly Statement[]): Promise<object[][]> =>
  withTransaction(db, (tx) => tx.commitWith(statements))

async function runOnce<T>(db: Database, work: (tx: Transaction) => Promise<T>): Promise<T> {
  const client = await db.pool.connect()
  const transaction = open(client)
  let broken: unknown = true
  try {
    const result = await work(transaction)
    await transaction.end()
    broken = undefined
    return result
  } catch (error) {
    broken = await rollBack(client)
    throw error
  } finally {
    // A connection in an unknown state is thrown away rather than given to the next caller.
    client.release(broken === undefined ? undefined : true)
  }
}

function open(client: PoolClient): Transaction & { end(): Promise<void> } {
  const begun: Promise<QueryResult<object>> = client.query('begin')
  begun.catch(() => undefined)
  let committed = false
  return {
    query: async <Row extends object>(statement: Statement) => {
      const [, result] = await settleAll<QueryResult<Row>>([
        begun as Promise<QueryResult<Row>>,
        client.query<Row>(statement),
      ])
      return result?.rows ?? []
    },
    commitWith: async (statements) => {
      committed = true
      const sent = statements.map((statement) => client.query<object>(statement))
      const results = await settleAll<QueryResult<object>>([begun, ...sent, client.query<object>('commit')])
      return results.slice(1, -1).map((result) => result.rows)
    },
    end: async () => {
      if (!committed) await client.query('commit')
    },
  }
}

/** Waits for all, so that nothing is under way when it throws, and then throws the first failure in order. */
async function settleAll<T>(work: readonly Promise<T>[]): Promise<T[]> {
  const settled = await Promise.allSettled(work)
  return settled.map((outcome) => {
    if (outcome.status === 'rejected') throw outcome.reason
    return outcome.value
  })
}

async function rollBack(client: PoolClient): Promise<unknown> {
  try {
    await client.query('rollback')
    return undefined
  } catch (error) {
    return error
  }
}
