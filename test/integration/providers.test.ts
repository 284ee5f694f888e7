/** Providers over HTTP: their own headers on both kinds of route, and the order of their credentials. */
import type { ProviderKeyView, ProviderView } from '../../src/models/index.ts'
import { newId } from '../../src/protocol/ids.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

describe.each(['gateway', 'direct'])('a provider, on the %s route', (route) => {
  let turnmill: Turnmill
  let user: TestUser
  let logged = ''
  beforeAll(async () => {
    turnmill = await startTurnmill({
      environment: { TURNMILL_CHAT_AI_GATEWAY_ROUTING_ENABLED: String(route === 'gateway') },
      onLog: (line) => (logged += line),
    })
    user = await turnmill.addUser()
  })
  afterAll(() => turnmill.stop())

  const path = () => `/v1/providers/${turnmill.provider.id}`

  test('is sent the headers that an admin has set, and keeps its credential', async () => {
    const extraHeaders = { 'X-Team': 'chat', 'openai-organization': 'org-of-the-deployment' }
    const changed = await turnmill.admin.client.request<ProviderView>('PATCH', path(), { extraHeaders })
    const kept = { 'x-team': 'chat', 'openai-organization': 'org-of-the-deployment' }
    expect(changed).toMatchObject({ status: 200, body: { extraHeaders: kept } })
    const read = await turnmill.admin.client.request<ProviderView>('GET', path())
    expect(read).toMatchObject({ status: 200, body: { name: 'fake', extraHeaders: kept } })
    const { chat, turn } = await user.client.create('hi')
    await user.client.ended(chat.id, turn.id)
    const [request] = turnmill.upstream.requests
    expect(request?.headers).toMatchObject({
      ...kept,
      authorization: 'Bearer central-provider-key-0001',
      'x-turnmill-key-id': user.apiKeyId,
    })
    expect(logged).not.toContain('org-of-the-deployment')
  })

  test.each([
    [{ authorization: 'Bearer other' }],
    [{ X_Api_Key: 'other' }],
    [{ 'x-turnmill-key-id': newId() }],
    [{ 'x-forwarded-for': '10.0.0.1' }],
    [{ connection: 'close' }],
    [{ 'x-team': 'a\r\nb: c' }],
    [{ 'x-team': 7 }],
    [{ 'x-team': 'a', 'X-Team': 'b' }],
    [[]],
    [null],
  ])('does not take %j for its headers', async (extraHeaders) => {
    const before = await turnmill.admin.client.request<ProviderView>('GET', path())
    const refused = { status: 400, body: { code: 'invalid_request' } }
    expect(await turnmill.admin.client.request('PATCH', path(), { extraHeaders })).toMatchObject(refused)
    const provider = { name: newId(), type: 'openai', baseUrl: turnmill.upstream.url, extraHeaders }
    expect(await turnmill.admin.client.request('POST', '/v1/providers', provider)).toMatchObject(refused)
    expect((await turnmill.admin.client.request('GET', path())).body).toEqual(before.body)
  })
})

describe('the credentials of a provider', () => {
  let turnmill: Turnmill
  const path = () => `/v1/providers/${turnmill.provider.id}/keys`
  beforeEach(async () => {
    turnmill = await startTurnmill({ workers: 0 })
    for (const key of ['central-provider-key-0002', 'central-provider-key-0003'])
      await turnmill.admin.client.request('POST', path(), { key })
  })
  afterEach(() => turnmill.stop())

  const list = async (): Promise<ProviderKeyView[]> =>
    (await turnmill.admin.client.request<{ items: ProviderKeyView[] }>('GET', path())).body.items
  const order = (keyIds: unknown) =>
    turnmill.admin.client.request<{ items: ProviderKeyView[] }>('PUT', `${path()}/order`, { keyIds })
  const ids = (keys: readonly ProviderKeyView[]): string[] => keys.map(({ id }) => id)

  test('are put into another order at once, which is the order of failover', async () => {
    const [first, second, third] = ids(await list())
    const wanted = [third, first, second]
    const ordered = await order(wanted)
    expect(ordered).toMatchObject({ status: 200 })
    expect(ids(ordered.body.items)).toEqual(wanted)
    expect(ids(await list())).toEqual(wanted)
    expect((await list()).map(({ position }) => position)).toEqual([0, 1, 2])
    const user = await turnmill.addUser()
    turnmill.upstream.script({ type: 'status', status: 401 })
    await user.client.request('POST', '/v1/gateway/fake/v1/responses', { model: 'fake-1', input: 'hi' })
    expect(turnmill.upstream.requests.map(({ headers }) => headers.authorization)).toEqual([
      'Bearer central-provider-key-0003',
      'Bearer central-provider-key-0001',
      'Bearer central-provider-key-0002',
    ])
  })

  test('are named each once', async () => {
    const before = ids(await list())
    const [first, second, third] = before
    const refused = { status: 400, body: { code: 'invalid_request' } }
    for (const keyIds of [
      [],
      [first, second],
      [first, second, second],
      [first, second, newId()],
      [first, second, third, newId()],
      'x',
    ])
      // prettier-ignore
      expect(await order(keyIds)).toMatchObject(refused)
    expect(ids(await list())).toEqual(before)
    const nowhere = `/v1/providers/${newId()}/keys/order`
    expect(await turnmill.admin.client.request('PUT', nowhere, { keyIds: [] })).toMatchObject({ status: 404 })
  })

  test('end in one of the orders that are asked for at once, with others added meanwhile', async () => {
    const [first, second, third] = ids(await list())
    const orders = [
      [third, second, first],
      [second, first, third],
      [first, third, second],
    ]
    const answers = await Promise.all([
      ...orders.map(order),
      ...[4, 5].map((n) => turnmill.admin.client.request('POST', path(), { key: `central-provider-key-000${n}` })), // prettier-ignore
    ])
    for (const { status } of answers) expect([200, 201, 400, 409]).toContain(status)
    const keys = await list()
    expect(new Set(keys.map(({ position }) => position)).size).toBe(keys.length)
    expect([[first, second, third], ...orders]).toContainEqual(ids(keys).filter((id) => [first, second, third].includes(id))) // prettier-ignore
  })
})
