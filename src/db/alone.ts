import type { Database } from './client.ts'
import { statement } from './statement.ts'
import { withTransaction } from './transaction.ts'

/** $1 name. Freed with the transaction, so that no crash can keep it. */
const tryLock = statement(
  'db/try-lock',
  `select pg_try_advisory_xact_lock(hashtextextended('turnmill ' || $1, 0)) as locked`,
)

/** Runs the work unless another process runs work of that name; then it does nothing. Gives whether it ran. */
export const alone = (db: Database, name: string, work: () => Promise<void>): Promise<boolean> =>
  withTransaction(db, async (tx) => {
    const [row] = await tx.query<{ locked: boolean }>(tryLock(name))
    if (row?.locked !== true) return false
    await work()
    return true
  })
