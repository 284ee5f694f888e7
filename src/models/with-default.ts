import { joinTransaction, statement, type Database } from '../db/index.ts'

/** Whoever may change which model is the default, one at a time: rows alone would not tell of one that is just made. */
const lockDefault = statement(
  'models/lock-default',
  `select pg_advisory_xact_lock(hashtextextended('turnmill default model', 0))`,
)

/** Runs the work in a transaction in which nobody else changes the default. */
export const withDefault = <T>(db: Database, work: (joined: Database) => Promise<T>): Promise<T> =>
  joinTransaction(db, async (joined, tx) => {
    await tx.query(lockDefault())
    return work(joined)
  })
