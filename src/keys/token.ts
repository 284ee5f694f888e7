import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { API_KEY_FORM } from '../protocol/secret-forms.ts'
import { Secret } from '../protocol/secret.ts'

/** The two halves of `tm_<id>_<secret>`. */
export interface ApiKeyToken {
  /** UUID; public. */
  id: string
  /** 43 characters of base64url: 32 random bytes. */
  secret: string
}

/** `null` for anything that is not of the form, whatever its length. */
export function parseToken(text: string): ApiKeyToken | null {
  const [, hex, secret] = API_KEY_FORM.exec(text) ?? []
  if (hex === undefined || secret === undefined) return null
  return { id: hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5'), secret }
}

export const formatToken = ({ id, secret }: ApiKeyToken): Secret =>
  new Secret(`tm_${id.replaceAll('-', '')}_${secret}`)

export const newTokenSecret = (): string => randomBytes(32).toString('base64url')

/** HMAC-SHA-256 under the deployment's pepper, 32 bytes: a copy of the table alone lets nobody try secrets. */
export const hashTokenSecret = (pepper: Secret, secret: string): Buffer =>
  createHmac('sha256', pepper.reveal()).update(secret).digest()

/** Compares in constant time, after hashing, so that neither length nor content shows in the timing. */
export const sameHash = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && timingSafeEqual(a, b)
