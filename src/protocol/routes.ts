import type { Readable } from 'node:stream'
import type { Secret } from './secret.ts'
import type { Usage } from './usage.ts'

export const PROVIDER_TYPES = ['openai', 'anthropic', 'openai-compatible'] as const
export type ProviderType = (typeof PROVIDER_TYPES)[number]

/** Whose models can use a computer. */
export const COMPUTER_PROVIDER_TYPES: readonly ProviderType[] = ['anthropic', 'openai']

export type WireFormat = 'openai-responses' | 'openai-chat' | 'anthropic-messages'

/** Why a model is called. */
export const PURPOSES = [
  'chat',
  'title',
  'quickgen',
  'advisor',
  'compaction',
  'subagent_general',
  'subagent_explore',
  'computer_use',
] as const
export type Purpose = (typeof PURPOSES)[number]

/** What a call is made for; goes to the upstream as `x-turnmill-*` where its attribution is on. */
export interface Attribution {
  apiKeyId: string | null
  chatId: string | null
  turnId: string | null
  /** `null` for a caller from outside. */
  purpose: Purpose | null
}

/** Which attempt of a turn makes the call. */
export interface CallPlace {
  step: number
  epoch: number
  attempt: number
}

export interface RouteProvider {
  id: string
  name: string
  type: ProviderType
  baseUrl: string
  attribution: boolean
}

interface RouteBase {
  provider: RouteProvider
  wireFormat: WireFormat
  modelConfigId: string
  /** The model's name at its provider. */
  model: string
  attribution: Attribution
  place: CallPlace | null
  /** What is sent and answered is written down, for the owner of the chat to read. */
  recordHttp?: boolean
}

/** Through the AI gateway, under a delegated key ID. `byok` is the user's own provider key, when it is to be used. */
export interface GatewayRoute extends RouteBase {
  kind: 'gateway'
  delegatedKeyId: string
  byok: Secret | null
}

/** Straight to the provider with its credential; `null` for a provider that takes none. */
export interface DirectRoute extends RouteBase {
  kind: 'direct'
  /** What the provider is sent with every call beside what the call says; the gateway knows them by itself. */
  extraHeaders: Readonly<Record<string, string>>
  credential: Secret | null
  credentialKind: 'byok' | 'central'
}

export type Route = GatewayRoute | DirectRoute

/** Who calls the gateway. In-process only: the key ID travels as a value, never as a header. */
export interface DelegatedCaller {
  kind: 'delegated'
  apiKeyId: string
  attribution: Attribution
  place: CallPlace | null
  modelConfigId: string
  /** Told of what the books charge the call with, `null` for nothing. At most once; a call that was refused may have none. */
  onCharged?(usage: Usage | null): void
}

/** Somebody outside, who has shown an API key over HTTP. */
export interface KeyCaller {
  kind: 'key'
  apiKeyId: string
  /** Its user agent. */
  client: string | null
}

export type Caller = DelegatedCaller | KeyCaller

/** What is asked of the gateway, read to its end. */
export interface GatewayRequest {
  method: string
  /** `/v1/gateway/{provider}/…`, with its query. */
  target: string
  headers: Headers
  body: Uint8Array | null
  /** Whether somebody still wants an answer. */
  signal: AbortSignal | null
}

/** What comes back: a whole answer at once, a stream as it comes. */
export interface GatewayResponse {
  status: number
  headers: Headers
  /** To be read to its end, or destroyed: that closes the provider's answer. */
  body: Uint8Array | Readable
}

/** The AI gateway: shaped like `fetch`, without its streams, so that an SDK and an HTTP server can call it. */
export type Gateway = (request: GatewayRequest, caller: Caller) => Promise<GatewayResponse>
