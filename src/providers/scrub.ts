import { toStorableText } from '../protocol/messages.ts'
import type { Secret } from '../protocol/secret.ts'

const MESSAGE_LIMIT = 300

/** What looks like a credential. Providers like to repeat the key that they refuse, and proxies the headers. */
const CREDENTIALS = [
  /\bBearer\s+[^\s"',;]+/gi,
  /\b(?:x-)?api[-_ ]?key["']?\s*[:=]\s*["']?[^\s"',;]+/gi,
  /\b(?:sk|pk|rk|gsk|xai|tm)[-_][\w.*-]{4,}/g,
  /\bAIza[\w-]{16,}/g,
]

/** A provider's words as they may be stored and shown: storable, at most 300 characters, without credentials. */
export function scrub(text: string, credential: Secret): string {
  const value = credential.reveal()
  const known = value === '' ? text : text.replaceAll(value, '<redacted>')
  const clean = CREDENTIALS.reduce((rest, pattern) => rest.replace(pattern, '<redacted>'), known)
  return toStorableText(clean.length <= MESSAGE_LIMIT ? clean : `${clean.slice(0, MESSAGE_LIMIT - 1)}…`)
}
