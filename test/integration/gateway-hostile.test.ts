/** What a hostile client or provider must not do to the gateway's books. */
import { once } from 'node:events'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { createServer, type Server, type Socket } from 'node:net'
import type { AddressInfo } from 'node:net'
import pg from 'pg'
import { createProvider } from '../../src/models/index.ts'
import { query, statement } from '../../src/db/index.ts'
import { Secret } from '../../src/protocol/secret.ts'
import { askGateway } from '../support/ask-gateway.ts'
import { createTestDatabase } from '../support/database.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

const PATH = '/v1/gateway/raw/v1/chat/completions'

/** Long enough for a call to be made meanwhile. */
const OPEN_MS = 3000

/** A provider that answers bytes, whatever they are. */
let raw: Server
let reply: (socket: Socket) => void
let database: Awaited<ReturnType<typeof createTestDatabase>>
let turnmill: Turnmill
let user: TestUser

beforeAll(async () => {
  raw = createServer((socket) => {
    socket.on('error', () => undefined)
    socket.once('data', () => reply(socket))
  })
  await new Promise<void>((resolve) => raw.listen(0, '127.0.0.1', resolve))
  database = await createTestDatabase()
})
afterAll(async () => {
  raw.close()
  await database.drop()
})
beforeEach(async () => {
  turnmill = await startTurnmill({
    databaseUrl: database.url,
    workers: 0,
    environment: { TURNMILL_BREAKER_FAILURES: '2', TURNMILL_BREAKER_OPEN_MS: String(OPEN_MS) },
  })
  const { db, encryption } = turnmill.services
  await db.prisma.provider.deleteMany({ where: { name: 'raw' } })
  await createProvider(db, encryption, {
    name: 'raw', type: 'openai', baseUrl: `http://127.0.0.1:${(raw.address() as AddressInfo).port}/v1`, enabled: true, allowByok: false,
    attribution: false, keys: [new Secret('sk-central-hostile-0001')],
  }) // prettier-ignore
  user = await turnmill.addUser()
})
afterEach(async () => {
  await turnmill.services.db.prisma.provider.deleteMany()
  await turnmill.stop()
})

const post = (body: unknown, signal?: AbortSignal): Promise<Response> =>
  fetch(turnmill.address + PATH, {
    method: 'POST',
    headers: { authorization: `Bearer ${user.token}`, 'content-type': 'application/json' },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    ...(signal === undefined ? {} : { signal }),
  })

const SAY = { model: 'm', max_tokens: 10, stream: true, messages: [{ role: 'user', content: 'hi' }] }

const readCalls = statement(
  'test/hostile-calls',
  `select settled_at is not null as settled, error_code, cost_micros from interceptions where api_key_id = $1 order by started_at`,
)

interface Call {
  settled: boolean
  error_code: string | null
  cost_micros: string | null
}

const calls = (): Promise<Call[]> => query<Call>(turnmill.services.db, readCalls(user.apiKeyId))

