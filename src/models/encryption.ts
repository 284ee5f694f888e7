import { createCipheriv, createDecipheriv, createSecretKey, randomBytes, type KeyObject } from 'node:crypto'
import { TurnmillError } from '../protocol/errors.ts'
import { parseEncryptionKeys } from '../protocol/secret-forms.ts'
import { Secret } from '../protocol/secret.ts'

/** Where a ciphertext belongs. It decrypts nowhere else, so that rows cannot be swapped. */
export type CipherPlace = { rowId: string } & (
  | { table: 'provider_keys' | 'user_provider_keys'; column: 'encrypted' }
  | { table: 'idempotency_keys'; column: 'response' }
  | { table: 'mcp_servers'; column: 'headers' }
  | { table: 'mcp_user_headers'; column: 'encrypted' }
)

export interface Encryption {
  /** The key that encrypts. */
  readonly currentKeyId: string
  encrypt(place: CipherPlace, plain: Secret): string
  /** @throws {TurnmillError} `secret_unreadable` where the key is unknown, or the ciphertext was changed or moved. */
  decrypt(place: CipherPlace, encrypted: string): Secret
}

/** What does not decrypt. The error is for those who run Turnmill: it may name settings, never a value. */
export interface UnreadableSecret {
  place: CipherPlace
  keyId: string
  error: unknown
}

const ALGORITHM = 'aes-256-gcm'
const NONCE_BYTES = 12
const TAG_BYTES = 16

/**
 * AES-256-GCM with the place as additional data. Form: `<key id>.<nonce>.<ciphertext and tag>`, base64url.
 *
 * @param keys `<id>:<32 bytes in base64>`, several separated by commas; the first encrypts, all decrypt.
 * @param onUnreadable told of what does not decrypt, since whoever asked for it is told little.
 * @throws {Error} naming what is wrong with the keys, never their value.
 */
export function createEncryption(
  keys: Secret,
  onUnreadable: (unreadable: UnreadableSecret) => void = () => undefined,
): Encryption {
  const ring = parseKeys(keys)
  const [current] = ring.keys()
  if (current === undefined)
    throw new Error('TURNMILL_ENCRYPTION_KEYS holds no key, expected <id>:<32 bytes in base64>')
  return {
    currentKeyId: current,
    encrypt: (place, plain) => encryptWith(current, keyOf(ring, current), place, plain),
    decrypt: (place, encrypted) => {
      const [keyId = '', nonce = '', body = ''] = encrypted.split('.')
      try {
        return decryptWith(keyOf(ring, keyId), place, fromBase64(nonce), fromBase64(body))
      } catch (error) {
        onUnreadable({ place, keyId, error })
        throw unreadable(error)
      }
    },
  }
}

const fromBase64 = (text: string): Buffer => Buffer.from(text, 'base64url')

/** For the owner of a chat as well, who can do nothing about it. */
const unreadable = (cause: unknown): TurnmillError =>
  new TurnmillError(
    'secret_unreadable',
    'a stored secret that this needs cannot be decrypted; whoever runs Turnmill finds out which in its log',
    { cause },
  )

const parseKeys = (keys: Secret): Map<string, KeyObject> =>
  new Map(
    parseEncryptionKeys(keys.reveal()).map((key, index) => {
      if (key === null)
        throw new Error(`TURNMILL_ENCRYPTION_KEYS: entry ${index + 1} is not <id>:<32 bytes in base64>`)
      return [key.id, createSecretKey(key.bytes)]
    }),
  )

function keyOf(ring: Map<string, KeyObject>, id: string): KeyObject {
  const key = ring.get(id)
  if (key === undefined)
    throw new Error(
      `a stored secret was encrypted with key ${JSON.stringify(id)}, which TURNMILL_ENCRYPTION_KEYS does not hold`,
    )
  return key
}

const additionalData = ({ table, column, rowId }: CipherPlace): Buffer =>
  Buffer.from(`${table}/${column}/${rowId}`)

function encryptWith(id: string, key: KeyObject, place: CipherPlace, plain: Secret): string {
  const nonce = randomBytes(NONCE_BYTES)
  const cipher = createCipheriv(ALGORITHM, key, nonce).setAAD(additionalData(place))
  const body = Buffer.concat([cipher.update(plain.reveal(), 'utf8'), cipher.final(), cipher.getAuthTag()])
  return `${id}.${nonce.toString('base64url')}.${body.toString('base64url')}`
}

function decryptWith(key: KeyObject, place: CipherPlace, nonce: Buffer, body: Buffer): Secret {
  const decipher = createDecipheriv(ALGORITHM, key, nonce).setAAD(additionalData(place))
  decipher.setAuthTag(body.subarray(body.length - TAG_BYTES))
  const text = decipher.update(body.subarray(0, body.length - TAG_BYTES))
  return new Secret(Buffer.concat([text, decipher.final()]).toString('utf8'))
}
