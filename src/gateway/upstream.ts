import {
  attributionHeaders,
  BYOK_HEADER,
  setExtraHeaders,
  type ProviderAnswer,
  type SendToProvider,
} from '../models/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import type { Caller, GatewayRequest, ProviderType } from '../protocol/routes.ts'
import { maskSecret, Secret } from '../protocol/secret.ts'
import type { CallSubject, GatewayProvider, StoredCredential } from './authorise.ts'
import { UnavailableError, type Breakers } from './breaker.ts'
import { searchToProvider, type Endpoint } from './endpoints.ts'
import { headersToProvider } from './headers.ts'
import type { KeyHealth } from './key-health.ts'
import { isUnreachable } from './unreachable.ts'
import type { CallLabels } from '../protocol/gateway-observer.ts'

/** A credential of one call. `id` is that of the central key. */
export interface Credential {
  kind: 'central' | 'byok' | 'none'
  id: string | null
  hint: string | null
  secret: Secret | null
}

const NONE: Credential = { kind: 'none', id: null, hint: null, secret: null }

/**
 * The credentials to try, in order: the user's own key alone, where there is one and the provider takes such keys; else
 * the central ones. None for a provider that takes no key; empty where one is needed and there is none.
 */
export function chooseCredentials(
  request: GatewayRequest,
  caller: Caller,
  provider: GatewayProvider,
  health: KeyHealth,
): Credential[] {
  const own = ownCredential(request, caller, provider)
  if (own !== null) return [own]
  const central = health.choose(provider.centralKeys).map(toCentral)
  return central.length === 0 && provider.type === 'openai-compatible' ? [NONE] : central
}

const toCentral = ({ id, hint, reveal }: StoredCredential): Credential => ({
  kind: 'central',
  id,
  hint,
  secret: reveal(),
})

/** A worker brings the user's key along, marked; for callers over HTTP it is looked up. */
function ownCredential(
  request: GatewayRequest,
  caller: Caller,
  provider: GatewayProvider,
): Credential | null {
  if (!provider.allowByok) return null
  if (caller.kind === 'key') {
    const { ownKey } = provider
    return ownKey === null ? null : { kind: 'byok', id: null, hint: ownKey.hint, secret: ownKey.reveal() }
  }
  const brought = request.headers.has(BYOK_HEADER) ? readAuth(request.headers, provider.type) : null
  if (brought === null) return null
  return { kind: 'byok', id: null, hint: maskSecret(brought), secret: new Secret(brought) }
}

/** Anthropic's SDK may send a key in either form. */
function readAuth(headers: Headers, type: ProviderType): string | null {
  const bearer = /^Bearer (.+)$/i.exec(headers.get('authorization') ?? '')?.[1] ?? null
  return type === 'anthropic' ? (headers.get('x-api-key') ?? bearer) : bearer
}

export interface UpstreamCall {
  request: GatewayRequest
  caller: Caller
  provider: GatewayProvider
  endpoint: Endpoint
  /** As the caller names it. */
  subject: Pick<CallSubject, 'model'>
  labels: CallLabels
  body: Uint8Array | null
  signal: AbortSignal
  /** Called before a connection is looked for, with each credential anew. */
  onConnect(): void
  /** Called when a request goes out: from here on it may cost something. */
  onSend(): void
}

/** What answered, and with which credential. */
export interface Upstream {
  answer: ProviderAnswer
  credential: Credential
}

export interface UpstreamEffects {
  sendToProvider: SendToProvider
  health: KeyHealth
  breakers: Breakers
  /** Called when a call goes on with the next key. */
  onFailover(provider: string): void
}

/**
 * Sends the call, with the next key where one is refused: nothing has been sent to the caller by then.
 *
 * @param credentials at least one. @throws what the connection failed with, and `provider_overloaded` where the model is left alone.
 */
export async function callUpstream(
  call: UpstreamCall,
  credentials: readonly Credential[],
  effects: UpstreamEffects,
): Promise<Upstream> {
  const { provider, endpoint, subject, labels } = call
  // Lists of models and counts of tokens say nothing of a model.
  const breakerSubject = endpoint.wireFormat === null ? null : { model: subject.model, labels }
  for (const [index, credential] of credentials.entries()) {
    const sentAt = effects.health.now()
    const answer = await effects.breakers.run(breakerSubject, () =>
      sendOnce(call, credential, effects.sendToProvider),
    )
    const refused = credential.id !== null && effects.health.note(credential.id, answer, sentAt)
    if (!refused || index === credentials.length - 1) return { answer, credential }
    effects.onFailover(provider.name)
    answer.body.destroy()
  }
  throw new TypeError('a call was made without a credential to try')
}

async function sendOnce(
  { request, caller, provider, endpoint, body, signal, onConnect, onSend }: UpstreamCall,
  { secret }: Credential,
  send: SendToProvider,
): Promise<ProviderAnswer> {
  const { method } = request
  const headers = upstreamHeaders(request, caller, provider, secret)
  onConnect()
  const search = searchToProvider(endpoint, searchOf(request))
  const answer = await send(upstreamUrl(provider, endpoint.path) + search, {
    method,
    headers,
    body,
    signal,
    onSend,
  }).catch((error: unknown) => {
    // Whoever left while the connection was being made learns of it, too.
    throw error !== signal.reason && isUnreachable(error)
      ? new UnavailableError(null, { cause: error })
      : error
  })
  const { status } = answer
  if (status < 200 || status > 599) {
    answer.body.destroy()
    throw new TurnmillError('provider_rejected', `provider ${provider.name} answered with status ${status}`)
  }
  if (status === 503 || status === 504) throw new UnavailableError(answer)
  return answer
}

const searchOf = ({ target }: GatewayRequest): string => /\?.*$/s.exec(target)?.[0] ?? ''

/** OpenAI's base URL holds the version; Anthropic's does not have to. */
const upstreamUrl = ({ type, baseUrl }: GatewayProvider, path: string): string =>
  type === 'anthropic' ? baseUrl.replace(/\/v1$/, '') + path : baseUrl + path.slice('/v1'.length)

function upstreamHeaders(
  request: GatewayRequest,
  caller: Caller,
  provider: GatewayProvider,
  secret: Secret | null,
): Headers {
  const headers = headersToProvider(request.headers)
  // It was read as JSON in UTF-8, and is to be read as nothing else.
  if (request.method === 'POST') headers.set('content-type', 'application/json')
  setExtraHeaders(headers, provider.extraHeaders)
  if (secret !== null) setCredential(headers, provider.type, secret)
  if (provider.attribution)
    for (const [name, value] of attributionHeaders(attributionOf(caller))) headers.set(name, value)
  return headers
}

/** The error of the platform would tell the credential. */
function setCredential(headers: Headers, type: ProviderType, secret: Secret): void {
  try {
    if (type === 'anthropic') headers.set('x-api-key', secret.reveal())
    else headers.set('authorization', `Bearer ${secret.reveal()}`)
  } catch {
    throw new TurnmillError(
      'provider_auth_failed',
      'the credential holds characters that no HTTP header takes',
    )
  }
}

const attributionOf = (caller: Caller) =>
  caller.kind === 'delegated'
    ? caller.attribution
    : { apiKeyId: caller.apiKeyId, chatId: null, turnId: null, purpose: null }
