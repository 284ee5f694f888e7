import type { Database } from '../db/index.ts'
import { attributionHeaders, BYOK_HEADER, ERROR_HEADER, guardBody, type Encryption } from '../models/index.ts'
import { ERRORS, type ErrorCode } from '../protocol/errors.ts'
import type { Caller, Gateway, ProviderType } from '../protocol/routes.ts'
import { Secret } from '../protocol/secret.ts'
import { authorise, type Authorisation } from './authorise.ts'
import { headersFromProvider, headersToProvider } from './headers.ts'

/**
 * The AI gateway: authorises the key of a call, puts the credential in, and forwards.
 *
 * I6 every upstream request carries its caller's key ID; a call that is not authorised makes none.
 * Central credentials are read here, go into the upstream request, and nowhere else.
 */
export interface GatewayOptions {
  db: Database
  encryption: Encryption
  /** How the upstream is reached. */
  fetch: typeof globalThis.fetch
}

type GatewayProvider = NonNullable<Authorisation['provider']>

const PATH = /^\/v1\/gateway\/([a-z0-9]+(?:-[a-z0-9]+)*)(\/v1\/.+)$/

/** What each type of provider answers. */
const ENDPOINTS: Record<ProviderType, ReadonlySet<string>> = {
  openai: new Set(['POST /v1/chat/completions', 'POST /v1/responses', 'GET /v1/models']),
  'openai-compatible': new Set(['POST /v1/chat/completions', 'POST /v1/responses', 'GET /v1/models']),
  anthropic: new Set(['POST /v1/messages', 'POST /v1/messages/count_tokens', 'GET /v1/models']),
}

const MAX_BODY_BYTES = 32 * 1024 * 1024

export function createGateway({ db, encryption, fetch }: GatewayOptions): Gateway {
  return async (request, caller) => {
    const { pathname, search } = new URL(request.url)
    const [, providerName, endpoint] = PATH.exec(pathname) ?? []
    if (providerName === undefined || endpoint === undefined)
      return refuse('not_found', `there is no ${pathname}`)

    const { keyUsable, provider } = await authorise(db, encryption, caller.apiKeyId, providerName)
    if (!keyUsable) return refuse('gateway_unauthorized', 'the API key of this call cannot be used')
    if (provider === null) return refuse('provider_missing', `provider ${providerName} does not exist`)
    if (!provider.enabled) return refuse('provider_disabled', `provider ${providerName} is disabled`)
    if (!ENDPOINTS[provider.type].has(`${request.method} ${endpoint}`))
      return refuse('not_found', `provider ${providerName} has no ${request.method} ${endpoint}`)

    const credential = chooseCredential(request, provider)
    if (credential === null && provider.type !== 'openai-compatible')
      return refuse('provider_auth_failed', `provider ${providerName} has no credential`)
    const body = request.method === 'GET' ? null : await request.arrayBuffer()
    if (body !== null && body.byteLength > MAX_BODY_BYTES)
      return refuse(
        'payload_too_large',
        `the body has ${body.byteLength} bytes, expected at most ${MAX_BODY_BYTES}`,
      )

    const upstream = await fetch(upstreamUrl(provider, endpoint) + search, {
      method: request.method,
      headers: upstreamHeaders(request, caller, provider, credential),
      body,
      redirect: 'manual',
      signal: request.signal,
    })
    return new Response(guardBody(upstream.body, credential), {
      status: upstream.status,
      headers: headersFromProvider(upstream.headers),
    })
  }
}

/** OpenAI's base URL holds the version, Anthropic's does not. */
const upstreamUrl = ({ type, baseUrl }: GatewayProvider, endpoint: string): string =>
  baseUrl + (type === 'anthropic' ? endpoint : endpoint.slice('/v1'.length))

function upstreamHeaders(
  request: Request,
  caller: Caller,
  provider: GatewayProvider,
  credential: Secret | null,
): Headers {
  const headers = headersToProvider(request.headers)
  for (const [name, value] of Object.entries(provider.extraHeaders)) headers.set(name, value)
  if (credential !== null && provider.type === 'anthropic') headers.set('x-api-key', credential.reveal())
  if (credential !== null && provider.type !== 'anthropic')
    headers.set('authorization', `Bearer ${credential.reveal()}`)
  if (provider.attribution)
    for (const [name, value] of attributionHeaders(caller.attribution)) headers.set(name, value)
  return headers
}

/** The user's own key where the call is marked so and the provider takes such keys; else the central one. */
function chooseCredential(request: Request, provider: GatewayProvider): Secret | null {
  const own =
    request.headers.has(BYOK_HEADER) && provider.allowByok ? readAuth(request.headers, provider.type) : null
  return own === null ? provider.centralKey : new Secret(own)
}

/** Anthropic's SDK may send a key in either form. */
function readAuth(headers: Headers, type: ProviderType): string | null {
  const bearer = /^Bearer (.+)$/i.exec(headers.get('authorization') ?? '')?.[1] ?? null
  return type === 'anthropic' ? (headers.get('x-api-key') ?? bearer) : bearer
}

function refuse(code: ErrorCode, message: string): Response {
  const { status } = ERRORS[code]
  return Response.json(
    { error: { type: code, code, message } },
    { status, headers: { [ERROR_HEADER]: code } },
  )
}
