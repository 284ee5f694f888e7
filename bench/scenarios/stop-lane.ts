import { setTimeout as sleep } from 'node:timers/promises'
import { nowMs } from '../support/clock.ts'
import { getJson, postJson, untilEvent } from '../support/http.ts'
import type { Settlements } from '../support/settlements.ts'
import type { Trial } from '../support/trial.ts'
import { createChat, type BenchUser, type StartedChat } from '../support/turnmill.ts'
import type { StopWindow } from './stop-windows.ts'

/** One stop that took effect. Times in ms. */
export interface MeasuredStop {
  /** Its turn's call at the provider, and the next message's. */
  tag: string
  nextTag: string
  /** From the client's POST until what the window waits for. */
  effect: number
  /** From the client's POST until the turn was seen to be committed as interrupted. */
  interrupted: number
  /** From the client's POST, or from a slot becoming free, until the next message's request reached the provider. */
  next: number
}

/** The default of `TURNMILL_RUNNING_ROOT_TURNS`. */
const RUNNING_LIMIT = 5
/** Stops come at any moment of a lease's renewal, in ms. */
const RENEWAL_MS = 3000
const GOLDEN = (Math.sqrt(5) - 1) / 2

/** A user who stops one turn after the other, all in the same window. */
export class StopLane {
  readonly #trial: Trial
  readonly #settlements: Settlements
  readonly #window: StopWindow
  readonly #user: BenchUser
  /** Turns that fill the user's limit: the provider holds their answers. */
  #fillers: string[] = []

  constructor(
    trial: Trial,
    settlements: Settlements,
    { window, user }: { window: StopWindow; user: BenchUser },
  ) {
    this.#trial = trial
    this.#settlements = settlements
    this.#window = window
    this.#user = user
  }

  /** @throws {Error} where the stop does not take effect, or the turn is not where it should be. */
  async measure(number: number): Promise<MeasuredStop> {
    if (this.#window.limitIsFull) await this.#fillLimit(number)
    const tag = `${this.#window.name} ${number}`
    const nextTag = `${tag} next`
    const started = await this.#start(`${this.#window.behaviour}: ${tag}`)
    await this.#queue(started, `${this.#window.limitIsFull ? 'hold' : 'quick'}: ${nextTag}`)
    await this.#untilEntered(started, tag)
    await sleep(((number * GOLDEN) % 1) * RENEWAL_MS)
    await this.#demandStatus(started)
    return { tag, nextTag, ...(await this.#stop(started, tag, nextTag)) }
  }

  /** Lets the turns end that fill the limit. */
  async close(): Promise<void> {
    for (const tag of this.#fillers) await this.#trial.journal.release(tag)
  }

  /** Stops the turn, and watches what comes of it. */
  async #stop(
    { chat, turn }: StartedChat,
    tag: string,
    nextTag: string,
  ): Promise<Omit<MeasuredStop, 'tag' | 'nextTag'>> {
    const { journal } = this.#trial
    const interruptedAt = this.#untilInterrupted(turn.id)
    const stoppedAt = nowMs()
    const [interrupted] = await Promise.all([interruptedAt, this.#post(`/v1/chats/${chat.id}/interrupt`, {})])
    const effect =
      this.#window.until === 'turn interrupted' ? interrupted : await journal.until(tag, 'closed')
    if (effect < stoppedAt) throw new Error('the socket was closed before the stop, expected after it')
    const nextFrom = this.#window.limitIsFull ? await this.#freeSlot(nextTag) : stoppedAt
    const next = await journal.until(nextTag, 'received')
    return { effect: effect - stoppedAt, interrupted: interrupted - stoppedAt, next: next - nextFrom }
  }

  #start(content: string): Promise<StartedChat> {
    return createChat(this.#trial.turnmill.url, this.#user.token, content)
  }

  async #queue({ chat }: StartedChat, content: string): Promise<void> {
    const answer = await this.#post<{ queuedMessage?: object }>(`/v1/chats/${chat.id}/messages`, { content })
    if (answer.queuedMessage === undefined) throw new Error('the next message was not queued')
  }

  async #untilEntered({ chat }: StartedChat, tag: string): Promise<void> {
    const { entered } = this.#window
    if (entered === null) return
    if ('journal' in entered) await this.#trial.journal.until(tag, entered.journal)
    else {
      const stream = `${this.#trial.turnmill.url}/v1/chats/${chat.id}/stream`
      await untilEvent(stream, this.#user.token, (block) =>
        block.split('\n').includes(`event: ${entered.watcher}`),
      )
    }
  }

  async #demandStatus({ chat }: StartedChat): Promise<void> {
    const url = `${this.#trial.turnmill.url}/v1/chats/${chat.id}`
    const { status } = await getJson<{ status: string }>(url, this.#user.token)
    if (status !== this.#window.status)
      throw new Error(`the chat was ${status} before its stop, expected ${this.#window.status}`)
  }

  /** @throws {Error} for any other end of the turn. */
  async #untilInterrupted(turnId: string): Promise<number> {
    const settlement = await this.#settlements.of(turnId)
    if (settlement !== 'interrupted') throw new Error(`the turn was ${settlement}, expected interrupted`)
    return nowMs()
  }

  async #fillLimit(number: number): Promise<void> {
    while (this.#fillers.length < RUNNING_LIMIT) {
      const tag = `filler ${number}.${this.#fillers.length}`
      await this.#start(`hold: ${tag}`)
      await this.#trial.journal.until(tag, 'held')
      this.#fillers.push(tag)
    }
  }

  /** Lets a turn end that fills the limit; the next message's takes its place. Gives the time of its end. */
  async #freeSlot(nextTag: string): Promise<number> {
    const [oldest = '', ...others] = this.#fillers
    this.#fillers = [...others, nextTag]
    return this.#trial.journal.release(oldest)
  }

  #post<Answer>(path: string, body: object): Promise<Answer> {
    return postJson<Answer>(this.#trial.turnmill.url + path, { token: this.#user.token, body })
  }
}
