import { Readable } from 'node:stream'
import type { SendToProvider } from '../../src/models/index.ts'
import type { PoolClient, QueryResult } from 'pg'
import type { Services } from '../../src/services.ts'

/**
 * Where a process can be made to die or to fail: before and after everything it says to Postgres, the queue, the part
 * log and a provider. The borders are wrapped from outside, so that the product has no hook.
 *
 * A statement outside a transaction has `before` and `committed`; inside one also `executed`, with the commit not sent.
 */
export type FaultPhase = 'before' | 'executed' | 'committed' | 'after'

export interface Fault {
  point: string
  /** `throw` as a connection breaks: the caller does not know what happened. */
  action: 'kill' | 'throw'
}

/** A fault that has struck. */
export interface Strike {
  point: string
  /** The statements of the transaction so far, where there is one. */
  statements: readonly string[]
}

/** @param statements those of the transaction so far. */
export type Reach = (point: string, statements?: readonly string[]) => Promise<void>

export interface FaultPoints {
  reach: Reach
  /** The next fault; each strikes once. */
  arm(fault: Fault): void
}

export function createFaultPoints(onStrike: (strike: Strike) => void): FaultPoints {
  let armed: Fault | null = null
  return {
    arm: (fault) => (armed = fault),
    reach: async (point, statements = []) => {
      if (armed?.point !== point) return
      const { action } = armed
      armed = null
      onStrike({ point, statements })
      if (action === 'throw') throw brokenConnection()
      process.kill(process.pid, 'SIGKILL')
      await new Promise(() => undefined)
    },
  }
}

const brokenConnection = (): Error => Object.assign(new Error('the connection broke'), { code: 'ECONNRESET' })

/** Wraps what the services say to the outside, but for providers. To be called before anything is started on them. */
export function installFaults(services: Services, reach: Reach): void {
  wrapPool(services.db.pool, reach)
  wrapMethod(services.queue, 'enqueue', reach)
  wrapMethod(services.queue, 'findLost', reach)
  wrapMethod(services.parts, 'append', reach)
}

/** Lets the queue lose a job whenever it is asked to, so that the reconciler has something to find. */
export function makeQueueLossy({ queue }: Pick<Services, 'queue'>): { loseNext(): void } {
  const enqueue = queue.enqueue.bind(queue)
  let losing = false
  queue.enqueue = async (...job) => {
    if (!losing) return enqueue(...job)
    losing = false
  }
  return { loseNext: () => (losing = true) }
}

function wrapMethod<T extends object>(target: T, name: keyof T & string, reach: Reach): void {
  const method = target[name] as (...values: unknown[]) => Promise<unknown>
  const wrapped = async (...values: unknown[]): Promise<unknown> => {
    await reach(`before ${name}`)
    const result = await method.apply(target, values)
    await reach(`after ${name}`)
    return result
  }
  target[name] = wrapped as T[typeof name]
}

type Query = (statement: unknown, ...rest: unknown[]) => Promise<QueryResult>

const nameOf = (statement: unknown): string =>
  typeof statement === 'string' ? statement : ((statement as { name?: string }).name ?? '')

function wrapPool(pool: Services['db']['pool'], reach: Reach): void {
  const connect = pool.connect.bind(pool)
  // With a callback it is the pool itself that asks, for a single query, which is wrapped below.
  pool.connect = ((callback?: () => void) =>
    callback === undefined
      ? connect().then((client) => wrapClient(client, reach))
      : connect(callback)) as typeof pool.connect
  const query = pool.query.bind(pool) as unknown as Query
  const wrapped: Query = async (statement, ...rest) => {
    await reach(`before ${nameOf(statement)}`)
    const result = await query(statement, ...rest)
    await reach(`committed ${nameOf(statement)}`)
    return result
  }
  pool.query = wrapped
}

/** One use of a connection: it may hold several transactions, one after the other. Once broken, it takes nothing more. */
function wrapClient(client: PoolClient, reach: Reach): PoolClient {
  let sent: { name: string; done: Promise<unknown> }[] = []
  let broken: Error | undefined
  const query = client.query.bind(client) as unknown as Query

  async function pass(point: string, statements: readonly string[]): Promise<void> {
    try {
      await reach(point, statements)
    } catch (error) {
      broken = error as Error
    }
    if (broken !== undefined) throw broken
  }

  async function commit(statement: unknown): Promise<QueryResult> {
    const before = sent
    sent = []
    await Promise.allSettled(before.map(({ done }) => done))
    const names = before.map(({ name }) => name)
    for (const name of names) await pass(`executed ${name}`, names)
    const result = await query(statement)
    for (const name of names) await pass(`committed ${name}`, names)
    return result
  }

  async function send(name: string, statement: unknown, rest: unknown[]): Promise<QueryResult> {
    await pass(`before ${name}`, [])
    return query(statement, ...rest)
  }

  const wrapped: Query = (statement, ...rest) => {
    const name = nameOf(statement)
    if (name === 'commit') return commit(statement)
    if (name === 'begin' || name === 'rollback') sent = []
    const done = send(name, statement, rest)
    sent.push({ name, done })
    return done
  }
  return new Proxy(client, {
    get: (target, property) => {
      if (property === 'query') return wrapped
      const value = Reflect.get(target, property) as unknown
      return typeof value === 'function' ? (value.bind(target) as unknown) : value
    },
  })
}

/** Reaches providers, and strikes on the way. */
export function wrapSend(send: SendToProvider, reach: Reach): SendToProvider {
  return async (url, call) => {
    await reach('before call')
    const answer = await send(url, call)
    await reach('after headers')
    let chunks = 0
    async function* watched() {
      for await (const chunk of answer.body) {
        chunks += 1
        if (chunks === 3) await reach('amid body')
        yield chunk as Uint8Array
      }
      await reach('after body')
    }
    return { ...answer, body: Readable.from(watched(), { objectMode: false }) }
  }
}
