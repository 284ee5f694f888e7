/** I10: no secret appears in logs, jobs, Bull Board, errors, answers, recorded calls, the part log or plain columns. */
import { randomBytes } from 'node:crypto'
import { Redis } from 'ioredis'
import pg from 'pg'
import { parseToken } from '../../src/keys/token.ts'
import { createProvider, type DebugRunSummary } from '../../src/models/index.ts'
import { Secret } from '../../src/protocol/secret.ts'
import type { Behaviour, UpstreamRequest } from '../support/fake-upstream.ts'
import { startTurnmill, TEST_SECRETS, type TestUser, type Turnmill } from '../support/turnmill.ts'

const canary = (name: string): string => `canary-${name}-${randomBytes(12).toString('hex')}`

/** Found wherever it was looked for, or the search itself is broken. */
const CONTROL = canary('control')

const SECRETS = {
  central: canary('central'),
  added: canary('added'),
  own: canary('own'),
}

/** The whole secret: a part of it, cut where it holds a `_` of its own, may be short enough to stand anywhere. */
const secretOf = (token: string): string => parseToken(token)?.secret ?? ''

/** Where a secret could be left behind, as text. */
type Places = Record<string, string>

let turnmill: Turnmill
let user: TestUser
const log: string[] = []
const answers: string[] = []
const recordedChats: string[] = []

/** A provider that tells everybody what it was given. */
const gossip = (said: unknown) => ({
  type: 'status' as const,
  status: 400,
  headers: { 'x-request-id': String(said), 'retry-after': '1' },
  error: { message: `you sent ${String(said)}`, code: String(said), type: String(said) },
})

beforeAll(async () => {
  turnmill = await startTurnmill({
    backend: 'redis',
    allowByok: true,
    reconcile: true,
    onLog: (line) => log.push(line),
    environment: { TURNMILL_BULL_BOARD_ENABLED: 'true', TURNMILL_RETRY_ATTEMPTS: '2' },
  })
  user = await turnmill.addUser()
})
afterAll(() => turnmill.stop())

