/** Model configs and overrides over HTTP, and what a caller is told of the models. */
import type { AvailableModel, ModelConfigView, ModelOverrideView } from '../../src/models/index.ts'
import { newId } from '../../src/protocol/ids.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

let turnmill: Turnmill
let user: TestUser
beforeEach(async () => {
  turnmill = await startTurnmill({
    allowByok: true,
    // A busy machine may not take a turn from a worker that lives: its call would be made twice.
    environment: { TURNMILL_LEASE_MS: '20000', TURNMILL_LEASE_RENEWAL_MS: '5000' },
  })
  user = await turnmill.addUser()
})
afterEach(() => turnmill.stop())

const ask = <T = ModelConfigView>(method: string, path = '', body?: unknown) =>
  turnmill.admin.client.request<T>(method, `/v1/model-configs${path}`, body)

const create = async (body: object = {}): Promise<ModelConfigView> => {
  const made = await ask('POST', '', { providerId: turnmill.provider.id, model: 'm', ...body })
  expect(made).toMatchObject({ status: 201 })
  return made.body
}

const addProvider = async (type: string): Promise<string> => {
  const provider = { name: `other-${type}`, type, baseUrl: turnmill.upstream.url, keys: ['k'] }
  const { body } = await turnmill.admin.client.request<{ id: string }>('POST', '/v1/providers', provider)
  return body.id
}

const defaults = async (): Promise<string[]> =>
  (await ask<{ items: ModelConfigView[] }>('GET')).body.items.filter(({ isDefault }) => isDefault).map(({ id }) => id) // prettier-ignore

describe('a model config', () => {
  test('is created, read, changed in part and deleted', async () => {
    const prices = { input: 1, output: 2 }
    const { id } = await create({ contextWindow: 1000, compactionThreshold: 60, prices })
    const read = await ask('GET', `/${id}`)
    expect(read).toMatchObject({
      status: 200,
      body: { model: 'm', compactionThreshold: 60, prices: { ...prices, cacheRead: null } },
    })
    const other = await turnmill.admin.client.request<{ id: string }>('POST', '/v1/providers', {
      name: 'other',
      type: 'anthropic',
      baseUrl: turnmill.upstream.url,
    })
    const changed = await ask('PATCH', `/${id}`, {
      model: 'm-2',
      providerId: other.body.id,
      prices: { output: null, cacheRead: 3 },
      compactionThreshold: null,
      options: { reasoningEffort: 'low', maxReasoningEffort: 'medium' },
    })
    expect(changed).toMatchObject({
      status: 200,
      body: {
        id,
        model: 'm-2',
        displayName: 'm',
        providerId: other.body.id,
        contextWindow: 1000,
        compactionThreshold: null,
        options: { reasoningEffort: 'low', maxReasoningEffort: 'medium' },
        prices: { input: 1, output: null, cacheRead: 3, cacheWrite: null },
      },
    })
    expect(await ask('GET', `/${id}`)).toMatchObject({ body: changed.body })
    expect(await ask('DELETE', `/${id}`)).toMatchObject({ status: 204 })
    for (const [method, body] of [['GET'], ['DELETE'], ['PATCH', { enabled: true }]] as const)
      expect(await ask(method, `/${id}`, body)).toMatchObject({ status: 404, body: { code: 'not_found' } })
  })

  test.each([
    [{ compactionThreshold: 0 }],
    [{ compactionThreshold: 101 }],
    [{ prices: { input: -1 } }],
    [{ prices: { input: 0.5 } }],
    [{ prices: { tokens: 1 } }],
    [{ options: { reasoningEffort: 'high', maxReasoningEffort: 'low' } }],
    [{ options: { maxReasoningEffort: 'most' } }],
    [{ model: '' }],
  ])('refuses %j, made and changed', async (body) => {
    const refused = { status: 400, body: { code: 'invalid_request' } }
    expect(await ask('POST', '', { providerId: turnmill.provider.id, model: 'm', ...body })).toMatchObject(refused) // prettier-ignore
    expect(await ask('PATCH', `/${turnmill.modelConfig.id}`, body)).toMatchObject(refused)
  })

  test('of a provider that does not exist is refused', async () => {
    const change = { providerId: newId() }
    expect(await ask('PATCH', `/${turnmill.modelConfig.id}`, change)).toMatchObject({ status: 404 })
    expect(await ask('POST', '', { ...change, model: 'm' })).toMatchObject({ status: 404 })
  })

  test('that is deleted leaves its chats, which go on with the next choice', async () => {
    const { id } = await create()
    const { body } = await user.client.request<{ chat: { id: string }; turn: { id: string } }>('POST', '/v1/chats', { content: 'hi', modelConfigId: id }) // prettier-ignore
    await user.client.ended(body.chat.id, body.turn.id)
    await user.client.request('PATCH', `/v1/chats/${body.chat.id}`, { modelConfigId: id })
    await user.client.request('PUT', '/v1/me/model-overrides/title', { modelConfigId: id })
    expect(await ask('DELETE', `/${id}`)).toMatchObject({ status: 204 })
    expect((await user.client.request('GET', `/v1/chats/${body.chat.id}`)).body).toMatchObject({
      modelConfigId: null,
    })
    expect((await user.client.request('GET', '/v1/me/model-overrides')).body).toEqual({ items: [] })
    await user.client.send(body.chat.id, 'again')
    await user.client.settled(body.chat.id)
    expect(turnmill.upstream.requests.map((request) => request.body['model'])).toEqual(['m', 'fake-1'])
  })
})

