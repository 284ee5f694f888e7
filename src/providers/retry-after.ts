/**
 * How long a server asked to be left alone, from the headers of its answer.
 *
 * `retry-after-ms` (OpenAI's own, finer) goes before `retry-after`. What is malformed, negative or a date in the past
 * says nothing.
 *
 * @param now the moment that a date is measured from, in ms since the epoch.
 * @returns milliseconds, or undefined where nothing usable was said.
 * Source: RFC 9110, section 10.2.3
 */
export function parseRetryAfter(headers: Headers, now: number = Date.now()): number | undefined {
  const inMs = parseDecimal(headers.get('retry-after-ms'))
  if (inMs !== undefined) return inMs
  const value = headers.get('retry-after')
  const inSeconds = parseDecimal(value)
  return inSeconds === undefined ? parseFutureDate(value, now) : inSeconds * 1_000
}

function parseDecimal(value: string | null): number | undefined {
  if (value === null || !/^\d{1,12}(\.\d+)?$/.test(value.trim())) return undefined
  return Number(value)
}

/** Only the form that says its zone: `Date.parse` also takes `-1` and would read it as a year. */
function parseFutureDate(value: string | null, now: number): number | undefined {
  if (value === null || !/^[A-Z][a-z]+, .* GMT$/.test(value.trim())) return undefined
  const waitMs = Date.parse(value) - now
  return waitMs > 0 ? waitMs : undefined
}
