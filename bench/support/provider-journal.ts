import { createInterface } from 'node:readline'
import type { IncomingMessage } from 'node:http'
import { get, postJson } from './http.ts'

/**
 * What the provider did with a call. `received`: its request was there. `held`: the first parts of its answer are sent,
 * and the rest is not. `answered`, `refused`: all was sent. `closed`: its socket was closed before that.
 */
export type JournalEvent = 'received' | 'held' | 'answered' | 'refused' | 'closed'

export interface JournalEntry {
  /** The call, as its message named it. Every attempt at it has the same. */
  tag: string
  event: JournalEvent
  /** By `nowMs`, in the provider's process. */
  at: number
}

/** Longest wait for an entry, in ms: what takes longer does not happen. */
const PATIENCE_MS = 30_000

/** The journal of the scripted provider, as it is written. */
export class ProviderJournal {
  readonly #url: string
  readonly #entries: JournalEntry[] = []
  readonly #waiting = new Set<(entry: JournalEntry) => void>()
  readonly #response: IncomingMessage

  private constructor(url: string, response: IncomingMessage) {
    this.#url = url
    this.#response = response
    createInterface({ input: response }).on('line', (line) => this.#take(JSON.parse(line) as JournalEntry))
  }

  /** @param url the provider's, without a path. */
  static async open(url: string): Promise<ProviderJournal> {
    return new ProviderJournal(url, await get(`${url}/journal`))
  }

  /** The times of an event, as far as it is known here. */
  times(tag: string, event: JournalEvent): number[] {
    return this.#entries.filter((entry) => entry.tag === tag && entry.event === event).map(({ at }) => at)
  }

  /** Gives the time of the first such event, past or to come. @throws {Error} when it does not come. */
  until(tag: string, event: JournalEvent): Promise<number> {
    const [past] = this.times(tag, event)
    return past === undefined ? this.#next(tag, event) : Promise.resolve(past)
  }

  /** Lets the provider end an answer that it holds. Gives the time at which it did. */
  async release(tag: string): Promise<number> {
    await postJson(`${this.#url}/release/${encodeURIComponent(tag)}`, { token: '', body: {} })
    return this.until(tag, 'answered')
  }

  close(): void {
    this.#response.destroy()
  }

  #next(tag: string, event: JournalEvent): Promise<number> {
    const { promise, resolve, reject } = Promise.withResolvers<number>()
    const look = (entry: JournalEntry): void => {
      if (entry.tag === tag && entry.event === event) resolve(entry.at)
    }
    const late = new Error(`the provider noted no ‘${event}’ of ${tag} within ${PATIENCE_MS} ms`)
    const timer = setTimeout(() => reject(late), PATIENCE_MS)
    this.#waiting.add(look)
    return promise.finally(() => {
      clearTimeout(timer)
      this.#waiting.delete(look)
    })
  }

  #take(entry: JournalEntry): void {
    this.#entries.push(entry)
    for (const look of this.#waiting) look(entry)
  }
}
