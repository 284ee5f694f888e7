/** What passes to a provider, besides what the gateway sets itself. Anything not named here stays behind. */
const TO_PROVIDER =
  /^(accept|content-type|user-agent|anthropic-(version|beta)|openai-beta|idempotency-key|x-stainless-.+)$/

/** What passes back. */
const FROM_PROVIDER =
  /^(content-type|cache-control|retry-after(-ms)?|x-should-retry|(x-)?request-id|openai-(model|processing-ms|version)|(x|anthropic)-ratelimit-.+)$/

/** A copy with the allowed headers only. */
export const headersToProvider = (headers: Headers): Headers => pick(headers, TO_PROVIDER)

/** A copy with the allowed headers only. */
export const headersFromProvider = (headers: Headers): Headers => pick(headers, FROM_PROVIDER)

function pick(headers: Headers, allowed: RegExp): Headers {
  const ownToConnection = new Set((headers.get('connection') ?? '').split(',').map(toCanonical))
  const kept = new Headers()
  for (const [given, value] of headers) {
    const name = toCanonical(given)
    // The name as it is meant to be written comes first: `-` sorts before `_`.
    if (allowed.test(name) && !ownToConnection.has(name) && !kept.has(name)) kept.set(name, value)
  }
  return kept
}

/** Some servers make no difference between `_` and `-`: a name that differs by it alone is the same name. */
const toCanonical = (name: string): string => name.trim().toLowerCase().replaceAll('_', '-')
