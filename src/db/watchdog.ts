import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { startDeadline } from '../protocol/deadline.ts'

export interface WatchdogOptions {
  url: string
  /** How long Postgres may say nothing, neither to a `select 1` nor on any other connection, in ms. */
  silenceMs: number
  applicationName: string
}

/**
 * Finds out that Postgres says nothing any more, where nobody else would: a machine that froze or a network that was cut
 * refuses no connection and ends none, so that a query there waits until TCP gives up, a quarter of an hour later.
 * While Postgres is silent every connection is cut, what waits on it fails at once, and none is opened.
 */
export interface Watchdog {
  /** The socket of a new connection, not connected yet: for the option `stream` of `pg`. */
  openSocket(): net.Socket
  stop(): Promise<void>
}

const PERIOD_MS = 200

/** Silences that a connection may bring nothing for, once a question got no answer while other connections lived. */
const QUIET_FOR = 10

/** What each connection had brought at a moment. */
interface Marks {
  at: number
  bytes: ReadonlyMap<net.Socket, number>
}

export function startWatchdog(options: WatchdogOptions): Watchdog {
  const sockets = new Set<net.Socket>()
  const stopping = new AbortController()
  const isStopping = () => stopping.signal.aborted
  const pinger = createPinger(options)
  let silent = false
  let missed: Marks | undefined

  const mark = (): Marks => ({
    at: performance.now(),
    bytes: new Map([...sockets].map((socket) => [socket, socket.bytesRead])),
  })
  const isQuiet = (socket: net.Socket, since: Marks): boolean =>
    socket.bytesRead === (since.bytes.get(socket) ?? 0)
  const cut = (quiet: Iterable<net.Socket>, reason?: Error): void => {
    for (const socket of quiet) socket.destroy(reason)
  }

  /**
   * One session may be short of time on a machine that is busy, or its network may have forgotten it: alone it is no reason
   * to cut the others. It is asked anew on another connection, and those that bring nothing for long share its fate.
   */
  function judge(asked: Marks, isAnswered: boolean): void {
    silent = !isAnswered && [...sockets].every((socket) => isQuiet(socket, asked))
    if (silent) {
      missed = undefined
      cut(sockets, unanswered(options))
    } else if (!isAnswered) missed ??= asked
    if (missed === undefined || asked.at - missed.at < QUIET_FOR * options.silenceMs) return
    const since = missed
    missed = undefined
    cut(
      [...since.bytes.keys()].filter((socket) => isQuiet(socket, since)),
      unanswered(options),
    )
  }

  async function watch(): Promise<void> {
    while (!isStopping()) {
      const asked = mark()
      const isAnswered = await pinger.answers()
      // A question that the stop has cut off says nothing of Postgres.
      if (!isStopping()) judge(asked, isAnswered)
      await sleep(PERIOD_MS, undefined, { signal: stopping.signal, ref: false }).catch(() => undefined)
    }
    pinger.close()
    cut(sockets)
  }
  const watching = watch()

  return {
    openSocket: () => {
      if (silent) return new RefusedSocket(unanswered(options))
      const socket = new net.Socket()
      sockets.add(socket)
      socket.once('close', () => sockets.delete(socket))
      return socket
    },
    stop: () => {
      stopping.abort()
      pinger.cut()
      return watching
    },
  }
}

/**
 * How long a refusal takes, in ms: whoever tries again as soon as it is refused, as the workers of BullMQ do, would otherwise
 * leave the process no moment for timers and signals, nor for the watchdog to find that Postgres is back.
 */
const REFUSAL_MS = 50

/**
 * A socket that fails instead of connecting. Postgres starts a process for whoever knocks, also for those who have left by
 * then: if every caller of every process tried, a server that comes back would be busy with nobody else.
 */
class RefusedSocket extends net.Socket {
  readonly #reason: Error

  constructor(reason: Error) {
    super()
    this.#reason = reason
  }

  override connect(): this {
    setTimeout(() => this.destroy(this.#reason), REFUSAL_MS)
    return this
  }
}

const unanswered = ({ silenceMs }: WatchdogOptions): Error =>
  Object.assign(new Error(`Postgres has not answered within ${silenceMs} ms`), { code: 'ETIMEDOUT' })

interface Pinger {
  answers(): Promise<boolean>
  /** Asks nothing more, and ends the question that is under way, if one is. */
  cut(): void
  close(): void
}

function createPinger({ url, silenceMs, applicationName }: WatchdogOptions): Pinger {
  let client: pg.Client | undefined
  /** Of the question that is under way. */
  let socket: net.Socket | undefined
  let asking = false
  let over = false

  async function ping(): Promise<void> {
    client ??= await connect()
    await client.query('select 1')
  }

  async function connect(): Promise<pg.Client> {
    const fresh = new pg.Client({
      connectionString: url,
      application_name: `${applicationName} watchdog`,
      stream: () => (socket = new net.Socket()),
    })
    fresh.on('error', () => undefined)
    await fresh.connect()
    return fresh
  }

  /** `error`: the connection broke, which says nothing of the next one. */
  async function ask(): Promise<'answer' | 'error' | 'silence'> {
    asking = true
    try {
      return await orSilence(ping(), silenceMs, () => socket?.bytesRead ?? 0)
    } catch (error) {
      return isAnswer(error) ? 'answer' : 'error'
    } finally {
      asking = false
    }
  }

  function drop(): void {
    void client?.end().catch(() => undefined)
    socket?.destroy()
    client = undefined
  }

  return {
    answers: async () => {
      for (let tries = 1; ; tries++) {
        const heard = await ask()
        if (heard === 'answer') return true
        drop()
        if (heard === 'silence' || tries === 2 || over) return false
      }
    },
    cut: () => {
      over = true
      if (asking) socket?.destroy()
    },
    close: drop,
  }
}

/** @param countBytes what the connection has brought so far: whoever greets slowly is not silent. */
function orSilence(
  ping: Promise<void>,
  silenceMs: number,
  countBytes: () => number,
): Promise<'answer' | 'silence'> {
  const { promise, resolve, reject } = Promise.withResolvers<'answer' | 'silence'>()
  let bytes = countBytes()
  const deadline = startDeadline(silenceMs, () => {
    const before = bytes
    bytes = countBytes()
    if (bytes === before) resolve('silence')
    else deadline.restart()
  })
  ping.then(() => resolve('answer'), reject).finally(deadline.clear)
  return promise
}

/** Whoever refuses for want of a free connection is there; whoever starts up or shuts down is not yet, or no longer. */
const isAnswer = (error: unknown): boolean =>
  error instanceof pg.DatabaseError && !(error.code ?? '').startsWith('57P')
