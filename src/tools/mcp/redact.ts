import type { HeaderValues } from './servers.ts'
import { unescapeText } from './unescape-text.ts'

export type Redact = <T>(json: T) => T

/** Headers that are there to hold a secret, by their names. */
const SECRET_NAME = /auth|cookie|credential|key|pass|secret|session|signature|token/
/** A shorter one is a word, and stands in answers for itself. */
const MIN_SECRET = 8
/** The same of headers that may as well say something else, as `x-mode: required` does. */
const MIN_UNNAMED_SECRET = 12

const REDACTED = '<redacted>'

/**
 * Takes the secrets among the values of headers out of what a server answers, which may repeat them: out of its texts and
 * the names of its fields, also where a text is JSON and escapes them. A value is one, as a whole and in its parts as in
 * `Bearer …`, from 8 characters on in a header whose name says so (`authorization`, `x-api-key`, `cookie` …), and from 12
 * on in any other.
 */
export function createRedactor(headers: HeaderValues): Redact {
  const secrets = Object.entries(headers).flatMap(([name, value]) => secretsOf(name, value.reveal()))
  if (secrets.length === 0) return (json) => json
  // Where one is a part of another, nothing of the longer one is left.
  secrets.sort((one, other) => other.length - one.length)
  const redactText = (text: string): string => withoutSecrets(text, secrets)
  return (json) => mapTexts(json, redactText, redactText) as typeof json
}

function withoutSecrets(text: string, secrets: readonly string[]): string {
  let redacted = text
  let plain = unescapeText(text)
  for (const secret of secrets) {
    if (!redacted.includes(secret) && !plain.text.includes(secret)) continue
    redacted = withoutEscaped(redacted.replaceAll(secret, REDACTED), secret)
    plain = unescapeText(redacted)
  }
  return redacted
}

/** Finds what is escaped in what it stands for: a pattern of all ways to write a long secret would take long. */
function withoutEscaped(escaped: string, secret: string): string {
  const { text, placeOf } = unescapeText(escaped)
  const pieces: string[] = []
  let end = 0
  for (let at = text.indexOf(secret); at !== -1; at = text.indexOf(secret, at + secret.length)) {
    pieces.push(escaped.slice(end, placeOf(at)), REDACTED)
    end = placeOf(at + secret.length)
  }
  return pieces.join('') + escaped.slice(end)
}

function secretsOf(name: string, value: string): string[] {
  const shortest = SECRET_NAME.test(name.toLowerCase()) ? MIN_SECRET : MIN_UNNAMED_SECRET
  return [value, ...value.split(/\s+/)].filter((part) => part.length >= shortest)
}

/** The same for a schema, whose keys are its language and the names of its fields: they stay, or say that it will not do. */
export function redactSchema<T>(schema: T, redact: Redact): T | null {
  const keys: string[] = []
  const readKey = (key: string): string => {
    keys.push(key)
    return key
  }
  const redacted = mapTexts(schema, redact, readKey) as T
  return keys.some((key) => redact(key) !== key) ? null : redacted
}

type MapText = (text: string) => string

function mapTexts(json: unknown, map: MapText, mapKey: MapText): unknown {
  if (typeof json === 'string') return map(json)
  if (typeof json !== 'object' || json === null) return json
  if (Array.isArray(json)) return json.map((item) => mapTexts(item, map, mapKey))
  return Object.fromEntries(
    Object.entries(json).map(([name, field]) => [mapKey(name), mapTexts(field, map, mapKey)]),
  )
}
