/** Whose key a call over HTTP is made with and written down for (K1 to K6), and what its client is told of a provider's failures (P1 to P3). */
import { query, statement } from '../../src/db/index.ts'
import { newId } from '../../src/protocol/ids.ts'
import { askGateway } from '../support/ask-gateway.ts'
import type { Behaviour } from '../support/fake-upstream.ts'
import { CENTRAL_KEY, startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

const OWN_KEY = 'the-users-own-provider-key-43'
const AMBIENT = { OPENAI_API_KEY: 'sk-ambient-openai', ANTHROPIC_AUTH_TOKEN: 'ambient-anthropic' }
const PATH = '/v1/gateway/fake/v1/chat/completions'
const SAY = { model: 'fake-1', max_tokens: 10, messages: [{ role: 'user', content: 'hi' }], stream: true }

let turnmill: Turnmill
let user: TestUser
let log: string[]

beforeEach(async () => {
  Object.assign(process.env, AMBIENT)
  log = []
  turnmill = await startTurnmill({
    workers: 0,
    allowByok: true,
    wireFormat: 'openai-chat',
    onLog: (line) => void log.push(line),
  })
  user = await turnmill.addUser()
})
afterEach(async () => {
  for (const name of Object.keys(AMBIENT)) Reflect.deleteProperty(process.env, name)
  await turnmill.stop()
})

const post = (token: string | null, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(turnmill.address + PATH, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      ...(token === null ? {} : { authorization: `Bearer ${token}` }),
      ...headers,
    },
    body: JSON.stringify(SAY),
  })

const credentialsSeen = (): unknown[] =>
  turnmill.upstream.requests.map(({ headers }) => headers.authorization)

const readCalls = statement(
  'test/gateway-keys',
  `select api_key_id, credential_kind, credential_hint from interceptions order by started_at`,
)

test('a call without a usable key makes no request, whatever the environment holds (K1, K3)', async () => {
  const leaver = await turnmill.addUser()
  await leaver.client.request('DELETE', `/v1/api-keys/${leaver.apiKeyId}`)
  const gone = await turnmill.addUser()
  await turnmill.services.db.prisma.apiKey.delete({ where: { id: gone.apiKeyId } })
  for (const token of [null, 'sk-ambient-openai', leaver.token, gone.token])
    expect((await post(token)).status).toBe(401)
  const caller = { attribution: { apiKeyId: newId(), chatId: null, turnId: null, purpose: 'chat' } } as const
  const { apiKeyId } = caller.attribution
  const delegated = await askGateway(
    turnmill.services.gateway,
    {
      kind: 'delegated',
      ...caller,
      apiKeyId,
      place: { step: 1, epoch: 1, attempt: 1 },
      modelConfigId: newId(),
    },
    { target: PATH, body: SAY },
  )
  expect(delegated.ok).toBe(false)
  expect(turnmill.upstream.requests).toHaveLength(0)
  expect(await query(turnmill.services.db, readCalls())).toEqual([])
})

test('a call is written down for the key that made it, whatever its headers claim (K2, K4)', async () => {
  const victim = await turnmill.addUser()
  const claims = { 'x-turnmill-key-id': victim.apiKeyId, x_turnmill_turn_id: newId(), 'x-turnmill-byok': '1' }
  await (await post(user.token, claims)).text()
  const [request] = turnmill.upstream.requests
  expect(request?.headers).toMatchObject({ 'x-turnmill-key-id': user.apiKeyId })
  expect(Object.keys(request?.headers ?? {}).filter((name) => /turn.?id|byok/.test(name))).toEqual([])
  expect(credentialsSeen()).toEqual([`Bearer ${CENTRAL_KEY}`])
  expect(await query(turnmill.services.db, readCalls())).toMatchObject([{ api_key_id: user.apiKeyId, credential_kind: 'central' }]) // prettier-ignore
})

test('the own key of its user reaches the provider alone, and only while the provider takes such keys (K5, K6)', async () => {
  await user.client.request('PUT', '/v1/me/provider-keys/fake', { key: OWN_KEY })
  await (await post(user.token)).text()
  const path = `/v1/providers/${turnmill.provider.id}`
  await turnmill.admin.client.request('PATCH', path, { allowByok: false })
  await (await post(user.token)).text()
  expect(credentialsSeen()).toEqual([`Bearer ${OWN_KEY}`, `Bearer ${CENTRAL_KEY}`])
  const calls = await query(turnmill.services.db, readCalls())
  expect(calls).toMatchObject([{ credential_kind: 'byok' }, { credential_kind: 'central' }])
  expect(JSON.stringify(calls)).not.toMatch(new RegExp(`${OWN_KEY}|${CENTRAL_KEY}`))
})

test.each(['2', '86400', '-1', 'abc', 'Wed, 21 Oct 2015 07:28:00 GMT'])(
  'a 429 is the client’s to wait for: Retry-After %s (P1)',
  async (retryAfter) => {
    turnmill.upstream.script({ type: 'status', status: 429, headers: { 'retry-after': retryAfter } })
    const response = await post(user.token)
    expect([response.status, response.headers.get('retry-after')]).toEqual([429, retryAfter])
    expect(turnmill.upstream.requests).toHaveLength(1)
  },
)

test.each([
  [401, 'invalid_api_key'],
  [400, 'context_length_exceeded'],
  [429, 'insufficient_quota'],
])('a refusal keeps its status %i and code %s, and is asked for once (P2)', async (status, code) => {
  const body = JSON.stringify({ error: { code, message: `no: ${CENTRAL_KEY}` } })
  turnmill.upstream.script({ type: 'status', status, body })
  const response = await post(user.token)
  const text = await response.text()
  expect({ status: response.status, answer: JSON.parse(text) as unknown }).toMatchObject({
    status,
    answer: { error: { code } },
  })
  expect(text).not.toContain(CENTRAL_KEY)
  expect(turnmill.upstream.requests).toHaveLength(1)
})

test('an answer that breaks off is not one that ended (P3)', async () => {
  const cut: Behaviour = { type: 'answer', ending: 'cut' }
  turnmill.upstream.script(cut)
  await expect(post(user.token).then((response) => response.text())).rejects.toThrow()
})

test('a provider that cannot be reached is said to be, and the log says why (P3)', async () => {
  await turnmill.upstream.stop()
  const response = await post(user.token)
  expect({ status: response.status, body: await response.json() }).toMatchObject({
    status: 502,
    body: { error: { code: 'provider_unreachable' } },
  })
  expect(log.filter((line) => line.includes('ECONNREFUSED'))).toHaveLength(1)
  expect(log.join('')).not.toContain(CENTRAL_KEY)
})
