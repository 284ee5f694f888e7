/** Which model serves a call: explicit > the user's override > the deployment's > the chat's model > the default. */
import {
  createModelConfig,
  createProvider,
  putModelOverride,
  readRouteFacts,
  type FactsRequest,
} from '../../src/models/index.ts'
import { newId } from '../../src/protocol/ids.ts'
import { PURPOSES, type ProviderType } from '../../src/protocol/routes.ts'
import { Secret } from '../../src/protocol/secret.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

let turnmill: Turnmill
let user: TestUser
beforeEach(async () => {
  turnmill = await startTurnmill({ allowByok: true })
  user = await turnmill.addUser()
})
afterEach(() => turnmill.stop())

const PRICES = { input: null, output: null, cacheRead: null, cacheWrite: null }

/** A model of the seeded provider, or of another one. Gives its ID. */
async function addModel(model: string, providerId = turnmill.provider.id): Promise<string> {
  const config = await createModelConfig(turnmill.services.db, {
    providerId, model, displayName: model, enabled: true, isDefault: false, contextWindow: 1000, maxOutputTokens: null,
    compactionThreshold: 60, options: { reasoningEffort: 'low' }, prices: PRICES,
  }) // prettier-ignore
  return config.id
}

const addProvider = async (name: string, type: ProviderType): Promise<string> => {
  const { db, encryption } = turnmill.services
  const baseUrl = turnmill.upstream.baseUrl(type === 'anthropic' ? 'anthropic-messages' : 'openai-chat')
  const provider = { name, type, baseUrl, enabled: true, allowByok: false, attribution: true, keys: [new Secret('another-central-key')] } // prettier-ignore
  return (await createProvider(db, encryption, provider)).id
}

const disable = (id: string) =>
  turnmill.services.db.prisma.modelConfig.update({ where: { id }, data: { enabled: false } })

async function choose(request: Partial<FactsRequest>): Promise<string | undefined> {
  const { db, encryption } = turnmill.services
  const facts = await readRouteFacts(db, encryption, {
    purpose: 'chat',
    explicitModelConfigId: null,
    chatModelConfigId: null,
    chatUserId: user.userId,
    providerTypes: null,
    byokUserId: null,
    withCentralKey: false,
    ...request,
  })
  return facts?.modelConfig.model
}

describe.each(PURPOSES.filter((purpose) => purpose !== 'computer_use'))('for %s', (purpose) => {
  test('each choice falls to the next one once it is disabled', async () => {
    const { db } = turnmill.services
    const [explicit, own, deployment, chat] = [
      await addModel('explicit'),
      await addModel('own'),
      await addModel('deployment'),
      await addModel('chat'),
    ]
    await putModelOverride(db, user.userId, purpose, own)
    await putModelOverride(db, null, purpose, deployment)
    const stranger = await turnmill.addUser()
    const request = { purpose, explicitModelConfigId: explicit, chatModelConfigId: chat }
    expect(await choose(request)).toBe('explicit')
    expect(await choose({ ...request, explicitModelConfigId: newId() })).toBe('own')
    await disable(explicit)
    expect(await choose(request)).toBe('own')
    expect(await choose({ ...request, chatUserId: stranger.userId })).toBe('deployment')
    const another = purpose === 'chat' ? 'title' : 'chat'
    expect(await choose({ ...request, purpose: another })).toBe('chat')
    await disable(own)
    expect(await choose(request)).toBe('deployment')
    await disable(deployment)
    expect(await choose(request)).toBe('chat')
    await disable(chat)
    expect(await choose(request)).toBe('fake-1')
    await disable(turnmill.modelConfig.id)
    expect(await choose(request)).toBeUndefined()
  })
})

describe('for computer use, by provider type', () => {
  test('a choice of another type does not count, and any model of the type will do', async () => {
    const { db } = turnmill.services
    const anthropic = await addProvider('other', 'anthropic')
    const request: Partial<FactsRequest> = {
      purpose: 'computer_use',
      explicitModelConfigId: turnmill.modelConfig.id,
      providerTypes: ['anthropic'],
    }
    expect(await choose(request)).toBeUndefined()
    const [oldest, newer] = [await addModel('oldest', anthropic), await addModel('newer', anthropic)]
    expect(await choose(request)).toBe('oldest')
    expect(await choose({ ...request, chatModelConfigId: newer })).toBe('newer')
    expect(await choose({ ...request, providerTypes: ['openai', 'anthropic'] })).toBe('fake-1')
    await putModelOverride(db, user.userId, 'computer_use', newer)
    expect(await choose(request)).toBe('newer')
    await disable(newer)
    expect(await choose(request)).toBe('oldest')
    await turnmill.admin.client.request('PATCH', `/v1/model-configs/${newer}`, {
      enabled: true,
      isDefault: true,
    })
    await db.prisma.modelOverride.deleteMany()
    expect(await choose(request)).toBe('newer')
    await disable(newer)
    await disable(oldest)
    expect(await choose(request)).toBeUndefined()
  })

  test('models of a disabled provider do not count', async () => {
    const anthropic = await addProvider('other', 'anthropic')
    const model = await addModel('theirs', anthropic)
    const request: Partial<FactsRequest> = {
      purpose: 'computer_use',
      explicitModelConfigId: model,
      providerTypes: ['anthropic'],
    }
    expect(await choose(request)).toBe('theirs')
    await turnmill.admin.client.request('PATCH', `/v1/providers/${anthropic}`, { enabled: false })
    expect(await choose(request)).toBeUndefined()
  })
})

describe('a turn', () => {
  const modelsCalled = (): unknown[] => turnmill.upstream.requests.map(({ body }) => body['model'])

  const answered = async (body: object): Promise<string> => {
    const { chat, turn } = (await user.client.request<{ chat: { id: string }; turn: { id: string } }>('POST', '/v1/chats', { content: 'hi', ...body })).body // prettier-ignore
    return (await user.client.ended(chat.id, turn.id)).error?.code ?? 'answered'
  }

  test('is run with the model that was asked for, else with the one that its user has set', async () => {
    const [asked, own] = [await addModel('asked'), await addModel('own')]
    await user.client.request('PUT', '/v1/me/model-overrides/chat', { modelConfigId: own })
    expect(await answered({ modelConfigId: asked })).toBe('answered')
    expect(await answered({})).toBe('answered')
    await user.client.request('DELETE', '/v1/me/model-overrides/chat')
    expect(await answered({})).toBe('answered')
    expect(modelsCalled()).toEqual(['asked', 'own', 'fake-1'])
  })

  test('fails visibly with a choice that is there and cannot be called', async () => {
    const own = await addModel('own', await addProvider('other', 'anthropic'))
    await user.client.request('PUT', '/v1/me/model-overrides/chat', { modelConfigId: own })
    await turnmill.services.db.prisma.provider.update({ where: { name: 'other' }, data: { enabled: false } })
    expect(await answered({})).toBe('provider_disabled')
    expect(modelsCalled()).toEqual([])
  })
})
