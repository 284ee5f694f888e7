import { inspect } from 'node:util'
import {
  buildRoute,
  type FactsRequest,
  type RouteFacts,
  type RouteOptions,
  type RouteRequest,
  type RoutingMode,
} from '../../src/models/index.ts'
import { Secret } from '../../src/protocol/secret.ts'

const GATEWAY: RoutingMode = { gatewayRouting: true, gatewayPresent: true }
const DIRECT: RoutingMode = { gatewayRouting: false, gatewayPresent: false }

const REQUEST: RouteRequest = {
  purpose: 'chat',
  chatId: 'chat-1',
  turnId: 'turn-1',
  chatUserId: 'user-1',
  explicitModelConfigId: 'config-1',
  chatModelConfigId: 'config-2',
  place: null,
}
const OPTIONS: RouteOptions = { apiKeyId: 'key-1', keyOwnerId: 'user-1' }

const provider: NonNullable<RouteFacts['provider']> = {
  id: 'provider-1', name: 'openai', type: 'openai', baseUrl: 'https://api.openai.com/v1', enabled: true, attribution: false, hasCentralKey: true,
  extraHeaders: { 'x-team': 'chat' },
} // prettier-ignore

const prices = { inputMicros: null, outputMicros: null, cacheReadMicros: null, cacheWriteMicros: null }

const facts = (change: Partial<RouteFacts> = {}): RouteFacts => ({
  modelConfig: {
    id: 'config-1', model: 'gpt-x', contextWindow: null, maxOutputTokens: null, compactionThreshold: null, options: {}, prices,
  }, // prettier-ignore
  provider,
  byok: null,
  centralKey: new Secret('central-secret'),
  ...change,
})

interface Case {
  mode?: RoutingMode
  facts?: RouteFacts | null
  request?: Partial<RouteRequest>
  options?: Partial<RouteOptions>
}

function build(one: Case = {}) {
  const asked: FactsRequest[] = []
  const readFacts = async (request: FactsRequest) => {
    asked.push(request)
    return one.facts === undefined ? facts() : one.facts
  }
  const built = buildRoute(
    one.mode ?? GATEWAY,
    readFacts,
    { ...REQUEST, ...one.request },
    { ...OPTIONS, ...one.options },
  )
  return { asked, built }
}

const without = (change: Partial<typeof provider>): RouteFacts =>
  facts({ provider: { ...provider, ...change } })

/** Design, section 8: in this order, each with its own code. Every row is also broken in all the ways of the rows after it. */
const REFUSALS: [code: string, one: Case, says: RegExp][] = [
  ['model_config_missing', { facts: null }, /config-1, config-2/],
  [
    'no_provider_for_type',
    { facts: null, request: { providerType: 'anthropic', purpose: 'computer_use' } },
    /computer_use.*anthropic/,
  ],
  [
    'no_provider_for_type',
    { facts: null, request: { providerType: ['anthropic', 'openai'], purpose: 'computer_use' } },
    /anthropic or openai/,
  ],
  ['provider_missing', { facts: facts({ provider: null }), options: { apiKeyId: null } }, /config-1.*gpt-x/],
  [
    'provider_disabled',
    { facts: without({ enabled: false, hasCentralKey: false, name: null }), options: { apiKeyId: null } },
    /gpt-x/,
  ],
  [
    'provider_auth_failed',
    { facts: without({ hasCentralKey: false, name: null }), options: { apiKeyId: null } },
    /gpt-x/,
  ],
  [
    'provider_name_missing',
    {
      facts: without({ name: null }),
      options: { apiKeyId: null },
      mode: { gatewayRouting: true, gatewayPresent: false },
    },
    /provider-1.*gpt-x/,
  ],
  [
    'missing_key',
    { options: { apiKeyId: null }, mode: { gatewayRouting: true, gatewayPresent: false } },
    /gpt-x.*openai/,
  ],
  ['gateway_unavailable', { mode: { gatewayRouting: true, gatewayPresent: false } }, /openai.*gpt-x/],
]

describe('buildRoute fails closed', () => {
  test.each(REFUSALS)('as %s', async (code, one, says) => {
    await expect(build(one).built).rejects.toMatchObject({ code, message: expect.stringMatching(says) })
  })

  test.each(['provider_missing', 'provider_disabled', 'provider_auth_failed'])(
    'as %s on the direct route as well',
    async (code) => {
      const [, one] = REFUSALS.find(([name]) => name === code) ?? []
      await expect(build({ ...one, mode: DIRECT }).built).rejects.toMatchObject({ code })
    },
  )
})

