import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'

/** The lock of a chat's row, as every write on the chat takes it, held by a test. */
export interface ChatLock {
  /** Resolves once the lock was granted. */
  granted: Promise<void>
  /** Resolves once it waits for somebody else's. */
  queued(): Promise<void>
  /** Resolves once somebody waits behind it. */
  waitedFor(): Promise<void>
  /** Ends the sessions that wait behind it, whose statements then come to nothing. */
  endWaiters(): Promise<void>
  release(): Promise<void>
}

/** Asks for the lock; who asks first is granted it first. */
export async function lockChat(databaseUrl: string, chatId: string): Promise<ChatLock> {
  const client = new pg.Client(databaseUrl)
  const watcher = new pg.Client(databaseUrl)
  await Promise.all([client.connect(), watcher.connect()])
  const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid')
  const pid = rows[0]?.pid
  await client.query('begin')
  const granted = client
    .query('select 1 from chats where id = $1 for no key update', [chatId])
    .then(() => undefined)
  const until = async (condition: string): Promise<void> => {
    while ((await watcher.query(condition, [pid])).rows.length === 0) await sleep(10)
  }
  const waiters = `select pid from pg_stat_activity where datname = current_database() and $1 = any(pg_blocking_pids(pid))`
  return {
    granted,
    queued: () => until('select 1 where cardinality(pg_blocking_pids($1)) > 0'),
    waitedFor: () => until(waiters),
    endWaiters: async () => {
      await watcher.query(`select pg_terminate_backend(w.pid) from (${waiters}) w`, [pid])
    },
    release: async () => {
      await granted
      await client.query('rollback')
      await Promise.all([client.end(), watcher.end()])
    },
  }
}
