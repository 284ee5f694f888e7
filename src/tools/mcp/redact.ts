import type { HeaderValues } from './servers.ts'

export type Redact = <T>(json: T) => T

/** A shorter one is a word, and stands in answers for itself. */
const MIN_SECRET = 8

/** Takes the values of headers out of what a server answers, which may repeat them. */
export function createRedactor(headers: HeaderValues): Redact {
  const values = Object.values(headers).map((value) => value.reveal())
  // Also without what precedes it, as in `Bearer …`.
  const secrets = values
    .flatMap((value) => [value, ...value.split(/\s+/)])
    .filter((value) => value.length >= MIN_SECRET)
  if (secrets.length === 0) return (json) => json
  const redactText = (text: string): string =>
    secrets.reduce((redacted, secret) => redacted.replaceAll(secret, '<redacted>'), text)
  return (json) => mapTexts(json, redactText) as typeof json
}

function mapTexts(json: unknown, map: (text: string) => string): unknown {
  if (typeof json === 'string') return map(json)
  if (typeof json !== 'object' || json === null) return json
  if (Array.isArray(json)) return json.map((item) => mapTexts(item, map))
  return Object.fromEntries(Object.entries(json).map(([name, field]) => [map(name), mapTexts(field, map)]))
}
