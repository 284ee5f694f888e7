import type { GatewayRequest, ProviderType, WireFormat } from '../protocol/routes.ts'

/** What can be asked of a provider. Only a model call has a wire format: it uses tokens, and so costs something. */
export interface Endpoint {
  /** As the provider's own API has it, from `/v1` on. */
  path: string
  wireFormat: WireFormat | null
  types: readonly ProviderType[]
  /** Names of what passes of a query. Anything not named here stays behind. */
  query: readonly string[]
}

const OPENAI: readonly ProviderType[] = ['openai', 'openai-compatible']

/** Azure takes the version of its API there. */
const OPENAI_QUERY: readonly string[] = ['api-version']

/** The SDK of Anthropic says there that a call uses what is not settled yet. */
const ANTHROPIC_QUERY: readonly string[] = ['beta']

/** The pages of a list. */
const LIST_QUERY: readonly string[] = ['limit', 'order', 'after', 'after_id', 'before_id']

const ENDPOINTS: Readonly<Record<string, Endpoint>> = {
  'POST /v1/chat/completions': {
    path: '/v1/chat/completions',
    wireFormat: 'openai-chat',
    types: OPENAI,
    query: OPENAI_QUERY,
  },
  'POST /v1/responses': {
    path: '/v1/responses',
    wireFormat: 'openai-responses',
    types: OPENAI,
    query: OPENAI_QUERY,
  },
  'POST /v1/messages': {
    path: '/v1/messages',
    wireFormat: 'anthropic-messages',
    types: ['anthropic'],
    query: ANTHROPIC_QUERY,
  },
  'POST /v1/messages/count_tokens': {
    path: '/v1/messages/count_tokens',
    wireFormat: null,
    types: ['anthropic'],
    query: ANTHROPIC_QUERY,
  },
  'GET /v1/models': {
    path: '/v1/models',
    wireFormat: null,
    types: ['anthropic', ...OPENAI],
    query: [...LIST_QUERY, ...OPENAI_QUERY],
  },
}

const PATH = /^\/v1\/gateway\/([a-z0-9]+(?:-[a-z0-9]+)*)(\/v1\/[^?]+)/

/** What a request to the gateway asks for, and of whom; `null` for what nobody answers. */
export function findTarget({ method, target }: Pick<GatewayRequest, 'method' | 'target'>): {
  provider: string
  endpoint: Endpoint
} | null {
  const [, provider, path] = PATH.exec(target) ?? []
  const endpoint = ENDPOINTS[`${method} ${path}`]
  return provider === undefined || endpoint === undefined ? null : { provider, endpoint }
}

/** What passes of a query, with its `?`; empty where nothing does. */
export function searchToProvider({ query }: Endpoint, search: string): string {
  const passed = [...new URLSearchParams(search)].filter(([name]) => query.includes(name))
  return passed.length === 0 ? '' : `?${new URLSearchParams(passed).toString()}`
}
