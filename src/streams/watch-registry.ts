import type { Watcher, WatchRegistry } from './watch-chat.ts'

export interface WatchRegistryOptions {
  /** The snapshot versions of many chats, in one query. */
  readVersions(chatIds: readonly string[]): Promise<Map<string, number>>
  /** Those of these keys that may be used, in one query. */
  findUsableKeys(apiKeyIds: readonly string[]): Promise<Set<string>>
  periodMs: number
  onError(error: unknown): void
}

/**
 * Looks at the versions of all watched chats and at the keys of their watchers, one query each per period: a lost
 * notification is only late, and a revoked key watches no longer.
 */
export function createWatchRegistry(options: WatchRegistryOptions): WatchRegistry & {
  start(): void
  stop(): void
} {
  const watchers = new Map<string, Set<Watcher>>()
  let timer: NodeJS.Timeout | undefined
  let looking = false

  async function look(): Promise<void> {
    if (looking || watchers.size === 0) return
    looking = true
    try {
      await Promise.all([tellChanged(watchers, options), endUnusable(watchers, options)])
    } catch (error) {
      options.onError(error)
    } finally {
      looking = false
    }
  }

  return {
    add(chatId, watcher) {
      const watching = watchers.get(chatId) ?? new Set()
      watchers.set(chatId, watching.add(watcher))
      return () => {
        watching.delete(watcher)
        if (watching.size === 0 && watchers.get(chatId) === watching) watchers.delete(chatId)
      }
    },
    start() {
      timer ??= setInterval(() => void look(), options.periodMs).unref()
    },
    stop() {
      clearInterval(timer)
      timer = undefined
    },
  }
}

type Watchers = ReadonlyMap<string, ReadonlySet<Watcher>>

async function tellChanged(watchers: Watchers, { readVersions }: WatchRegistryOptions): Promise<void> {
  const versions = await readVersions([...watchers.keys()])
  for (const [chatId, watching] of watchers)
    for (const watcher of watching)
      if (versions.get(chatId) !== watcher.seenVersion()) watcher.tell({ type: 'changed' })
}

async function endUnusable(watchers: Watchers, { findUsableKeys }: WatchRegistryOptions): Promise<void> {
  const all = [...watchers.values()].flatMap((watching) => [...watching])
  const usable = await findUsableKeys([...new Set(all.map(({ apiKeyId }) => apiKeyId))])
  for (const watcher of all) if (!usable.has(watcher.apiKeyId)) watcher.end()
}