describe('the default (M1)', () => {
  test('is one, however many ask for it at once', async () => {
    const configs = await Promise.all(Array.from({ length: 5 }, () => create()))
    const answers = await Promise.all([
      ...configs.map(({ id }) => ask('PATCH', `/${id}`, { isDefault: true })),
      ...configs.map(() =>
        ask('POST', '', { providerId: turnmill.provider.id, model: 'n', isDefault: true }),
      ),
      ...configs.map(
        ({ id }) =>
        turnmill.admin.client.request('PATCH', `/v1/model-configs/${id}`, { isDefault: true }, { 'idempotency-key': newId() }), // prettier-ignore
      ),
    ])
    expect(answers.map(({ status }) => status).filter((status) => status >= 300)).toEqual([])
    expect(await defaults()).toHaveLength(1)
  })

  test('gives way to another one alone', async () => {
    const first = turnmill.modelConfig.id
    const { id } = await create()
    expect(await defaults()).toEqual([first])
    const refused = { status: 409, body: { code: 'conflict' } }
    expect(await ask('PATCH', `/${first}`, { isDefault: false })).toMatchObject(refused)
    expect(await ask('DELETE', `/${first}`)).toMatchObject(refused)
    expect(await ask('PATCH', `/${id}`, { isDefault: true })).toMatchObject({ status: 200 })
    expect(await defaults()).toEqual([id])
    expect(await ask('DELETE', `/${first}`)).toMatchObject({ status: 204 })
  })

  test('goes with the last one, and the next first one is it', async () => {
    expect(await ask('DELETE', `/${turnmill.modelConfig.id}`)).toMatchObject({ status: 204 })
    const disabled = await create({ enabled: false })
    expect(disabled.isDefault).toBe(false)
    const first = await create()
    expect(first.isDefault).toBe(true)
    expect((await create()).isDefault).toBe(false)
    expect(await defaults()).toEqual([first.id])
  })

  test('that is disabled is replaced by nothing', async () => {
    await create()
    await ask('PATCH', `/${turnmill.modelConfig.id}`, { enabled: false })
    const { chat, turn } = await user.client.create('hi')
    expect(await user.client.ended(chat.id, turn.id)).toMatchObject({ error: { code: 'model_config_missing' } }) // prettier-ignore
    expect(await defaults()).toEqual([turnmill.modelConfig.id])
    expect(turnmill.upstream.requests).toEqual([])
  })
})

describe('the provider of the default (M1)', () => {
  const remove = (id: string) =>
    turnmill.admin.client.request<{ detail: string }>('DELETE', `/v1/providers/${id}`)

  test('is deleted only once a model of another one is the default', async () => {
    const { id } = turnmill.provider
    const refused = await remove(id)
    expect(refused).toMatchObject({ status: 409, body: { code: 'conflict' } })
    expect(refused.body.detail).toContain(turnmill.modelConfig.id)
    expect(refused.body.detail).toContain('make a model of another provider the default first')
    const other = await addProvider('openai-compatible')
    await create({ providerId: other, isDefault: true })
    expect(await remove(id)).toMatchObject({ status: 204 })
    expect(await ask('GET', `/${turnmill.modelConfig.id}`)).toMatchObject({ body: { providerId: null } })
  })

  test('is deleted once no model is the default', async () => {
    await ask('DELETE', `/${turnmill.modelConfig.id}`)
    expect(await remove(turnmill.provider.id)).toMatchObject({ status: 204 })
    expect(await remove(turnmill.provider.id)).toMatchObject({ status: 404 })
  })
})

