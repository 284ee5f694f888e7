import { ERROR_HEADER } from '../models/index.ts'
import { ERRORS, type TurnmillError } from '../protocol/errors.ts'
import type { GatewayResponse, ProviderType } from '../protocol/routes.ts'

/** OpenAI's and Anthropic's own names for what their SDKs tell apart. */
const TYPES: Readonly<Partial<Record<number, string>>> = {
  400: 'invalid_request_error',
  401: 'authentication_error',
  402: 'billing_error',
  403: 'permission_error',
  404: 'not_found_error',
  413: 'request_too_large',
  429: 'rate_limit_error',
}

/** Of SDKs for Anthropic; OpenAI's send neither. */
const ANTHROPIC_HEADERS: readonly string[] = ['anthropic-version', 'x-api-key']

/** What tells the shape that a client expects. */
export interface RefusedRequest {
  path: string
  /** In lower case. */
  headerNames: readonly string[]
  /** Of the provider that it names; `null` where nobody has looked it up. */
  type: ProviderType | null
}

/**
 * A refusal of the gateway's own, in the shape of the provider's, so that its SDK knows what to make of it. The SDKs try
 * 408, 409, 429 and all from 500 on again by themselves, unless `x-should-retry` says otherwise.
 */
export function refuse(
  { code, message, retryAfterMs, extensions }: TurnmillError,
  request: RefusedRequest,
): GatewayResponse {
  const { status, recovery } = ERRORS[code]
  const error = { ...extensions, type: TYPES[status] ?? 'api_error', code, message }
  const headers = new Headers({
    'content-type': 'application/json',
    'x-should-retry': String(recovery === 'retry'),
    [ERROR_HEADER]: code,
  })
  if (retryAfterMs !== undefined) headers.set('retry-after', String(Math.ceil(retryAfterMs / 1000)))
  const body = isForAnthropic(request) ? { type: 'error', error } : { error: { ...error, param: null } }
  return { status, headers, body: Buffer.from(JSON.stringify(body)) }
}

/** Most paths are of one wire format; the rest, such as that of the models, is in both APIs or in none. */
function isForAnthropic({ path, headerNames, type }: RefusedRequest): boolean {
  const [, endpoint] = /\/v1\/(messages|chat\/completions|responses)(?:\/|$)/.exec(path) ?? []
  if (endpoint !== undefined) return endpoint === 'messages'
  if (type !== null) return type === 'anthropic'
  return headerNames.some((name) => ANTHROPIC_HEADERS.includes(name))
}
