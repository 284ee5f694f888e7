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

/** Strikes once. */
export type Reach = (point: string) => Promise<void>

export function armFault({ point: armed, action }: Fault, onStrike: () => void): Reach {
  let struck = false
  return async (point) => {
    if (struck || point !== armed) return
    struck = true
    onStrike()
    if (action === 'throw') throw Object.assign(new Error('the connection broke'), { code: 'ECONNRESET' })
    process.kill(process.pid, 'SIGKILL')
    await new Promise(() => undefined)
  }
}

/** Wraps what the services say to the outside, but for providers. To be called before anything is started on them. */
export function installFaults(services: Services, reach: Reach): void {
  wrapPool(services.db.pool, reach)
  wrapMethod(services.queue, 'enqueue', reach)
  wrapMethod(services.queue, 'findLost', reach)
  wrapMethod(services.parts, 'append', reach)
}

/** The first job of the process is lost, so that the reconciler has something to find. */
export function loseFirstJob(services: Services): void {
  const { queue } = services
  const enqueue = queue.enqueue.bind(queue)
  let lost = false
  queue.enqueue = async (...job) => {
    if (lost) return enqueue(...job)
    lost = true
  }
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

/** One use of a connection: it may hold several transactions, one after the other. */
function wrapClient(client: PoolClient, reach: Reach): PoolClient {
  let sent: { name: string; done: Promise<unknown> }[] = []
  const query = client.query.bind(client) as unknown as Query

  async function commit(statement: unknown): Promise<QueryResult> {
    const before = sent
    sent = []
    await Promise.allSettled(before.map(({ done }) => done))
    for (const { name } of before) await reach(`executed ${name}`)
    const result = await query(statement)
    for (const { name } of before) await reach(`committed ${name}`)
    return result
  }

  const wrapped: Query = (statement, ...rest) => {
    const name = nameOf(statement)
    if (name === 'commit') return commit(statement)
    if (name === 'begin' || name === 'rollback') sent = []
    const done = reach(`before ${name}`).then(() => query(statement, ...rest))
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