async function ask(method: string, path: string, body?: unknown, { token } = user): Promise<void> {
  const response = await fetch(turnmill.address + path, {
    method,
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  // An answer that the provider breaks off breaks off here, too.
  const text = await response.text().catch((error: unknown) => String(error))
  answers.push(text, JSON.stringify([...response.headers]))
}

/** Everything that takes or uses a secret, and everything that fails while it has one. */
async function liveALittle(): Promise<void> {
  const { services, upstream, admin } = turnmill
  const provider = await createProvider(services.db, services.encryption, {
    name: 'canary', type: 'anthropic', baseUrl: upstream.url, enabled: true, allowByok: true, attribution: true,
    keys: [new Secret(SECRETS.central)],
  }) // prettier-ignore
  await ask('POST', `/v1/providers/${provider.id}/keys`, { key: SECRETS.added }, admin)
  await ask('GET', '/v1/providers', undefined, admin)
  await ask('POST', '/v1/providers', { name: 'Not a name', type: 'openai', baseUrl: `https://x:${SECRETS.own}@y`, keys: [SECRETS.own] }, admin) // prettier-ignore
  await ask('POST', '/v1/model-configs', { providerId: provider.id, model: 'm', isDefault: true }, admin)
  const message = { model: 'm', max_tokens: 10, messages: [{ role: 'user', content: CONTROL }] }
  const given = ({ headers }: UpstreamRequest): unknown => headers['x-api-key'] ?? headers.authorization
  const behaviours: ((request: UpstreamRequest) => Behaviour)[] = [
    (request) => gossip(given(request)),
    // In a header that is read before anything is passed on.
    (request) => ({ ...gossip('nothing'), headers: { 'content-encoding': String(given(request)) } }),
    (request) => ({ type: 'answer', chunks: [`${CONTROL} ${String(given(request))}`] }),
    (request) => ({ type: 'answer', chunks: [String(given(request))], ending: 'cut' }),
    (request) => ({ type: 'answer', ending: 'error', error: { message: String(given(request)) } }),
  ]
  for (const behaviour of behaviours) {
    upstream.script(behaviour)
    await ask('POST', '/v1/gateway/canary/v1/messages', message)
    await turn()
    await ask('PUT', '/v1/me/provider-keys/canary', { key: SECRETS.own })
    await ask('POST', '/v1/gateway/canary/v1/messages', message)
    await turn()
    await ask('DELETE', '/v1/me/provider-keys/canary')
  }
  await ask('GET', '/v1/chats')
}

async function turn(): Promise<void> {
  const { chat, turn } = await user.client.create(CONTROL)
  const ended = await user.client.ended(chat.id, turn.id)
  answers.push(JSON.stringify([ended, await user.client.messages(chat.id)]))
  await recordedTurn(chat.id)
}

/** The same once more, its model calls recorded. */
async function recordedTurn(chatId: string): Promise<void> {
  await ask('PUT', `/v1/chats/${chatId}/debug`, { minutes: 5 })
  await user.client.send(chatId, CONTROL)
  await user.client.settled(chatId)
  recordedChats.push(chatId)
}

/** What owners read of their recorded calls, once all that was begun is over. */
async function readDebugRuns(): Promise<string> {
  const texts = []
  for (const chatId of recordedChats) {
    const runs = await finishedRuns(chatId)
    for (const { id } of runs)
      texts.push(
        JSON.stringify((await user.client.request('GET', `/v1/chats/${chatId}/debug-runs/${id}`)).body),
      )
  }
  return texts.join('\n')
}

async function finishedRuns(chatId: string): Promise<DebugRunSummary[]> {
  for (;;) {
    const path = `/v1/chats/${chatId}/debug-runs`
    const { items } = (await user.client.request<{ items: DebugRunSummary[] }>('GET', path)).body
    if (items.length > 0 && items.every(({ finishedAt }) => finishedAt !== null)) return items
  }
}

async function readDatabase(): Promise<string> {
  const client = new pg.Client({ connectionString: turnmill.config.databaseUrl ?? '' })
  await client.connect()
  try {
    const { rows: tables } = await client.query<{ name: string }>(
      `select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname not in ('pg_catalog', 'information_schema')`,
    )
    const texts = []
    for (const { name } of tables)
      texts.push(JSON.stringify((await client.query(`select * from ${name}`)).rows))
    return texts.join('\n')
  } finally {
    await client.end()
  }
}

async function readRedis(): Promise<string> {
  const redis = new Redis(turnmill.config.redisUrl ?? '')
  try {
    const texts: string[] = []
    for (const key of await redis.keys(`${turnmill.config.queuePrefix}*`))
      texts.push(key, JSON.stringify(await readKey(redis, key)))
    return texts.join('\n')
  } finally {
    redis.disconnect()
  }
}

async function readKey(redis: Redis, key: string): Promise<unknown> {
  switch (await redis.type(key)) {
    case 'hash':
      return redis.hgetall(key)
    case 'list':
      return redis.lrange(key, 0, '-1')
    case 'zset':
      return redis.zrange(key, 0, '-1')
    case 'set':
      return redis.smembers(key)
    case 'stream':
      return redis.xrange(key, '-', '+')
    default:
      return redis.get(key)
  }
}

async function readBullBoard(): Promise<string> {
  const board = await fetch(`${turnmill.address}/admin/queues/api/queues?activeQueue=turns&status=failed`, {
    headers: { authorization: `Bearer ${turnmill.admin.token}` },
  })
  expect(board.status).toBe(200)
  return board.text()
}

test('no secret is left behind anywhere', async () => {
  await liveALittle()
  const places: Places = {
    log: log.join('\n'),
    answers: answers.join('\n'),
    'debug runs': await readDebugRuns(),
    database: await readDatabase(),
    Redis: await readRedis(),
    'Bull Board': await readBullBoard(),
  }
  // The search finds what is there: what users said, and ids of the calls it is all about.
  const found = (text: string): string[] =>
    Object.keys(places).filter((place) => places[place]?.includes(text))
  expect(found(CONTROL)).toEqual(['answers', 'debug runs', 'database', 'Redis'])
  expect(places['debug runs']).toContain('you sent <redacted>')
  expect(places['log']).toContain('an attempt failed')
  expect(places['Bull Board']).toContain('provider_rejected')
  expect(turnmill.upstream.requests.map(({ headers }) => headers['x-api-key'])).toEqual(
    expect.arrayContaining([SECRETS.central, SECRETS.own]),
  )

  const secrets = {
    ...SECRETS,
    'token of a user': secretOf(user.token),
    'token of an admin': secretOf(turnmill.admin.token),
    pepper: TEST_SECRETS.TURNMILL_API_KEY_PEPPER,
    'encryption key': TEST_SECRETS.TURNMILL_ENCRYPTION_KEYS.split(':')[1] ?? '',
  }
  for (const [name, secret] of Object.entries(secrets)) {
    expect(secret.length).toBeGreaterThan(30)
    expect({ [name]: found(secret) }).toEqual({ [name]: [] })
  }
}, 60_000)