describe('overrides', () => {
  const OVERRIDES = [
    ['/v1/model-overrides', () => turnmill.admin],
    ['/v1/me/model-overrides', () => user],
  ] as const

  test.each(OVERRIDES)('at %s are set, replaced, listed and taken away', async (path, who) => {
    const { client } = who()
    const { id } = await create()
    const put = (modelConfigId: string) =>
      client.request<ModelOverrideView>('PUT', `${path}/advisor`, { modelConfigId })
    expect(await put(turnmill.modelConfig.id)).toMatchObject({ status: 200, body: { purpose: 'advisor' } })
    expect(await put(id)).toMatchObject({ status: 200, body: { purpose: 'advisor', modelConfigId: id } })
    expect((await client.request('GET', path)).body).toMatchObject({
      items: [{ purpose: 'advisor', modelConfigId: id }],
    })
    const [other] = OVERRIDES.filter(([url]) => url !== path)
    expect((await other![1]().client.request('GET', other![0])).body).toEqual({ items: [] })
    expect(await client.request('DELETE', `${path}/advisor`)).toMatchObject({ status: 204 })
    expect(await client.request('DELETE', `${path}/advisor`)).toMatchObject({ status: 404 })
  })

  test.each(OVERRIDES)('at %s take a purpose there is and a model that can be used', async (path, who) => {
    const { client } = who()
    const disabled = await create({ enabled: false })
    const refused = { status: 400, body: { code: 'invalid_request' } }
    for (const modelConfigId of [newId(), disabled.id])
      expect(await client.request('PUT', `${path}/title`, { modelConfigId })).toMatchObject(refused)
    const body = { modelConfigId: turnmill.modelConfig.id }
    expect(await client.request('PUT', `${path}/anything`, body)).toMatchObject(refused)
    expect(await client.request('PUT', `${path}/title`, { ...body, userId: newId() })).toMatchObject(refused)
    expect((await client.request('GET', path)).body).toEqual({ items: [] })
  })

  test.each(OVERRIDES)('at %s for computer use are models that can use one', async (path, who) => {
    const { client } = who()
    const put = (modelConfigId: string) =>
      client.request<{ detail: string }>('PUT', `${path}/computer_use`, { modelConfigId })
    const compatible = await create({ providerId: await addProvider('openai-compatible') })
    const refused = await put(compatible.id)
    expect(refused).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
    expect(refused.body.detail).toBe(
      `modelConfigId: computer_use needs a model of a provider of type anthropic or openai, and model config ${compatible.id} is of type openai-compatible`,
    )
    expect((await client.request('GET', path)).body).toEqual({ items: [] })
    expect(await client.request('PUT', `${path}/title`, { modelConfigId: compatible.id })).toMatchObject({ status: 200 }) // prettier-ignore
    expect(await put(turnmill.modelConfig.id)).toMatchObject({ status: 200 })
    expect(await put((await create({ providerId: await addProvider('anthropic') })).id)).toMatchObject({ status: 200 }) // prettier-ignore
  })

  test('set by many at once are one', async () => {
    const body = { modelConfigId: turnmill.modelConfig.id }
    const puts = Array.from({ length: 10 }, () => [
      turnmill.admin.client.request('PUT', '/v1/model-overrides/title', body),
      user.client.request('PUT', '/v1/me/model-overrides/title', body),
    ])
    const answers = await Promise.all(puts.flat())
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
    expect(await turnmill.services.db.prisma.modelOverride.count()).toBe(2)
  })

  test('are a user’s own and an admin’s business', async () => {
    const body = { modelConfigId: turnmill.modelConfig.id }
    for (const method of ['PUT', 'DELETE'])
      expect(await user.client.request(method, '/v1/model-overrides/title', method === 'PUT' ? body : undefined)).toMatchObject({ status: 403 }) // prettier-ignore
    expect(await user.client.request('GET', '/v1/model-overrides')).toMatchObject({ status: 403 })
    await user.client.request('PUT', '/v1/me/model-overrides/title', body)
    const stranger = await turnmill.addUser()
    expect((await stranger.client.request('GET', '/v1/me/model-overrides')).body).toEqual({ items: [] })
    expect(await stranger.client.request('DELETE', '/v1/me/model-overrides/title')).toMatchObject({ status: 404 }) // prettier-ignore
    const reader = await turnmill.addKey(user.userId, ['chats:read'])
    expect(await reader.client.request('PUT', '/v1/me/model-overrides/title', body)).toMatchObject({ status: 403 }) // prettier-ignore
  })
})