describe('buildRoute on the gateway', () => {
  test('takes the key ID as a value and asks for no central credential', async () => {
    const { asked, built } = build()
    const { route } = await built
    expect(route).toMatchObject({
      kind: 'gateway',
      delegatedKeyId: 'key-1',
      byok: null,
      wireFormat: 'openai-responses',
      attribution: { apiKeyId: 'key-1', chatId: 'chat-1', turnId: 'turn-1', purpose: 'chat' },
    })
    expect(asked).toMatchObject([{ withCentralKey: false, byokUserId: 'user-1' }])
    expect('credential' in route).toBe(false)
  })

  test('carries the user’s own key beside it', async () => {
    const { route } = await build({ facts: facts({ byok: new Secret('own-secret') }) }).built
    expect(route.kind === 'gateway' && route.byok?.reveal()).toBe('own-secret')
  })
})

describe('buildRoute on the direct route', () => {
  test('needs no key ID and takes the central credential', async () => {
    const { asked, built } = build({ mode: DIRECT, options: { apiKeyId: null, keyOwnerId: null } })
    const { route } = await built
    expect(route.kind === 'direct' && route.credential?.reveal()).toBe('central-secret')
    expect(route).toMatchObject({ credentialKind: 'central', extraHeaders: { 'x-team': 'chat' } })
    expect(asked).toMatchObject([{ withCentralKey: true, byokUserId: null }])
  })

  test('prefers the user’s own key', async () => {
    const { route } = await build({ mode: DIRECT, facts: facts({ byok: new Secret('own-secret') }) }).built
    expect(route.kind === 'direct' && route.credential?.reveal()).toBe('own-secret')
    expect(route).toMatchObject({ credentialKind: 'byok' })
  })
})

test('the choices go to the facts as they are, with the chat’s owner for the overrides', async () => {
  const { asked, built } = build({
    request: { purpose: 'advisor' },
    options: { keyOwnerId: 'somebody-else' },
  })
  await built
  expect(asked).toEqual([
    {
      purpose: 'advisor',
      explicitModelConfigId: 'config-1',
      chatModelConfigId: 'config-2',
      chatUserId: 'user-1',
      providerTypes: null,
      byokUserId: null,
      withCentralKey: false,
    },
  ])
})

test.each([
  ['anthropic', ['anthropic']],
  [
    ['anthropic', 'openai'],
    ['anthropic', 'openai'],
  ],
] as const)('computer use asks for type %s', async (providerType, providerTypes) => {
  const { asked, built } = build({ request: { purpose: 'computer_use', providerType } })
  await built
  expect(asked).toMatchObject([{ providerTypes }])
})

test('a user’s own key is only asked for where the initiator owns the chat', async () => {
  const { asked, built } = build({ options: { keyOwnerId: 'somebody-else' } })
  await built
  expect(asked).toMatchObject([{ byokUserId: null }])
})

test.each([
  ['openai', undefined, 'openai-responses'],
  ['openai', false, 'openai-chat'],
  ['openai-compatible', undefined, 'openai-chat'],
  ['openai-compatible', true, 'openai-responses'],
  ['anthropic', undefined, 'anthropic-messages'],
  ['anthropic', true, 'anthropic-messages'],
] as const)(
  'provider type %s with useResponsesApi %s speaks %s',
  async (type, useResponsesApi, wireFormat) => {
    const options = useResponsesApi === undefined ? {} : { useResponsesApi }
    const known = facts({ provider: { ...provider, type }, modelConfig: { ...facts().modelConfig, options } })
    await expect(build({ facts: known }).built).resolves.toMatchObject({ route: { wireFormat } })
  },
)

test('a secret inside a route prints as <redacted> in every form', async () => {
  const routes = await Promise.all([
    build({ facts: facts({ byok: new Secret('own-secret') }) }).built,
    build({ mode: DIRECT }).built,
  ])
  for (const { route } of routes) {
    const printed = [
      JSON.stringify(route),
      inspect(route, { depth: 9, showHidden: true }),
      String(Object.values(route)),
    ]
    expect(printed.join(' ')).toContain('<redacted>')
    expect(printed.join(' ')).not.toMatch(/own-secret|central-secret/)
  }
})
