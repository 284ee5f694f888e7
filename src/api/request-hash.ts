import { createHash } from 'node:crypto'
import { TurnmillError } from '../protocol/errors.ts'

/**
 * SHA-256 of method, path (its parameters filled in, without the query) and body. The body counts as what it says: two
 * spellings of one JSON value, in the order of its keys or in white space, are the same request; a field that is left
 * out and one that is sent with its default are not.
 *
 * @param body as parsed, before its schema changed it; bytes where the route takes a file; `undefined` where none was sent.
 * @throws {TurnmillError} `invalid_request` where the body is nested too deeply to be written.
 */
export function hashRequest(method: string, url: string, body: unknown): Buffer {
  const [path] = url.split('?')
  return createHash('sha256')
    .update(JSON.stringify([method, path]))
    .update(Buffer.isBuffer(body) ? body : toCanonicalJson(body))
    .digest()
}

function toCanonicalJson(value: unknown): string {
  try {
    return value === undefined ? '' : JSON.stringify(value, sortKeys)
  } catch (error) {
    if (error instanceof RangeError)
      throw new TurnmillError('invalid_request', 'the body is nested too deeply', { cause: error })
    throw error
  }
}

const sortKeys = (_key: string, value: unknown): unknown =>
  typeof value !== 'object' || value === null || Array.isArray(value)
    ? value
    : Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
