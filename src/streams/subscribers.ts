import type { LogNews } from './part-log.ts'

type Listener = (news: LogNews) => void

/** Who listens to which chat in this process. */
export class Subscribers {
  readonly #listeners = new Map<string, Set<Listener>>()

  /** Whether it is the chat's first. */
  add(chatId: string, listener: Listener): boolean {
    const listeners = this.#listeners.get(chatId)
    if (listeners !== undefined) {
      listeners.add(listener)
      return false
    }
    this.#listeners.set(chatId, new Set([listener]))
    return true
  }

  /** Whether it was the chat's last. */
  remove(chatId: string, listener: Listener): boolean {
    const listeners = this.#listeners.get(chatId)
    if (listeners === undefined || !listeners.delete(listener) || listeners.size > 0) return false
    return this.#listeners.delete(chatId)
  }

  tell(chatId: string, news: LogNews): void {
    for (const listener of this.#listeners.get(chatId) ?? []) listener(news)
  }

  has(chatId: string): boolean {
    return this.#listeners.has(chatId)
  }

  chatIds(): string[] {
    return [...this.#listeners.keys()]
  }
}
