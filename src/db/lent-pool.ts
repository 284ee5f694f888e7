import pg from 'pg'
import type { PrismaClient } from './generated/client.ts'
import { createPrisma } from './prisma.ts'

/**
 * One connection with an open transaction, in the shape of a pool: whatever takes a pool, Prisma too, then works inside
 * that transaction and on that connection alone.
 *
 * A connection taken from it is a savepoint: `begin`, `commit` and `rollback` on it set, release and return to one.
 * Savepoints are a stack, so transactions inside each other work, and two beside each other fail.
 */
export interface LentPool {
  readonly pool: pg.Pool
  /** Made when first asked for, which takes some milliseconds and 3 MB; later transactions find it here. */
  readonly prisma: PrismaClient
  lend(connection: pg.PoolClient): void
  /** From here on everything is refused, until the next connection is lent. */
  takeBack(): void
}

/** What somebody who kept a savepoint too long must not reach: the connection is another transaction's by then. */
interface Loan {
  connection: pg.PoolClient
  over: boolean
}

export function createLentPool(): LentPool {
  let loan: Loan | undefined
  let savepoints = 0
  let prisma: PrismaClient | undefined
  const pool = Object.assign(new pg.Pool(), {
    connect: async () => openSavepoint(demandLoan(loan), `s${++savepoints}`),
    query: async (query: pg.QueryConfig) => demandLoan(loan).connection.query(query),
  })

  return {
    pool,
    get prisma() {
      return (prisma ??= createPrisma(pool))
    },
    lend: (connection) => (loan = { connection, over: false }),
    takeBack: () => {
      if (loan !== undefined) loan.over = true
    },
  }
}

function demandLoan(loan: Loan | undefined): Loan {
  if (loan === undefined || loan.over) throw new Error('the transaction that this belongs to is over')
  return loan
}

function openSavepoint(loan: Loan, name: string): pg.PoolClient {
  const commands: Readonly<Record<string, string>> = {
    begin: `savepoint ${name}`,
    commit: `release savepoint ${name}`,
    rollback: `rollback to savepoint ${name}; release savepoint ${name}`,
  }
  const { connection } = loan
  const savepoint: Pick<pg.PoolClient, 'on' | 'release' | 'removeListener'> & { query: unknown } = {
    query: async (query: string | pg.QueryConfig) => {
      const command = commands[(typeof query === 'string' ? query : query.text).toLowerCase()]
      return demandLoan(loan).connection.query((command ?? query) as pg.QueryConfig)
    },
    on: connection.on.bind(connection),
    removeListener: connection.removeListener.bind(connection),
    release: () => undefined,
  }
  return savepoint as pg.PoolClient
}
