import type { Contender } from './contender.ts'
import type { Settlement, Settlements } from './settlements.ts'
import { withoutIds } from './without-ids.ts'

export interface LoadOptions {
  /** How many are counted; the load is kept up until the last of them is committed. */
  turns: number
  /** Turns under way at once. */
  concurrency: number
  /** The users who send them, taking turns. */
  users: number
  /** Of those under way, how many are watched over SSE. */
  watched: number
  /** How long turns are counted at most, in ms. */
  limitMs: number
  /**
   * Called when counting begins: once as many turns as are under way at a time have been completed. By then every
   * connection is open again that was closed while somebody else was measured.
   */
  onBegin?: () => void
}

/** Times in ms, one per counted turn. */
export interface LoadResult {
  /** Turns committed as completed within `seconds`. */
  completed: number
  seconds: number
  /** From sending the message to the API's answer. */
  accept: number[]
  /** From that answer to the first part that a watcher saw; of the watched ones. */
  firstPart: number[]
  /** From that answer to the committed row. */
  committed: number[]
  /** Everything that did not end as it should, with how often. */
  troubles: Map<string, number>
  /** Resolves when nothing is under way any more, with the number of all turns that were completed. */
  drained: Promise<number>
}

/** Counting begins after this long at the latest. */
const LEAD_IN_MS = 3000

/** Keeps `concurrency` turns under way until `turns` of them are committed. Resolves at that moment. */
export async function runLoad(
  contender: Contender,
  settlements: Settlements,
  options: LoadOptions,
): Promise<LoadResult> {
  const run = new LoadRun(contender, settlements, options)
  const slots = Array.from({ length: options.concurrency }, (_, slot) => run.keepBusy(slot))
  const drained = Promise.all(slots).then(() => run.everCompleted)
  const leadIn = setTimeout(() => run.begin(), LEAD_IN_MS)
  await run.begun
  clearTimeout(leadIn)
  const limit = setTimeout(() => run.end(), options.limitMs)
  await run.ended
  clearTimeout(limit)
  return { ...run.figures(), drained }
}

class LoadRun {
  readonly #contender: Contender
  readonly #settlements: Settlements
  readonly #options: LoadOptions
  readonly #ended = Promise.withResolvers<undefined>()
  readonly #begun = Promise.withResolvers<undefined>()
  #beganAt: number | null = null
  readonly #accept: number[] = []
  readonly #firstPart: number[] = []
  readonly #committed: number[] = []
  readonly #troubles = new Map<string, number>()
  #over = false
  everCompleted = 0

  constructor(contender: Contender, settlements: Settlements, options: LoadOptions) {
    this.#contender = contender
    this.#settlements = settlements
    this.#options = options
  }

  get begun(): Promise<undefined> {
    return this.#begun.promise
  }

  get ended(): Promise<undefined> {
    return this.#ended.promise
  }

  /** From now on turns are counted. */
  begin(): void {
    if (this.#beganAt !== null) return
    this.#beganAt = performance.now()
    this.#options.onBegin?.()
    this.#begun.resolve(undefined)
  }

  end(): void {
    this.#over = true
    this.#ended.resolve(undefined)
  }

  /** One turn after the other until the load is over. */
  async keepBusy(slot: number): Promise<void> {
    while (!this.#over) {
      try {
        await this.#runTurn(slot)
      } catch (error) {
        this.#note((error as Error).message)
        // A server that refuses everything would otherwise be asked as fast as we can.
        await new Promise((resolve) => setTimeout(resolve, 250))
      }
    }
  }

  figures(): Omit<LoadResult, 'drained'> {
    return {
      completed: this.#committed.length,
      seconds: (performance.now() - (this.#beganAt ?? performance.now())) / 1000,
      accept: this.#accept,
      firstPart: this.#firstPart,
      committed: this.#committed,
      troubles: this.#troubles,
    }
  }

  async #runTurn(slot: number): Promise<void> {
    const { users, watched } = this.#options
    const sentAt = performance.now()
    const turn = await this.#contender.submit(slot % users)
    const acceptedAt = performance.now()
    const watching = slot < watched ? this.#watch(turn.watchFirstPart, acceptedAt) : undefined
    const settlement = await this.#settlements.of(turn.turnId)
    this.#count(settlement, { accept: acceptedAt - sentAt, committed: performance.now() - acceptedAt })
    await watching
  }

  /** Never rejects: nobody waits for it until the turn has settled. */
  async #watch(watchFirstPart: (() => Promise<void>) | null, acceptedAt: number): Promise<void> {
    if (watchFirstPart === null) return
    try {
      await watchFirstPart()
      if (this.#isCounting()) this.#firstPart.push(performance.now() - acceptedAt)
    } catch (error) {
      this.#note(`watching: ${(error as Error).message}`)
    }
  }

  #count(settlement: Settlement, times: { accept: number; committed: number }): void {
    if (settlement !== 'completed') {
      this.#note(`a turn was ${settlement}`)
      return
    }
    this.everCompleted++
    if (this.#isCounting()) this.#record(times)
    else if (this.everCompleted >= this.#options.concurrency) this.begin()
  }

  #isCounting(): boolean {
    return this.#beganAt !== null && !this.#over
  }

  #record(times: { accept: number; committed: number }): void {
    this.#accept.push(times.accept)
    this.#committed.push(times.committed)
    if (this.#committed.length >= this.#options.turns) this.end()
  }

  #note(trouble: string): void {
    const kind = withoutIds(trouble)
    this.#troubles.set(kind, (this.#troubles.get(kind) ?? 0) + 1)
  }
}
