import { messageOf } from '../settle-outcome.ts'
import { untilAborted } from '../until-aborted.ts'
import type { McpConnection } from './connection.ts'

/** Whose session it is, and with what it was opened. */
export interface SessionKey {
  /** One session per server, user and chat: a server may keep what it did in it. */
  name: string
  /** What the session was opened with; another one opens another. */
  fingerprint: string
}

/** Sessions with servers, kept for a while between calls. */
export interface McpSessions {
  /**
   * Works with a session, a kept one or a new one. Where the server has forgotten a kept one, the work is done once more
   * with a new one: the server has refused it, and so has not done it.
   */
  use<T>(
    key: SessionKey,
    signal: AbortSignal,
    work: (connection: McpConnection) => Promise<T>,
    connect: (signal: AbortSignal) => Promise<McpConnection>,
  ): Promise<T>
  /** Ends them all; one that is still being opened is given up. */
  close(): Promise<void>
}

interface Session {
  fingerprint: string
  connection: Promise<McpConnection>
  /** Aborts `connection` while it is not there. */
  opening: AbortController
  users: number
  usedAt: number
  forgotten: boolean
}

export interface SessionLimits {
  /** How long a session is kept that nobody uses, in ms. */
  idleMs: number
  /** How many that nobody uses are kept. */
  most: number
}

export function createMcpSessions({ idleMs, most }: SessionLimits): McpSessions {
  // In the order of their last use.
  const sessions = new Map<string, Session>()

  function take({ name, fingerprint }: SessionKey, connect: (signal: AbortSignal) => Promise<McpConnection>) {
    sweep()
    const kept = sessions.get(name)
    if (kept?.fingerprint === fingerprint) {
      sessions.delete(name)
      sessions.set(name, kept)
      return { session: kept, isNew: false }
    }
    if (kept !== undefined) forget(name, kept)
    const opening = new AbortController()
    const connection = connect(opening.signal)
    const session: Session = { fingerprint, connection, opening, users: 0, usedAt: 0, forgotten: false }
    session.connection.catch(() => forget(name, session))
    sessions.set(name, session)
    return { session, isNew: true }
  }

  function forget(name: string, session: Session): void {
    session.forgotten = true
    if (sessions.get(name) === session) sessions.delete(name)
    if (session.users === 0) void closeSession(session)
  }

  function sweep(): void {
    const before = Date.now() - idleMs
    for (const [name, session] of sessions)
      if (session.users === 0 && (session.usedAt < before || sessions.size > most)) forget(name, session)
  }

  async function attempt<T>(
    name: string,
    session: Session,
    signal: AbortSignal,
    work: (connection: McpConnection) => Promise<T>,
  ): Promise<T> {
    session.users += 1
    try {
      return await work(await untilAborted(session.connection, signal))
    } catch (error) {
      // What the server answers as an error is an answer; all else may be the session's fault.
      if (!isAnswer(error) && !signal.aborted) forget(name, session)
      throw error
    } finally {
      session.users -= 1
      session.usedAt = Date.now()
      if (session.forgotten && session.users === 0) void closeSession(session)
    }
  }

  return {
    use: async (key, signal, work, connect) => {
      const { session, isNew } = take(key, connect)
      try {
        return await attempt(key.name, session, signal, work)
      } catch (error) {
        if (isNew || !isForgotten(error)) throw error
        return attempt(key.name, take(key, connect).session, signal, work)
      }
    },
    close: async () => {
      const open = [...sessions.values()]
      sessions.clear()
      await Promise.all(open.map(closeSession))
    },
  }
}

async function closeSession({ connection, opening }: Session): Promise<void> {
  opening.abort(new Error('the session was closed before it was open'))
  await connection.then(
    (open) => open.close(),
    () => undefined,
  )
}

/** The SDK's error of a request that was answered with one, known by its name: nobody loads the SDK to ask. */
const isAnswer = (error: unknown): boolean =>
  typeof error === 'object' && error !== null && 'name' in error && error.name === 'McpError'

/**
 * How a server says that it does not know a session: 404; some say 400, as they do of all that they refuse, perhaps after
 * they have done it, so that with it counts what they say. Both are of HTTP: the same number as the code of an error of
 * JSON-RPC is an answer of the tool's.
 * Source: https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#session-management
 */
const isForgotten = (error: unknown): boolean =>
  typeof error === 'object' &&
  error !== null &&
  !isAnswer(error) &&
  'code' in error &&
  (error.code === 404 || (error.code === 400 && /session/i.test(messageOf(error))))
