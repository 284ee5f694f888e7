import type { PoolClient, QueryResult } from 'pg'
import type { Database } from './client.ts'
import { isForeignKeyViolation, isTransient, toContentionError, toDatabaseError } from './errors.ts'
import { createLentPool } from './lent-pool.ts'
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
 * throws. A deadlock or serialization failure runs it again, and so does, once, a reference to a row that is gone: it may
 * have been deleted while a statement ran that had still read it. So `work` must have no effects outside the transaction.
 *
 * On a joined database it is a savepoint of the transaction around it, and only that one runs again: a deadlock, for one,
 * is not over while the outer locks are held.
 *
 * @throws {TurnmillError} `database_unavailable` where Postgres cannot be reached.
 */
export const withTransaction = <T>(db: Database, work: (tx: Transaction) => Promise<T>): Promise<T> =>
  runTransaction(db, work)

/**
 * Runs `work` in one transaction, as `withTransaction`, and hands it a database that is the inside of it: what goes
 * through `joined`, prepared or by Prisma, commits with `tx` and needs no other connection.
 *
 * @throws {TurnmillError} `database_unavailable` where Postgres cannot be reached.
 */
export const joinTransaction = <T>(
  db: Database,
  work: (joined: Database, tx: Transaction) => Promise<T>,
): Promise<T> => runTransaction(db, (tx, connection) => lend(db, connection, (joined) => work(joined, tx)))

async function lend<T>(
  db: Database,
  connection: PoolClient,
  work: (joined: Database) => Promise<T>,
): Promise<T> {
  const lent = db.lentPools.pop() ?? createLentPool()
  lent.lend(connection)
  try {
    return await work({
      pool: lent.pool,
      get prisma() {
        return lent.prisma
      },
      joined: true,
      lentPools: [],
      openSocket: db.openSocket,
      close: async () => undefined,
    })
  } finally {
    lent.takeBack()
    db.lentPools.push(lent)
  }
}

type Work<T> = (tx: Transaction, connection: PoolClient) => Promise<T>

async function runTransaction<T>(db: Database, work: Work<T>): Promise<T> {
  let wasOutdated = false
  for (let attempt = 0; ; attempt++) {
    try {
      return await runOnce(db, work)
    } catch (error) {
      const isOutdated: boolean = isForeignKeyViolation(error) && !wasOutdated
      if (!isTransient(error) && !isOutdated) throw toDatabaseError(error)
      wasOutdated ||= isOutdated
      // Inside another transaction it is that one which runs again.
      if (db.joined) throw error
      if (attempt >= RETRIES) throw toContentionError(error)
    }
  }
}

/** A transaction of statements that do not need each other's answers: one round trip. */
export const batch = (db: Database, statements: readonly Statement[]): Promise<object[][]> =>
  withTransaction(db, (tx) => tx.commitWith(statements))

async function runOnce<T>(db: Database, work: Work<T>): Promise<T> {
  const client = await db.pool.connect()
  const transaction = open(client)
  let broken: unknown = true
  try {
    const result = await work(transaction, client)
    await transaction.end()
    broken = undefined
    return result
  } catch (error) {
    broken = transaction.isOver() ? undefined : await rollBack(client)
    throw error
  } finally {
    // A connection in an unknown state is thrown away rather than given to the next caller.
    client.release(broken === undefined ? undefined : true)
  }
}

interface OpenTransaction extends Transaction {
  /** Commits, unless that was done. */
  end(): Promise<void>
  /** Whether it has committed: there is nothing left to roll back. */
  isOver(): boolean
}

function open(client: PoolClient): OpenTransaction {
  const begun: Promise<QueryResult<object>> = client.query('begin')
  begun.catch(() => undefined)
  let committing = false
  let over = false
  return {
    query: async <Row extends object>(statement: Statement) => {
      const [, result] = await settleAll<QueryResult<Row>>([
        begun as Promise<QueryResult<Row>>,
        client.query<Row>(statement),
      ])
      return result?.rows ?? []
    },
    commitWith: async (statements) => {
      committing = true
      const sent = statements.map((statement) => client.query<object>(statement))
      const results = await settleAll<QueryResult<object>>([begun, ...sent, client.query<object>('commit')])
      over = true
      return results.slice(1, -1).map((result) => result.rows)
    },
    end: async () => {
      if (committing) return
      await settleAll([begun, client.query<object>('commit')])
      over = true
    },
    isOver: () => over,
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