describe('GET /v1/models', () => {
  const list = async (who: Pick<TestUser, 'client'> = user): Promise<AvailableModel[]> => {
    const { status, body } = await who.client.request<{ items: AvailableModel[] }>('GET', '/v1/models')
    expect(status).toBe(200)
    return body.items
  }

  test('tells every caller what there is', async () => {
    await create({
      model: 'a',
      displayName: 'A',
      contextWindow: 10,
      maxOutputTokens: 5,
      options: { maxReasoningEffort: 'low' },
    })
    const gatewayOnly = await turnmill.addKey(user.userId, ['gateway:use'])
    const items = await list(gatewayOnly)
    expect(items).toMatchObject([
      {
        id: turnmill.modelConfig.id,
        model: 'fake-1',
        displayName: 'Fake',
        provider: { name: 'fake', type: 'openai' },
        isDefault: true,
        contextWindow: null,
        reasoning: { default: null, max: null },
        prices: { input: 1_000_000, output: 2_000_000, cacheRead: 500_000, cacheWrite: null },
        usable: true,
        reason: null,
        credential: 'central',
      },
      {
        model: 'a',
        displayName: 'A',
        isDefault: false,
        contextWindow: 10,
        maxOutputTokens: 5,
        reasoning: { default: null, max: 'low' },
      },
    ])
    expect(JSON.stringify(items)).not.toMatch(/baseUrl|hint|keys/)
  })

  test('tells whose credential a call would be made with', async () => {
    const { client } = turnmill.admin
    await user.client.request('PUT', '/v1/me/provider-keys/fake', { key: 'users-own-key-0001' })
    expect((await user.client.request('GET', '/v1/me/provider-keys')).body).toEqual({
      items: [{ provider: 'fake', hint: 'use…0001' }],
    })
    expect(await list()).toMatchObject([{ credential: 'byok', usable: true }])
    expect(await list(await turnmill.addUser())).toMatchObject([{ credential: 'central', usable: true }])
    await client.request('DELETE', `/v1/providers/${turnmill.provider.id}/keys/${turnmill.provider.keys[0]!.id}`) // prettier-ignore
    expect(await list()).toMatchObject([{ credential: 'byok', usable: true }])
    expect(await list(await turnmill.addUser())).toMatchObject([
      { credential: null, usable: false, reason: 'provider_auth_failed' },
    ])
    await client.request('PATCH', `/v1/providers/${turnmill.provider.id}`, { allowByok: false })
    expect(await list()).toMatchObject([{ credential: null, usable: false, reason: 'provider_auth_failed' }])
  })

  const providerPath = () => `/v1/providers/${turnmill.provider.id}`
  const BROKEN: [reason: string, breakIt: () => Promise<unknown>][] = [
    ['model_config_missing', () => ask('PATCH', `/${turnmill.modelConfig.id}`, { enabled: false })],
    ['provider_disabled', () => turnmill.admin.client.request('PATCH', providerPath(), { enabled: false })],
    [
      'provider_auth_failed',
      () =>
        turnmill.admin.client.request('DELETE', `${providerPath()}/keys/${turnmill.provider.keys[0]!.id}`),
    ],
  ]

  test('says provider_missing where a chat’s model has lost its provider', async () => {
    const provider = await addProvider('openai')
    const { id } = await create({ providerId: provider })
    const { chat, turn } = await user.client.create('hi')
    await user.client.ended(chat.id, turn.id)
    await user.client.request('PATCH', `/v1/chats/${chat.id}`, { modelConfigId: id })
    await turnmill.admin.client.request('DELETE', `/v1/providers/${provider}`)
    expect(await list()).toMatchObject([{ usable: true }, { id, usable: false, reason: 'provider_missing' }])
    const sent = (await user.client.send(chat.id, 'hi')) as { turn: { id: string } }
    expect(await user.client.ended(chat.id, sent.turn.id)).toMatchObject({ error: { code: 'provider_missing' } }) // prettier-ignore
    expect(turnmill.upstream.requests).toHaveLength(1)
  })

  test.each(BROKEN)('says %s where a turn fails so', async (reason, breakIt) => {
    await breakIt()
    expect(await list()).toMatchObject([{ usable: false, reason }])
    const { chat, turn } = await user.client.create('hi')
    expect(await user.client.ended(chat.id, turn.id)).toMatchObject({ error: { code: reason } })
    expect(turnmill.upstream.requests).toEqual([])
  })
})
