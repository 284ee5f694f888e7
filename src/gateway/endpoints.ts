import type { GatewayRequest, ProviderType, WireFormat } from '../protocol/routes.ts'

/** What can be asked of a provider. Only a model call has a wire format: it uses tokens, and so costs something. */
export interface Endpoint {
  /** As the provider's own API has it, from `/v1` on. */
  path: string
  wireFormat: WireFormat | null
  types: readonly ProviderType[]
}

const OPENAI: readonly ProviderType[] = ['openai', 'openai-compatible']

const ENDPOINTS: Readonly<Record<string, Endpoint>> = {
  'POST /v1/chat/completions': { path: '/v1/chat/completions', wireFormat: 'openai-chat', types: OPENAI },
  'POST /v1/responses': { path: '/v1/responses', wireFormat: 'openai-responses', types: OPENAI },
  'POST /v1/messages': { path: '/v1/messages', wireFormat: 'anthropic-messages', types: ['anthropic'] },
  'POST /v1/messages/count_tokens': {
    path: '/v1/messages/count_tokens',
    wireFormat: null,
    types: ['anthropic'],
  },
  'GET /v1/models': { path: '/v1/models', wireFormat: null, types: ['anthropic', ...OPENAI] },
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
