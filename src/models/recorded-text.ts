import { toStorableJson, toStorableText } from '../protocol/messages.ts'
import type { Secret } from '../protocol/secret.ts'
import { scrubLine } from '../telemetry/logger.ts'

/** The longest body that is kept, in characters. */
export const BODY_LIMIT = 256 * 1024

/** How much more is read of a body than is kept: what stands across the end of what was read may be half a secret. */
export const BODY_MARGIN = 8 * 1024

const REDACTED = '<redacted>'

/** Shorter ones are words, such as `none`, and stand in texts for themselves. */
const MIN_SECRET = 12

const DATA_URL = /data:([\w.+-]+\/[\w.+-]+);base64,([A-Za-z0-9+/=_-]*)/g
const BASE64 = /(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{512,}={0,2}/g

// `max_tokens` and the like are counts: a token that is a secret is one.
const SECRET_NAME =
  '[\\w.-]*(?:authorization|api[-_]?keys?|passw(?:or)?ds?|secrets?|credentials?|cookies?|private[-_]?keys?|token)'

/** A field of JSON with the value of it: a text, a list or a number. */
const FIELD = new RegExp(
  `"(${SECRET_NAME})"(\\s*:\\s*)(?:"[^"\\\\]*(?:\\\\.[^"\\\\]*)*(?:"|$)|\\[[^\\]]*(?:\\]|$)|-?\\d[\\w.+-]*)`,
  'gis',
)

/** The same in JSON that stands in a text of JSON, as arguments of calls do. */
const FIELD_WITHIN = new RegExp(`(\\\\+)"(${SECRET_NAME})\\1"(\\s*:\\s*)\\1"[^]{0,20000}?(?:\\1"|$)`, 'gi')

/** Gives texts without what must not be kept. */
export type Redact = (text: string) => string

/**
 * Takes out the secrets it is given, what looks like one by its form or by the name of its field, and the bytes of images
 * and files, of which their size is said. What is JSON before is JSON afterwards, but where a list in a list was taken out.
 */
export function createRedact(secrets: readonly Secret[]): Redact {
  const known = secrets.map((secret) => secret.reveal()).filter((value) => value.length >= MIN_SECRET)
  const spelled = known.flatMap((value) => [value, JSON.stringify(value).slice(1, -1)])
  return (text) => {
    const short = text.replace(DATA_URL, sizeOfData).replace(BASE64, sizeOfBase64)
    const unknown = spelled.reduce((rest, value) => rest.replaceAll(value, REDACTED), short)
    return scrubLine(unknown)
      .replace(FIELD, `"$1"$2"${REDACTED}"`)
      .replace(FIELD_WITHIN, `$1"$2$1"$3$1"${REDACTED}$1"`)
  }
}

const sizeOfData = (_: string, type: string, data: string): string => `<${type}, ${decodedSize(data)} bytes>`
const sizeOfBase64 = (data: string): string => `<base64, ${decodedSize(data)} bytes>`
const decodedSize = (data: string): number => Math.floor((data.replace(/=+$/, '').length * 3) / 4)

/**
 * A body as it is kept: redacted, storable, and short.
 *
 * @param isCut whether it goes on behind the text: its end is left out then.
 */
export function toRecordedText(text: string, redact: Redact, isCut = false): string {
  const clean = redact(text)
  const whole = isCut ? clean.slice(0, Math.max(0, clean.length - BODY_MARGIN)) : clean
  if (!isCut && whole.length <= BODY_LIMIT) return toStorableText(whole)
  return `${toStorableText(whole.slice(0, BODY_LIMIT))}… <cut>`
}

/** The same as JSON, where it is JSON and short enough. */
export function toRecordedJson(text: string, redact: Redact): unknown {
  const clean = redact(text)
  if (clean.length > BODY_LIMIT) return toRecordedText(text, redact)
  try {
    return toStorableJson(JSON.parse(clean))
  } catch {
    return toStorableText(clean)
  }
}
