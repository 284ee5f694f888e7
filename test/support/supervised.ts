/** Faulty processes as a supervisor sees them: one that works, and a spare one that takes its place when it dies. */
import { spawn, type ChildProcess } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { setPriority } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { newId } from '../../src/protocol/ids.ts'
import type { Fault, Strike } from './fault-points.ts'
import type { Order, Word } from './faulty-process.ts'
import { COMPILE_CACHE } from './process.ts'

const ENTRY = path.resolve(import.meta.dirname, 'faulty-process.ts')

/** The more, the longer others go first. */
const NICENESS = 5

/** How long a point may take to be reached once all scenes are over, in ms: timers have theirs within a second. */
const LATE_MS = 20_000

class Faulty {
  readonly #child: ChildProcess
  readonly #words = new EventEmitter().setMaxListeners(0)
  readonly #ready: Promise<unknown>
  /** Resolves when the process has ended and all it said is read. */
  readonly exited: Promise<unknown>

  constructor(environment: Record<string, string>) {
    this.#child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', ENTRY], {
      env: { PATH: process.env['PATH'] ?? '', NODE_COMPILE_CACHE: COMPILE_CACHE, ...environment },
      stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
    })
    // Three lanes of these would starve the file beside them, which may be one that measures.
    if (this.#child.pid !== undefined) setPriority(this.#child.pid, NICENESS)
    this.exited = once(this.#child, 'close')
    createInterface({ input: this.#child.stdout as NodeJS.ReadableStream }).on('line', (line) => {
      const word = JSON.parse(line) as Word
      this.#words.emit(word.said, word)
    })
    this.#ready = this.said('ready')
  }

  /** Resolves with the next such word; `null` where the process has ended before it. */
  async said<S extends Word['said']>(said: S): Promise<Extract<Word, { said: S }> | null> {
    const word = once(this.#words, said).then(([one]) => one as Extract<Word, { said: S }>)
    return Promise.race([word, this.exited.then(() => null)])
  }

  /** Resolves once it is done; `null` where the process has ended before. */
  async tell<O extends Order>(order: O): Promise<Extract<Word, { said: O['order'] }> | null> {
    await this.#ready
    const done = this.said<O['order']>(order.order)
    this.#child.send(order, () => undefined)
    return done
  }

  async stop(): Promise<void> {
    this.#child.kill('SIGTERM')
    await this.exited
  }
}

/** A faulty process that works. */
interface Working {
  process: Faulty
  address: string
}

export class Supervised {
  readonly #environment: Record<string, string>
  #spare: Faulty
  #working: Promise<Working>
  #stopped = false
  deaths = 0

  constructor(environment: Record<string, string>) {
    this.#environment = environment
    const first = new Faulty(environment)
    this.#spare = new Faulty(environment)
    this.#working = this.#start(first)
  }

  async #start(process: Faulty): Promise<Working> {
    void process.exited.then(() => this.#replace())
    const answer = await process.tell({ order: 'work' })
    if (answer === null) throw new Error('a faulty process ended before it worked')
    return { process, address: answer.address }
  }

  #replace(): void {
    if (this.#stopped) return
    this.deaths += 1
    this.#working = this.#start(this.#spare)
    this.#spare = new Faulty(this.#environment)
  }

  /**
   * Arms a fault, plays, and tells what it struck.
   *
   * @returns `null` where the point was not reached.
   */
  async strike(fault: Fault, play: () => Promise<void>): Promise<Strike | null> {
    const { process } = await this.#working
    const struck = process.said('struck')
    await process.tell({ order: 'arm', fault })
    await play()
    const late = new AbortController()
    const strike = await Promise.race([struck, sleep(LATE_MS, null, { signal: late.signal })])
    late.abort()
    if (strike !== null && fault.action === 'kill') await process.exited
    return strike?.strike ?? null
  }

  async drain(): Promise<void> {
    const { process } = await this.#working
    await process.tell({ order: 'drain' })
  }

  /** Sends until there is an answer that says something; the key makes that safe. */
  async request<T>(token: string, method: string, route: string, body?: unknown): Promise<T> {
    const headers = {
      authorization: `Bearer ${token}`,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...(method === 'GET' ? {} : { 'idempotency-key': newId() }),
    }
    for (;;) {
      const { address } = await this.#working
      try {
        const response = await fetch(address + route, {
          method,
          headers,
          ...(body === undefined ? {} : { body: JSON.stringify(body) }),
          signal: AbortSignal.timeout(5000),
        })
        const text = await response.text()
        if (response.status < 500) return (text === '' ? null : JSON.parse(text)) as T
      } catch {
        // It died, and another one takes its place.
      }
      await sleep(40)
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true
    const { process } = await this.#working
    await Promise.all([process.stop(), this.#spare.stop()])
  }
}
