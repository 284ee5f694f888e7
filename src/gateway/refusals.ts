import { ERROR_HEADER } from '../models/index.ts'
import { ERRORS, type TurnmillError } from '../protocol/errors.ts'
import type { GatewayResponse } from '../protocol/routes.ts'

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

/**
 * A refusal of the gateway's own, in the shape of the provider's, so that its SDK knows what to make of it.
 *
 * @param path of the request, from which the shape is told: what names no endpoint of Anthropic's gets OpenAI's.
 */
export function refuse({ code, message, retryAfterMs }: TurnmillError, path: string): GatewayResponse {
  const { status } = ERRORS[code]
  const error = { type: TYPES[status] ?? 'api_error', code, message }
  const headers = new Headers({ 'content-type': 'application/json', [ERROR_HEADER]: code })
  if (retryAfterMs !== undefined) headers.set('retry-after', String(Math.ceil(retryAfterMs / 1000)))
  const body = /\/v1\/messages(\/|$)/.test(path)
    ? { type: 'error', error }
    : { error: { ...error, param: null } }
  return { status, headers, body: Buffer.from(JSON.stringify(body)) }
}
