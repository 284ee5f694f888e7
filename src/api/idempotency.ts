import type { FastifyReply, FastifyRequest, RouteHandlerMethod, RouteOptions } from 'fastify'
import type { Chats } from '../chats/index.ts'
import { joinTransaction, withTransaction, type Database } from '../db/index.ts'
import {
  keepIdempotentAnswer,
  reserveIdempotencyKey,
  type KeptAnswer,
  type KeyedRequest,
} from '../keys/index.ts'
import type { CipherPlace, Encryption } from '../models/index.ts'
import { isTurnmillError } from '../protocol/errors.ts'
import { Secret } from '../protocol/secret.ts'
import { principalOf } from './authentication.ts'
import type { ApiServer } from './context.ts'
import { describeProblem } from './problems.ts'
import { hashRequest } from './request-hash.ts'
import { idempotencyHeaders } from './schemas.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** The body before its schema changed it, where the request has an `Idempotency-Key`. */
    sentBody: unknown
  }
}

export interface IdempotencyDeps {
  db: Database
  chats: Chats
  encryption: Encryption
}

const KEY = 'idempotency-key'
const METHODS = ['POST', 'PATCH']

/** What a keyed request is answered; `body` is empty where there is none. */
interface Answer {
  status: number
  body: string
}

interface Outcome extends Answer {
  replayed: boolean
  /** Tells, after the commit, what the handler did. */
  tell(): Promise<void>
}

const toldAlready = async (): Promise<void> => undefined

/**
 * Lets every POST and PATCH that needs an API key, but those of the gateway, take an `Idempotency-Key`, whatever its handler.
 *
 * I-K1 the key commits in the transaction of the effect: neither is ever there without the other.
 * I-K2 a twin waits for the first and is given its answer; it runs itself where the first left nothing.
 * I-K3 a kept refusal has no effect: the handler's work is rolled back, the answer commits.
 * I-K4 a keyed request holds one connection and needs no second one while it does.
 *
 * Kept are successes, and refusals that sending again cannot change: status below 500 and recovery `stop`. What went
 * wrong before the handler (no key, a bad body) is not.
 */
export function registerIdempotency(app: ApiServer, deps: IdempotencyDeps): void {
  const plain = { db: deps.db, chats: deps.chats }
  app.decorateRequest('effects', null)
  app.decorateRequest('sentBody', null)
  app.addHook('onRequest', async (request) => {
    request.effects = plain
  })
  app.addHook('preValidation', async (request) => {
    if (request.headers[KEY] !== undefined) request.sentBody = request.body
  })
  app.addHook('onRoute', (route) => {
    if (takesKey(route)) keepAnswersOf(route, deps)
  })
}

const takesKey = ({ method, config }: RouteOptions): boolean =>
  [method].flat().some((name) => METHODS.includes(name)) &&
  config?.scope !== 'public' &&
  config?.gateway !== true

function keepAnswersOf(route: RouteOptions, deps: IdempotencyDeps): void {
  const { handler } = route
  route.schema = { ...route.schema, headers: idempotencyHeaders }
  route.handler = async function (request, reply) {
    const key = request.headers[KEY]
    if (typeof key !== 'string') return handler.call(this, request, reply)
    const handle = (held: HeldReply) => handler.call(this, request, held as unknown as FastifyReply)
    const outcome = await answerOnce(deps, request, toKeyedRequest(request, key), handle)
    await outcome.tell()
    return sendOutcome(reply, outcome)
  } satisfies RouteHandlerMethod
}

/** Stands in for the reply, whose answer must not leave before the commit. A handler may set a code and send. */
class HeldReply {
  status = 200
  body: unknown

  code(status: number): this {
    this.status = status
    return this
  }

  send(body: unknown): this {
    this.body = body
    return this
  }
}

type Handle = (reply: HeldReply) => unknown

function answerOnce(
  { db, chats, encryption }: IdempotencyDeps,
  request: FastifyRequest,
  keyed: KeyedRequest,
  handle: Handle,
): Promise<Outcome> {
  const place = placeOf(keyed)
  return joinTransaction(db, async (joined, tx) => {
    const kept = await reserveIdempotencyKey(tx, keyed)
    if (kept !== null) return { ...decrypt(encryption, place, kept), replayed: true, tell: toldAlready }
    const within = chats.within(joined)
    request.effects = { db: joined, chats: within.chats }
    const { tell, ...answer } = await attempt(joined, handle).then(
      (done) => ({ ...done, tell: within.tell }),
      (error: unknown) => ({ ...toKeptRefusal(error, request), tell: toldAlready }),
    )
    await tx.commitWith([keepIdempotentAnswer(keyed, encrypt(encryption, place, answer))])
    return { ...answer, replayed: false, tell }
  })
}

/** A savepoint around the handler, so that its refusal leaves the key and nothing else. */
const attempt = (joined: Database, handle: Handle): Promise<Answer> =>
  withTransaction(joined, async () => {
    const reply = new HeldReply()
    const returned = await handle(reply)
    const body = returned === reply ? reply.body : returned
    return { status: reply.status, body: body === undefined || body === null ? '' : JSON.stringify(body) }
  })

/**
 * @throws what it is given, where the same request may be answered differently when it is sent again: a bug, an outage, a
 * refusal that says so, and what a constraint of the database refused because another request came first.
 */
function toKeptRefusal(error: unknown, request: FastifyRequest): Answer {
  if (!isTurnmillError(error) || error.status >= 500 || error.recovery === 'retry') throw error
  return { status: error.status, body: describeProblem(error, request.id) }
}

function sendOutcome(reply: FastifyReply, { status, body, replayed }: Outcome): FastifyReply {
  if (replayed) reply.header('idempotency-replayed', 'true')
  reply.code(status)
  if (body === '') return reply.send()
  return reply.type(status < 400 ? 'application/json; charset=utf-8' : 'application/problem+json').send(body)
}

const placeOf = ({ apiKeyId, key }: KeyedRequest): CipherPlace => ({
  table: 'idempotency_keys',
  column: 'response',
  rowId: `${apiKeyId}/${key}`,
})

const encrypt = (encryption: Encryption, place: CipherPlace, { status, body }: Answer): KeptAnswer => ({
  status,
  response: encryption.encrypt(place, new Secret(body)),
})

const decrypt = (encryption: Encryption, place: CipherPlace, { status, response }: KeptAnswer): Answer => ({
  status,
  body: encryption.decrypt(place, response).reveal(),
})

const toKeyedRequest = (request: FastifyRequest, key: string): KeyedRequest => ({
  apiKeyId: principalOf(request).apiKeyId,
  key,
  requestHash: hashRequest(request.method, request.url, request.sentBody),
})
