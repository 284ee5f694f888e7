import { Readable } from 'node:stream'
import { TurnmillError } from '../protocol/errors.ts'
import type {
  Attribution,
  DelegatedCaller,
  DirectRoute,
  Gateway,
  GatewayRequest,
  GatewayResponse,
  GatewayRoute,
  Route,
} from '../protocol/routes.ts'
import { Secret } from '../protocol/secret.ts'
import type { Usage } from '../protocol/usage.ts'
import type { ProviderConnection } from '../providers/contract.ts'
import { setExtraHeaders } from './extra-headers.ts'
import { guardBody, guardHeaders } from './guard-response.ts'
import type { ProviderFetch } from './provider-fetch.ts'

/** What the SDK is given where the real credential is not its business. The gateway strips it. */
export const PLACEHOLDER = new Secret('turnmill-placeholder')

/** Tells the gateway, in-process, that the auth header is the user's own provider key and stays. */
export const BYOK_HEADER = 'x-turnmill-byok'

/** Names the error of a gateway that refused by itself; never taken from an upstream. */
export const ERROR_HEADER = 'x-turnmill-error'

/** Never dialled: `fetch` hands every request to the gateway in-process. `.invalid` can have no address (RFC 2606). */
const GATEWAY_ORIGIN = 'http://gateway.turnmill.invalid'

/** How one model call of this route reaches its upstream. @param fetch how a direct route does. */
export const connectRoute = (
  route: Route,
  gateway: Gateway | null,
  fetch: ProviderFetch,
): ProviderConnection =>
  route.kind === 'gateway' ? connectGateway(route, gateway) : connectDirect(route, fetch)

function connectGateway(route: GatewayRoute, gateway: Gateway | null): ProviderConnection {
  if (gateway === null)
    throw new TurnmillError(
      'gateway_unavailable',
      `there is no gateway to reach provider ${route.provider.name}`,
    )
  const charged = Promise.withResolvers<Usage | null>()
  let called = false
  const caller: DelegatedCaller = {
    kind: 'delegated',
    apiKeyId: route.delegatedKeyId,
    attribution: route.attribution,
    place: route.place,
    modelConfigId: route.modelConfigId,
    onCharged: charged.resolve,
  }
  const ask = async (request: GatewayRequest): Promise<GatewayResponse> => {
    called = true
    try {
      const response = await gateway(request, caller)
      if (response.status >= 300) charged.resolve(null)
      return response
    } catch (error) {
      charged.resolve(null)
      throw error
    }
  }
  const version = route.wireFormat === 'anthropic-messages' ? '' : '/v1'
  return {
    provider: route.provider.name,
    baseUrl: `${GATEWAY_ORIGIN}/v1/gateway/${route.provider.name}${version}`,
    credential: route.byok ?? PLACEHOLDER,
    fetch: async (input, init) => {
      const headers = new Headers(init?.headers)
      if (route.byok !== null) headers.set(BYOK_HEADER, '1')
      const answer = await ask({
        method: init?.method ?? 'GET',
        target: urlOf(input).slice(GATEWAY_ORIGIN.length),
        headers,
        body: toBytes(init?.body),
        signal: init?.signal ?? null,
      })
      return new Response(toBody(answer.body), { status: answer.status, headers: answer.headers })
    },
    charge: () => (called ? charged.promise : Promise.resolve(null)),
  }
}

function connectDirect(
  { provider, credential, attribution, extraHeaders }: DirectRoute,
  fetch: ProviderFetch,
): ProviderConnection {
  return {
    provider: provider.name,
    baseUrl: provider.baseUrl,
    credential: credential ?? PLACEHOLDER,
    fetch: async (input, init) => {
      const headers = new Headers(init?.headers)
      setExtraHeaders(headers, extraHeaders)
      if (credential === null) for (const name of ['authorization', 'x-api-key']) headers.delete(name)
      if (provider.attribution)
        for (const [name, value] of attributionHeaders(attribution)) headers.set(name, value)
      return guarded(await fetch(urlOf(input), { ...init, headers }), credential)
    },
  }
}

/** The SDKs send texts. */
function toBytes(body: RequestInit['body']): Uint8Array | null {
  if (body === undefined || body === null) return null
  if (typeof body !== 'string') throw new TypeError('a call had a body that is no text')
  return Buffer.from(body)
}

/** Reads nothing ahead of its reader. */
const toBody = (body: GatewayResponse['body']): Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array> =>
  body instanceof Readable
    ? (Readable.toWeb(body, { strategy: { highWaterMark: 0 } }) as ReadableStream<Uint8Array>)
    : (body as Uint8Array<ArrayBuffer>)

/** The SDKs name the URL, and say everything else beside it. */
const urlOf = (input: string | URL | Request): string =>
  input instanceof Request ? input.url : String(input)

/** What an upstream of one's own is told about a call. */
export function attributionHeaders({
  apiKeyId,
  chatId,
  turnId,
  purpose,
}: Attribution): [name: string, value: string][] {
  const headers: [string, string | null][] = [
    ['x-turnmill-key-id', apiKeyId],
    ['x-turnmill-chat-id', chatId],
    ['x-turnmill-turn-id', turnId],
    ['x-turnmill-purpose', purpose],
  ]
  return headers.flatMap(([name, value]) => (value === null ? [] : [[name, value]]))
}

/** Without the header that only our own gateway may set, and without the credential. */
function guarded(response: Response, credential: Secret | null): Response {
  const headers = guardHeaders(response.headers, credential === null ? [] : [credential])
  headers.delete(ERROR_HEADER)
  // The body is decoded already.
  headers.delete('content-encoding')
  headers.delete('content-length')
  const { status, statusText } = response
  return new Response(guardBody(response.body, credential), { status, statusText, headers })
}
