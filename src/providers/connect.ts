import { TurnmillError } from '../protocol/errors.ts'
import { cancellable } from './cancel.ts'
import type { ProviderConnection } from './contract.ts'

type Fetch = typeof globalThis.fetch
type HeaderMap = Readonly<Record<string, string>>

/** What the SDKs are given for a provider that wants no key: they refuse an empty one or look for another. */
const NO_CREDENTIAL = 'none'

const COMMON_HEADERS: HeaderMap = {
  accept: 'application/json',
  'content-type': 'application/json',
  'user-agent': 'turnmill',
}

/**
 * The options of both SDKs that keep the environment, their retries and their console output out of a call.
 *
 * @param own the headers that the wire format needs, the credential's among them.
 * @param signal ends the request and its answer.
 */
export function clientOptions(connection: ProviderConnection, own: HeaderMap, signal: AbortSignal) {
  return {
    apiKey: connection.credential.reveal() || NO_CREDENTIAL,
    baseURL: connection.baseUrl,
    fetch: ownedFetch(connection.fetch, own, signal),
    maxRetries: 0,
    logLevel: 'off',
    // Deadlines are the caller's, by its signal; this is the longest time that a timer can hold, in ms.
    timeout: 2 ** 31 - 1,
  } as const
}

/**
 * A fetch that takes the address and the body from an SDK, nothing else. Both SDKs read `*_CUSTOM_HEADERS` from the
 * environment and let them replace even the credential, both report the machine they run on, and both abort a signal
 * of their own when they let go of an answer, a complete one too.
 */
function ownedFetch(fetch: Fetch, own: HeaderMap, signal: AbortSignal): Fetch {
  const fetchOrCancel = cancellable(fetch)
  const headers = toHeaders(own)
  return (input, init) => fetchOrCancel(input, { ...init, headers, signal })
}

/** The error of the platform would tell the credential. */
function toHeaders(own: HeaderMap): Headers {
  try {
    return new Headers({ ...COMMON_HEADERS, ...own })
  } catch {
    throw new TurnmillError(
      'provider_auth_failed',
      'the credential holds characters that no HTTP header takes',
    )
  }
}

/** `Authorization: Bearer …`, or nothing where the provider wants no key. */
export function bearer({ credential }: ProviderConnection): HeaderMap {
  const value = credential.reveal()
  return value === '' ? {} : { authorization: `Bearer ${value}` }
}

/** `x-api-key: …`, or nothing where the provider wants no key. */
export function apiKeyHeader({ credential }: ProviderConnection): HeaderMap {
  const value = credential.reveal()
  return value === '' ? {} : { 'x-api-key': value }
}
