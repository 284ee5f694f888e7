/**
 * Headers of an admin's own that go to a provider with every call, such as `anthropic-beta` or `openai-organization`.
 * They are configuration: stored and shown in plain. So neither a credential nor anything that the call itself says may
 * be among them.
 */
export type ExtraHeaders = Readonly<Record<string, string>>

export const MAX_EXTRA_HEADERS = 20

/** Source: RFC 9110, section 5.6.2. */
const NAME = /^[a-z0-9!#$%&'*+.^_`|~-]{1,64}$/
const VALUE = /^[\x21-\x7e](?:[\x20-\x7e]{0,998}[\x21-\x7e])?$/

/** What the call, its connection or a proxy says. */
const TAKEN =
  /^(accept|accept-encoding|connection|content-.+|expect|forwarded|host|http2-settings|idempotency-.+|keep-alive|origin|proxy-.+|referer|sec-.+|te|trailer|trailers|transfer-encoding|upgrade|via|x-forwarded(-.+)?|x-original-.+|x-real-ip|(x|true|cf|fastly)-?(client|connecting|cluster-client)-ip|x-stainless-.+|x-turnmill-.+)$/

/** What names a credential, whoever asks for it. */
const CREDENTIAL =
  /(^|-)(auth|authorization|authentication|bearer|cookie2?|credentials?|jwt|keys?|api-?keys?|passwd|password|secrets?|signature|token)(-|$)/

/** Values that are a credential whatever they are called. */
const SECRET =
  /^(bearer|basic|digest|token)\s|\bsk-[A-Za-z0-9_-]{8,}|\btm_[0-9a-f]{32}_|\beyJ[\w-]+\.eyJ[\w-]+\./i

/**
 * What is wrong with headers that somebody wants to have sent, one text each. Names are compared in lower case, `_` as
 * `-`, since some servers make no difference. A value is never repeated.
 */
export function findBadHeaders(headers: ExtraHeaders): string[] {
  const entries = Object.entries(headers)
  const problems = entries.flatMap(([name, value]) => findBadHeader(name, value) ?? [])
  if (entries.length > MAX_EXTRA_HEADERS) problems.push(`expected at most ${MAX_EXTRA_HEADERS} headers`)
  if (new Set(entries.map(([name]) => toCanonical(name))).size < entries.length)
    problems.push('expected each name once, whatever its case')
  return problems
}

function findBadHeader(name: string, value: string): string | null {
  const canonical = toCanonical(name)
  const shown = JSON.stringify(name.slice(0, 64))
  if (!NAME.test(name.toLowerCase())) return `${shown} is no name of a header`
  if (CREDENTIAL.test(canonical)) return `${shown} names a credential, which belongs to the provider's keys`
  if (TAKEN.test(canonical)) return `${shown} is not for a provider to set`
  if (!VALUE.test(value)) return `the value of ${shown} is not 1 to 1000 characters of printable ASCII`
  if (SECRET.test(value))
    return `the value of ${shown} looks like a credential, which belongs to the provider's keys`
  return null
}

const toCanonical = (name: string): string => name.toLowerCase().replaceAll('_', '-')

/** Writes them into the headers of a call, in place of what its client says. */
export function setExtraHeaders(headers: Headers, extra: ExtraHeaders): void {
  for (const [name, value] of Object.entries(extra)) headers.set(name, value)
}
