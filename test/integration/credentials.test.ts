/** The credentials of providers: their order, their failover, and how they are kept. */
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { createEncryption, demandEncryptionKeys, rotateSecrets } from '../../src/models/index.ts'
import { newId } from '../../src/protocol/ids.ts'
import { Secret } from '../../src/protocol/secret.ts'
import { demandFitting } from '../../src/services.ts'
import {
  CENTRAL_KEY,
  startTurnmill,
  TEST_SECRETS,
  type TestUser,
  type Turnmill,
} from '../support/turnmill.ts'

const SECOND_KEY = 'central-provider-key-0002'

interface KeyRow {
  id: string
  position: number
  hint: string
}

const PATH = '/v1/gateway/fake/v1/responses'

describe('central credentials', () => {
  let turnmill: Turnmill
  let user: TestUser
  beforeEach(async () => {
    turnmill = await startTurnmill({
      workers: 0,
      allowByok: true,
      environment: { TURNMILL_BREAKER_FAILURES: '2', TURNMILL_BREAKER_OPEN_MS: '3000' },
    })
    user = await turnmill.addUser()
  })
  afterEach(() => turnmill.stop())

  const keysPath = (): string => `/v1/providers/${turnmill.provider.id}/keys`
  const addKey = (key: string) => turnmill.admin.client.request<KeyRow>('POST', keysPath(), { key })
  /** Calls the provider, and gives what it was answered. */
  const call = () =>
    user.client.request<{ error?: { code: string } }>('POST', PATH, {
      model: 'fake-1',
      input: 'hi',
      stream: false,
    })
  const keysSeen = (): unknown[] => turnmill.upstream.requests.map(({ headers }) => headers.authorization)

  test('are added behind each other, listed by hint and deleted', async () => {
    const added = await addKey(SECOND_KEY)
    expect(added).toMatchObject({ status: 201, body: { position: 1 } })
    expect(JSON.stringify(added.body)).not.toContain(SECOND_KEY)
    const { body } = await turnmill.admin.client.request<{ items: KeyRow[] }>('GET', keysPath())
    expect(body.items.map(({ position }) => position)).toEqual([0, 1])
    expect(JSON.stringify(body)).not.toContain(CENTRAL_KEY)
    const gone = `${keysPath()}/${added.body.id}`
    expect(await turnmill.admin.client.request('DELETE', gone)).toMatchObject({ status: 204 })
    expect(await turnmill.admin.client.request('DELETE', gone)).toMatchObject({ status: 404 })
    expect(await user.client.request('GET', keysPath())).toMatchObject({ status: 403 })
  })

  test.each([429, 401])(
    'give way to the next one after a %i, before anything is answered',
    async (status) => {
      await addKey(SECOND_KEY)
      turnmill.upstream.script(({ headers }) =>
        headers.authorization === `Bearer ${CENTRAL_KEY}` ? { type: 'status', status } : { type: 'answer' },
      )
      expect(await fetchStatus()).toBe(200)
      expect(keysSeen()).toEqual([`Bearer ${CENTRAL_KEY}`, `Bearer ${SECOND_KEY}`])
      // The first one rests.
      expect(await fetchStatus()).toBe(200)
      expect(keysSeen().slice(2)).toEqual([`Bearer ${SECOND_KEY}`])
    },
  )

  /** Of a streamed call: the fake provider only streams. */
  async function fetchStatus(): Promise<number> {
    const response = await fetch(turnmill.address + PATH, {
      method: 'POST',
      headers: { authorization: `Bearer ${user.token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'fake-1', input: 'hi', stream: true }),
    })
    await response.text()
    return response.status
  }

  test('that all are refused give the provider’s own answer', async () => {
    await addKey(SECOND_KEY)
    turnmill.upstream.script({ type: 'status', status: 429, headers: { 'retry-after': '3' } })
    const answer = await call()
    expect(answer.status).toBe(429)
    expect(answer.headers.get('retry-after')).toBe('3')
    expect(turnmill.upstream.requests).toHaveLength(2)
  })

  test('do not stand in for a user’s own', async () => {
    await user.client.request('PUT', '/v1/me/provider-keys/fake', { key: 'users-own-key-0001' })
    turnmill.upstream.script({ type: 'status', status: 401 })
    expect(await fetchStatus()).toBe(401)
    expect(keysSeen()).toEqual(['Bearer users-own-key-0001'])
  })

  test('are not tried at a model that is down, but by one call now and then', async () => {
    turnmill.upstream.script({ type: 'status', status: 503 })
    expect([await fetchStatus(), await fetchStatus()]).toEqual([503, 503])
    const refused = await call()
    expect(refused).toMatchObject({ status: 503, body: { error: { code: 'provider_overloaded' } } })
    expect(refused.headers.get('retry-after')).toBe('3')
    expect(turnmill.upstream.requests).toHaveLength(2)
    turnmill.upstream.script({ type: 'answer' })
    let status = 503
    while (status === 503) {
      await sleep(50)
      status = await fetchStatus()
    }
    expect(await fetchStatus()).toBe(200)
    expect(turnmill.upstream.requests).toHaveLength(4)
  })

  test('are encrypted anew under the present key, in steps that may be repeated', async () => {
    await addKey(SECOND_KEY)
    await user.client.request('PUT', '/v1/me/provider-keys/fake', { key: 'users-own-key-0001' })
    const { db } = turnmill.services
    const old = TEST_SECRETS.TURNMILL_ENCRYPTION_KEYS
    const fresh = `fresh:${randomBytes(32).toString('base64')}`
    const both = createEncryption(new Secret(`${fresh},${old}`))
    const progress: number[] = []
    expect(await rotateSecrets(db, both, (rows) => progress.push(rows))).toBe(3)
    expect(progress).toEqual([2, 3])
    expect(await rotateSecrets(db, both, () => undefined)).toBe(0)
    await expect(demandEncryptionKeys(db, createEncryption(new Secret(fresh)))).resolves.toBeUndefined()
    await expect(demandEncryptionKeys(db, createEncryption(new Secret(old)))).rejects.toThrow(
      'was encrypted with key "fresh", which is missing or has another value',
    )
    const wrong = createEncryption(new Secret(`fresh:${randomBytes(32).toString('base64')}`))
    await expect(demandEncryptionKeys(db, wrong)).rejects.toThrow('TURNMILL_ENCRYPTION_KEYS does not fit')
  })
})

describe('credentials under a key that a running process has not', () => {
  const lines: string[] = []
  const start = (routing: 'true' | 'false') =>
    startTurnmill({
      onLog: (line) => lines.push(line),
      environment: { TURNMILL_CHAT_AI_GATEWAY_ROUTING_ENABLED: routing },
    })
  /** As `turnmill keys rotate` does while the process runs on with its old keys. */
  const rotate = ({ services: { db } }: Turnmill) => {
    const fresh = `fresh:${randomBytes(32).toString('base64')}`
    const both = createEncryption(new Secret(`${fresh},${TEST_SECRETS.TURNMILL_ENCRYPTION_KEYS}`))
    return rotateSecrets(db, both, () => undefined)
  }

  test.each(['true', 'false'] as const)(
    'stop a turn at once with a code of their own, gateway routing: %s',
    async (routing) => {
      const turnmill = await start(routing)
      try {
        await rotate(turnmill)
        const [stored] = await turnmill.services.db.prisma.providerKey.findMany()
        const { client } = await turnmill.addUser()
        const { chat, turn } = await client.create('hi')
        expect(await client.ended(chat.id, turn.id)).toMatchObject({
          state: 'failed',
          error: {
            code: 'secret_unreadable',
            recovery: 'stop',
            message: expect.not.stringContaining('TURNMILL'),
          },
        })
        expect(turnmill.upstream.requests).toHaveLength(0)
        const told = lines.map((line) => JSON.parse(line) as Record<string, unknown>)
        expect(told).toContainEqual(
          expect.objectContaining({
            level: 'error',
            msg: 'a stored secret does not decrypt',
            table: 'provider_keys',
            rowId: stored?.id,
            keyId: 'fresh',
          }),
        )
      } finally {
        await turnmill.stop()
      }
    },
  )

  test('refuse a call through the gateway, which an SDK is not to try again', async () => {
    const turnmill = await start('true')
    try {
      await rotate(turnmill)
      const { client } = await turnmill.addUser()
      const answer = await client.request('POST', PATH, { model: 'fake-1', input: 'hi', stream: true })
      expect(answer).toMatchObject({ status: 500, body: { error: { code: 'secret_unreadable' } } })
      expect(JSON.stringify(answer.body)).not.toContain('TURNMILL')
      expect(answer.headers.get('x-should-retry')).toBe('false')
    } finally {
      await turnmill.stop()
    }
  })
})

describe('budgets', () => {
  let turnmill: Turnmill
  beforeAll(async () => {
    turnmill = await startTurnmill({ workers: 0 })
  })
  afterAll(() => turnmill.stop())

  const post = (body: unknown) => turnmill.admin.client.request<{ id: string }>('POST', '/v1/budgets', body)

  test('are set, listed, changed and deleted by admins', async () => {
    const { userId, client } = await turnmill.addUser()
    const budget = { subject: 'user', subjectId: userId, period: 'month', limitMicros: 5_000_000 }
    const created = await post(budget)
    expect(created).toMatchObject({ status: 201, body: { ...budget, spentMicros: 0, reservedMicros: 0 } })
    expect(await post(budget)).toMatchObject({ status: 409, body: { code: 'conflict' } })
    const one = `/v1/budgets/${created.body.id}`
    const changed = await turnmill.admin.client.request('PATCH', one, { limitMicros: 7 })
    expect(changed).toMatchObject({ status: 200, body: { limitMicros: 7 } })
    expect(await turnmill.admin.client.request('GET', '/v1/budgets')).toMatchObject({
      body: { items: [{ id: created.body.id, limitMicros: 7 }] },
    })
    expect(await client.request('GET', '/v1/budgets')).toMatchObject({ status: 403 })
    expect(await turnmill.admin.client.request('DELETE', one)).toMatchObject({ status: 204 })
    expect(await turnmill.admin.client.request('PATCH', one, { limitMicros: 7 })).toMatchObject({
      status: 404,
    })
  })

  test.each([
    ['of nobody', 404, { subject: 'key', subjectId: newId() }],
    ['of a key that is not named', 400, { subject: 'key' }],
    ['of a deployment that is named', 400, { subject: 'deployment', subjectId: newId() }],
    ['below nothing', 400, { subject: 'deployment', limitMicros: -1 }],
    ['by the hour', 400, { subject: 'deployment', period: 'hour' }],
  ])('%s are refused', async (_, status, fields) => {
    expect(await post({ period: 'day', limitMicros: 1, ...fields })).toMatchObject({ status })
  })

  test('of a user who was deleted are refused', async () => {
    const { userId } = await turnmill.addUser()
    expect(await turnmill.admin.client.request('DELETE', `/v1/users/${userId}`)).toMatchObject({
      status: 204,
    })
    const budget = { subject: 'user', subjectId: userId, period: 'day', limitMicros: 1 }
    expect(await post(budget)).toMatchObject({ status: 404 })
  })

  test('are refused by direct routing, which cannot hold them', async () => {
    const direct = await startTurnmill({
      workers: 0,
      environment: { TURNMILL_CHAT_AI_GATEWAY_ROUTING_ENABLED: 'false' },
    })
    try {
      const budget = { subject: 'deployment', period: 'total', limitMicros: 1 }
      expect(await direct.admin.client.request('POST', '/v1/budgets', budget)).toMatchObject({
        status: 409,
        body: { code: 'conflict', detail: expect.stringContaining('GATEWAY_ROUTING_ENABLED=true') },
      })
      await expect(demandFitting(direct.services)).resolves.toBeUndefined()
    } finally {
      await direct.stop()
    }
  })

  test('keep a process with direct routing from starting', async () => {
    const { id } = (await post({ subject: 'deployment', period: 'total', limitMicros: 1 })).body
    const { services } = turnmill
    const direct = { ...services, config: { ...services.config, gatewayRouting: false } }
    await expect(demandFitting(services)).resolves.toBeUndefined()
    await expect(demandFitting(direct)).rejects.toThrow('direct routing cannot hold them')
    await turnmill.admin.client.request('DELETE', `/v1/budgets/${id}`)
    await expect(demandFitting(direct)).resolves.toBeUndefined()
  })

  test('hold a turn, which fails and says so', async () => {
    const { client, apiKeyId } = await turnmill.addUser()
    await post({ subject: 'key', subjectId: apiKeyId, period: 'total', limitMicros: 10 })
    turnmill.addWorker()
    const { chat, turn } = await client.create('hi')
    expect(await client.ended(chat.id, turn.id)).toMatchObject({
      state: 'failed',
      error: {
        code: 'budget_exceeded',
        recovery: 'stop',
        message: expect.stringMatching(/the total budget of the API key has less left \(10 of 10\)$/),
      },
    })
    expect(turnmill.upstream.requests).toHaveLength(0)
  })
})
