/** The forms of secrets that are set from outside: checked where the environment is read, and taken apart where they are used. */

/** `tm_<id>_<secret>`: a UUID in hex, and 32 random bytes in base64url. */
export const API_KEY_FORM = /^tm_([0-9a-f]{32})_([A-Za-z0-9_-]{43})$/

/** One key of `<id>:<32 bytes in base64>`. */
export interface EncryptionKey {
  id: string
  bytes: Buffer
}

/** Several keys are separated by commas; `null` stands for what is none. */
export const parseEncryptionKeys = (text: string): (EncryptionKey | null)[] =>
  text
    .split(',')
    .map((entry) => entry.trim())
    .filter((entry) => entry !== '')
    .map(parseEncryptionKey)

function parseEncryptionKey(entry: string): EncryptionKey | null {
  const [, id, encoded] = /^([a-zA-Z0-9_-]{1,32}):([A-Za-z0-9+/_=-]+)$/.exec(entry) ?? []
  const bytes = Buffer.from(encoded ?? '', 'base64')
  return id === undefined || bytes.length !== 32 ? null : { id, bytes }
}
