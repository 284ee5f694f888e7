/** What passes to a provider, besides what the gateway sets itself. Anything not named here stays behind. */
const TO_PROVIDER = new Set([
  'accept',
  'content-type',
  'user-agent',
  'anthropic-version',
  'anthropic-beta',
  'openai-beta',
  'idempotency-key',
])

/** What passes back. */
const FROM_PROVIDER = [
  /^content-type$/,
  /^cache-control$/,
  /^retry-after(-ms)?$/,
  /^x-request-id$/,
  /^request-id$/,
  /^openai-(model|processing-ms|version)$/,
  /^x-ratelimit-[a-z-]+$/,
  /^anthropic-ratelimit-[a-z-]+$/,
]

/** A copy with the allowed headers only. */
export function headersToProvider(headers: Headers): Headers {
  const kept = [...headers].filter(([name]) => TO_PROVIDER.has(name) || name.startsWith('x-stainless-'))
  return new Headers(kept)
}

/** A copy with the allowed headers only. */
export function headersFromProvider(headers: Headers): Headers {
  return new Headers([...headers].filter(([name]) => FROM_PROVIDER.some((pattern) => pattern.test(name))))
}
