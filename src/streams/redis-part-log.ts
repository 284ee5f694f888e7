import { setTimeout as sleep } from 'node:timers/promises'
import { Redis, type ChainableCommander } from 'ioredis'
import type { LoggedPart, LogNews, PartLog } from './part-log.ts'
import { Subscribers } from './subscribers.ts'

export interface RedisPartLogOptions {
  url: string
  /** Begins every key and channel. */
  prefix: string
  /** How long a chat's log outlives its last part, in ms. */
  ttlMs: number
  onError(error: Error): void
}

const RECONNECT_MS = 500
const SUBSCRIBE_LIMIT_MS = 1000

/**
 * The part log on Redis: a stream per chat, and a channel per chat that carries the same parts, so that a watcher who
 * is there already needs no second look.
 */
export function openRedisPartLog({ url, prefix, ttlMs, onError }: RedisPartLogOptions): PartLog {
  const options = { retryStrategy: () => RECONNECT_MS, connectTimeout: 2000 }
  const commands = new Redis(url, {
    ...options,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 1,
    commandTimeout: 2000,
  })
  const subscriber = new Redis(url, { ...options, maxRetriesPerRequest: null })
  for (const redis of [commands, subscriber]) redis.on('error', onError)

  const subscribers = new Subscribers()
  const key = (chatId: string): string => `${prefix}:parts:{${chatId}}`
  const channel = (chatId: string): string => `${prefix}:chat:{${chatId}}`
  const pokes = `${prefix}:pokes`
  const pokeListeners = new Set<(turnId: string) => void>()
  subscriber.on('message', (name: string, text: string) => {
    if (name === pokes) {
      for (const listener of pokeListeners) listener(text)
      return
    }
    const chatId = name.slice(prefix.length + ':chat:{'.length, -1)
    const news = parseNews(text)
    if (news !== null) subscribers.tell(chatId, news)
  })
  // What was published while the connection was away is gone: every watcher looks for itself.
  subscriber.on('ready', () => {
    for (const chatId of subscribers.chatIds()) subscribers.tell(chatId, { type: 'changed' })
  })

  /** While Redis is away a subscription waits in line, and whoever wants it goes on with what Postgres says. */
  const subscribed = (name: string): Promise<unknown> =>
    Promise.race([
      subscriber.subscribe(name).catch(onError),
      sleep(SUBSCRIBE_LIMIT_MS, undefined, { ref: false }),
    ])

  return {
    append: async (chatId, parts) => {
      const [first] = parts
      if (first === undefined) return
      const text = JSON.stringify(parts)
      const attempt = sortable(first)
      const pipeline = commands.pipeline()
      if (first.seq === 1) pipeline.eval(EMPTY_UNLESS_LATER, 1, key(chatId), attempt)
      pipeline.xadd(key(chatId), '*', 'parts', text, 'attempt', attempt)
      pipeline.pexpire(key(chatId), ttlMs)
      pipeline.publish(channel(chatId), text)
      await execute(pipeline)
    },
    read: async (chatId) => {
      const records = await commands.xrange(key(chatId), '-', '+')
      return records.flatMap(([, fields]) => JSON.parse(fields[1] ?? '[]') as LoggedPart[])
    },
    announce: (chatId) => void commands.publish(channel(chatId), CHANGED).catch(() => undefined),
    poke: (turnId) => void commands.publish(pokes, turnId).catch(() => undefined),
    onPoke: async (listener) => {
      pokeListeners.add(listener)
      await subscribed(pokes)
      return () => void pokeListeners.delete(listener)
    },
    subscribe: async (chatId, listener) => {
      subscribers.add(chatId, listener)
      await subscribed(channel(chatId))
      return () => {
        if (subscribers.remove(chatId, listener))
          void subscriber.unsubscribe(channel(chatId)).catch(() => undefined)
      }
    },
    close: async () => {
      commands.disconnect()
      subscriber.disconnect()
    },
  }
}

const CHANGED = '"changed"'

/** The first entry is of the attempt that has emptied the log, and stands before no later one. */
const EMPTY_UNLESS_LATER = `
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if first and not (first[2][4] and first[2][4] > ARGV[1]) then redis.call('DEL', KEYS[1]) end`

/** As text, attempts stand in the order in which they were begun. */
const sortable = ({ turn, step, epoch, attempt }: LoggedPart): string =>
  [turn, step, epoch, attempt].map((number) => String(number).padStart(10, '0')).join('.')

function parseNews(text: string): LogNews | null {
  try {
    const news = JSON.parse(text) as unknown
    if (news === 'changed') return { type: 'changed' }
    return Array.isArray(news) ? { type: 'parts', parts: news as LoggedPart[] } : null
  } catch {
    return null
  }
}

async function execute(pipeline: ChainableCommander): Promise<void> {
  for (const [error] of (await pipeline.exec()) ?? []) if (error !== null) throw error
}
