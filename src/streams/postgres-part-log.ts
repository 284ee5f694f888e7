import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { query, statement, type Database } from '../db/index.ts'
import type { LoggedPart, LogNews, PartLog } from './part-log.ts'
import { Subscribers } from './subscribers.ts'

export interface PostgresPartLogOptions {
  db: Database
  /** How long parts are kept, in ms. */
  ttlMs: number
  /** The same database: news needs a connection of its own to listen on. */
  url: string
  onError(error: Error): void
}

const CHANNEL = 'turnmill_chats'
const RECONNECT_MS = 500

/** Postgres refuses a notification of 8,000 bytes or more. */
const NOTIFICATION_BYTES = 7500

/** $1 chat, $2 whether it begins an attempt, $3 to $7 the first part's position, $8 parts, $9 notification, $10 life of a part in ms. What has outlived it goes along the way. */
const appendParts = statement(
  'streams/append',
  `with gone as (
    delete from stream_parts where $2 and chat_id = $1 and (turn, step, epoch, attempt) <= ($3, $4, $5, $6)),
  expired as (
    delete from stream_parts where id in (
      select id from stream_parts where $2 and chat_id <> $1 and created_at < clock_timestamp() - $10 * interval '1 ms'
      limit 100 for update skip locked)),
  added as (
    insert into stream_parts (chat_id, turn, step, epoch, attempt, seq, entry) values ($1, $3, $4, $5, $6, $7, $8))
  select pg_notify('${CHANNEL}', $9)`,
)

/** $1 chat. */
const readParts = statement('streams/read', 'select entry from stream_parts where chat_id = $1 order by id')

/** $1 notification. */
const notify = statement('streams/notify', `select pg_notify('${CHANNEL}', $1)`)

/** The part log on Postgres, for one machine without Redis: an unlogged table and LISTEN/NOTIFY. */
export function openPostgresPartLog({ db, url, ttlMs, onError }: PostgresPartLogOptions): PartLog {
  const subscribers = new Subscribers()
  const closing = new AbortController()
  const pokeListeners = new Set<(turnId: string) => void>()
  const tell = (text: string): void => {
    const notification = parseNotification(text)
    if (notification === null) return
    if ('turnId' in notification) for (const listener of pokeListeners) listener(notification.turnId)
    else subscribers.tell(notification.chatId, notification.news)
  }
  const toldAgain = (): void => {
    for (const chatId of subscribers.chatIds()) subscribers.tell(chatId, { type: 'changed' })
  }
  let listening: Promise<void> | undefined
  /** One attempt at a time; one that failed is not remembered. */
  const listen = (): Promise<void> =>
    (listening ??= keepListening({
      url,
      openSocket: db.openSocket,
      tell,
      onReconnect: toldAgain,
      onError,
      signal: closing.signal,
    }).catch((error: unknown) => {
      listening = undefined
      throw error
    }))

  return {
    append: async (chatId, parts) => {
      const [first] = parts
      if (first === undefined) return
      const { turn, step, epoch, attempt, seq } = first
      await query(
        db,
        appendParts(
          chatId,
          seq === 1,
          turn,
          step,
          epoch,
          attempt,
          seq,
          JSON.stringify(parts),
          notification(chatId, parts),
          ttlMs,
        ),
      )
    },
    read: async (chatId) =>
      (await query<{ entry: LoggedPart[] }>(db, readParts(chatId))).flatMap((row) => row.entry),
    announce: (chatId) => void query(db, notify(JSON.stringify({ chatId }))).catch(() => undefined),
    poke: (turnId) => void query(db, notify(JSON.stringify({ turnId }))).catch(() => undefined),
    onPoke: async (listener) => {
      pokeListeners.add(listener)
      await listen().catch(onError)
      return () => void pokeListeners.delete(listener)
    },
    subscribe: async (chatId, listener) => {
      // Without news a watcher goes on with its looks at Postgres.
      await listen().catch(onError)
      subscribers.add(chatId, listener)
      return () => void subscribers.remove(chatId, listener)
    },
    close: async () => closing.abort(),
  }
}

// Parts that do not fit are only announced; the watcher finds a gap and reads the log.
function notification(chatId: string, parts: readonly LoggedPart[]): string {
  const text = JSON.stringify({ chatId, parts })
  return Buffer.byteLength(text) < NOTIFICATION_BYTES ? text : JSON.stringify({ chatId, parts: [] })
}

type Notification = { turnId: string } | { chatId: string; news: LogNews }

function parseNotification(text: string): Notification | null {
  try {
    const told = JSON.parse(text) as { turnId: string } | { chatId: string; parts?: LoggedPart[] }
    if ('turnId' in told) return told
    const { chatId, parts } = told
    return { chatId, news: parts === undefined ? { type: 'changed' } : { type: 'parts', parts } }
  } catch {
    return null
  }
}

interface ListenOptions {
  url: string
  openSocket: Database['openSocket']
  tell(text: string): void
  onReconnect(): void
  onError(error: Error): void
  signal: AbortSignal
}

/** Listens on a connection of its own until aborted, and again after it broke. Resolves once it listens. */
async function keepListening(options: ListenOptions): Promise<void> {
  const client = await connectListener(options)
  client.once('end', () => void listenAgain(options))
  options.signal.addEventListener('abort', () => void client.end().catch(() => undefined), { once: true })
}

async function connectListener({ url, openSocket, tell, onError }: ListenOptions): Promise<pg.Client> {
  const client = new pg.Client({
    connectionString: url,
    stream: openSocket,
    keepAlive: true,
    application_name: 'turnmill-listen',
  })
  client.on('error', onError)
  client.on('notification', ({ payload }) => tell(payload ?? ''))
  try {
    await client.connect()
    await client.query(`listen ${CHANNEL}`)
    return client
  } catch (error) {
    await client.end().catch(() => undefined)
    throw error
  }
}

async function listenAgain(options: ListenOptions): Promise<void> {
  const isOpen = (): boolean => !options.signal.aborted
  while (isOpen()) {
    try {
      await sleep(RECONNECT_MS, undefined, { signal: options.signal })
      await keepListening(options)
      options.onReconnect()
      return
    } catch (error) {
      if (isOpen()) options.onError(error as Error)
    }
  }
}