/** The calls, once all are settled. */
async function settledCalls(): Promise<Call[]> {
  for (;;) {
    const found = await calls()
    if (found.every(({ settled }) => settled)) return found
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const ANSWER = 'HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}'
const STREAM = 'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n'

test.each([
  [
    'in what is passed on',
    (nested: string) => `{"model":"m","stream":true,"max_tokens":20000,"messages":[],"metadata":${nested}}`,
  ],
  ['in what is read', (nested: string) => `{"model":"m","messages":${nested}}`],
])('a body that is nested too deep %s is refused, and reserves nothing', async (_, body) => {
  const response = await post(body('['.repeat(5000) + ']'.repeat(5000)))
  expect(response.status).toBe(400)
  expect(await calls()).toEqual([])
})

test.each([700, 999])('a status that is none (%i) is no answer, and the call is settled', async (status) => {
  reply = (socket) => socket.end(`HTTP/1.1 ${status} X\r\ncontent-length: 2\r\n\r\nok`)
  expect((await post(SAY)).status).toBe(502)
  expect(await settledCalls()).toMatchObject([{ error_code: 'provider_rejected', cost_micros: '0' }])
})

test('calls that are silent when the process ends are settled by it, however many', async () => {
  let silent = 0
  reply = () => {
    silent++
  }
  const cut = Array.from({ length: 6 }, () => post({ ...SAY, stream: false }).catch(() => null))
  while (silent < 6) await new Promise((resolve) => setTimeout(resolve, 10))
  await turnmill.services.db.prisma.provider.deleteMany()
  // A settlement takes its time.
  const blocker = new pg.Client({ connectionString: database.url })
  await blocker.connect()
  await blocker.query('begin')
  await blocker.query('lock table interceptions in share mode')
  const stopped = turnmill.stop()
  await Promise.all(cut)
  await new Promise((resolve) => setTimeout(resolve, 200))
  await blocker.query('commit')
  await blocker.end()
  await stopped
  const { apiKeyId } = user
  turnmill = await startTurnmill({ databaseUrl: database.url, workers: 0 })
  const after = await query<Call>(turnmill.services.db, readCalls(apiKeyId))
  expect(after.map(({ settled }) => settled)).toEqual(Array(6).fill(true))
}, 30_000)

test('calls that are under way when the process ends are settled by it', async () => {
  reply = (socket) => socket.write(`${STREAM}data: {"choices":[{"delta":{"content":"x"}}]}\n\n`)
  const streams = await Promise.all(Array.from({ length: 6 }, () => post(SAY)))
  const { url } = database
  const [{ apiKeyId }] = [user]
  const cut = streams.map((stream) => stream.text().catch(() => ''))
  await turnmill.services.db.prisma.provider.deleteMany()
  await turnmill.stop()
  await Promise.all(cut)
  turnmill = await startTurnmill({ databaseUrl: url, workers: 0 })
  const after = await query<Call>(turnmill.services.db, readCalls(apiKeyId))
  expect(after.map(({ settled }) => settled)).toEqual(Array(6).fill(true))
}, 30_000)

const breakerOpened = (): Promise<void> => new Promise((done) => setTimeout(done, OPEN_MS + 50))

test('nobody waits for the one call that tries a model which was down', async () => {
  reply = (socket) => socket.end('HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n')
  expect([(await post(SAY)).status, (await post(SAY)).status]).toEqual([503, 503])
  const probing = new AbortController()
  const { promise: asked, resolve } = Promise.withResolvers<undefined>()
  reply = () => resolve(undefined)
  await breakerOpened()
  const probe = post(SAY, probing.signal).catch(() => null)
  await asked
  expect((await post(SAY)).status).toBe(503)
  // Broken off, it has shown nothing, and keeps nobody from trying.
  probing.abort()
  await probe
  await settledCalls()
  reply = (socket) => socket.end(ANSWER)
  expect((await post(SAY)).status).toBe(200)
  expect((await settledCalls()).map(({ error_code: code }) => code)).toEqual([null, null, 'client_closed', 'provider_overloaded', null]) // prettier-ignore
})

test('a model that was down and is silent is tried again and again, and not left alone for a whole call', async () => {
  reply = (socket) => socket.end('HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n')
  expect([(await post(SAY)).status, (await post(SAY)).status]).toEqual([503, 503])
  const probing = new AbortController()
  const { promise: asked, resolve } = Promise.withResolvers<undefined>()
  reply = () => resolve(undefined)
  await breakerOpened()
  const probe = post(SAY, probing.signal).catch(() => null)
  await asked
  reply = (socket) => socket.end(ANSWER)
  await breakerOpened()
  expect([(await post(SAY)).status, (await post(SAY)).status]).toEqual([200, 200])
  probing.abort()
  await probe
  await settledCalls()
})

test('a request that the provider hangs up on keeps nobody from the model', async () => {
  reply = (socket) => socket.destroy()
  for (let count = 0; count < 3; count++) expect((await post(SAY)).status).toBe(502)
  reply = (socket) => socket.end(ANSWER)
  expect((await post(SAY)).status).toBe(200)
})

test('a provider that takes no connection is left alone', async () => {
  const closed = createServer().listen(0, '127.0.0.1')
  await once(closed, 'listening')
  const { port } = closed.address() as AddressInfo
  closed.close()
  await once(closed, 'close')
  const { db, encryption } = turnmill.services
  await createProvider(db, encryption, {
    name: 'gone', type: 'openai', baseUrl: `http://127.0.0.1:${port}/v1`, enabled: true, allowByok: false, attribution: false,
    keys: [new Secret('sk-central-gone-0001')],
  }) // prettier-ignore
  const ask = () => user.client.request('POST', PATH.replace('/raw/', '/gone/'), { ...SAY, stream: false })
  const statuses = [await ask(), await ask(), await ask()].map(({ status }) => status)
  expect(statuses).toEqual([502, 502, 503])
})

test('a model that is not stored, and is down, is no other one and no list of models', async () => {
  reply = (socket) => socket.end('HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n')
  const { metrics } = turnmill.services
  for (const model of ['down', 'down too'])
    for (let count = 0; count < 2; count++) await post({ ...SAY, model })
  expect((await metrics.render()).text).toContain('breaker_open{provider="raw",model="other"} 2')
  const list = () => user.client.request('GET', '/v1/gateway/raw/v1/models')
  for (let count = 0; count < 3; count++) expect((await list()).headers.get('x-turnmill-error')).toBeNull()
  reply = (socket) => socket.end(ANSWER)
  expect([(await post(SAY)).status, (await list()).status]).toEqual([200, 200])
  expect((await metrics.render()).text).toContain('breaker_open{provider="raw",model="other"} 2')
})

/** What nothing refers to is gone. */
function collectGarbage(): void {
  setFlagsFromString('--expose-gc')
  ;(runInNewContext('gc') as () => void)()
}

test('a call that says nothing ends when its caller lets go, however long ago it was made', async () => {
  reply = (socket) => void socket.write(STREAM)
  const gone = new AbortController()
  const { gateway } = turnmill.services
  const caller = { kind: 'key', apiKeyId: user.apiKeyId, client: null } as const
  const ask = () => askGateway(gateway, caller, { target: PATH, body: SAY, signal: gone.signal })
  const reader = (await ask()).body!.getReader()
  const reading = reader.read()
  collectGarbage()
  gone.abort()
  await expect(reading).rejects.toThrow()
  expect(await settledCalls()).toMatchObject([{ error_code: 'client_closed' }])
})

test('a client that stops reading is let go of when its key is revoked', async () => {
  const line = `data: {"choices":[{"delta":{"content":"${'x'.repeat(1000)}"}}]}\n\n`
  reply = (socket) => {
    socket.write(STREAM)
    const more = (): void => {
      while (!socket.destroyed && socket.write(line));
    }
    socket.on('drain', more)
    more()
  }
  const response = await post(SAY)
  const reader = response.body!.getReader()
  await reader.read()
  collectGarbage()
  await turnmill.admin.client.request('DELETE', `/v1/api-keys/${user.apiKeyId}`)
  expect(await settledCalls()).toMatchObject([{ settled: true, error_code: 'gateway_unauthorized' }])
  await reader.cancel().catch(() => undefined)
})

test('HEAD is not answered by what answers GET', async () => {
  const response = await fetch(`${turnmill.address}/v1/gateway/raw/v1/models`, { method: 'HEAD' })
  expect(response.status).toBe(404)
})

test('a credential that no header takes is told to nobody', async () => {
  const { db, encryption } = turnmill.services
  await createProvider(db, encryption, {
    name: 'odd', type: 'openai', baseUrl: 'http://127.0.0.1:9/v1', enabled: true, allowByok: false, attribution: false,
    keys: [new Secret('sk-central-odd-0001\ntail-of-it-0002')],
  }) // prettier-ignore
  const answer = await user.client.request('POST', PATH.replace('/raw/', '/odd/'), { ...SAY, stream: false })
  expect(answer).toMatchObject({ status: 409, body: { error: { code: 'provider_auth_failed' } } })
  expect(JSON.stringify(answer.body)).not.toMatch(/odd-0001|tail-of-it/)
  expect(await settledCalls()).toMatchObject([{ error_code: 'provider_auth_failed', cost_micros: '0' }])
})
