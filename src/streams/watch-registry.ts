import type { Watcher, WatchRegistry } from './watch-chat.ts'

export interface WatchRegistryOptions {
  /** The snapshot versions of many chats, in one query. */
  readVersions(chatIds: readonly string[]): Promise<Map<string, number>>
  periodMs: number
  onError(error: unknown): void
}

/** Looks at the versions of all watched chats, one query per period, so that a lost notification is only late. */
export function createWatchRegistry({
  readVersions,
  periodMs,
  onError,
}: WatchRegistryOptions): WatchRegistry & {
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
      const versions = await readVersions([...watchers.keys()])
      for (const [chatId, watching] of watchers)
        for (const watcher of watching)
          if (versions.get(chatId) !== watcher.seenVersion()) watcher.tell({ type: 'changed' })
    } catch (error) {
      onError(error)
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
        if (watching.size === 0) watchers.delete(chatId)
      }
    },
    start() {
      timer ??= setInterval(() => void look(), periodMs).unref()
    },
    stop() {
      clearInterval(timer)
      timer = undefined
    },
  }
}
