import { asRecord, isRecord } from '../providers/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import type { Asked } from './asked.ts'
import { limitField, readAsked } from './asked.ts'
import type { Endpoint } from './endpoints.ts'

export const MAX_BODY_BYTES = 32 * 1024 * 1024

/** The body of a call, as it came and as it is understood. */
export interface CallBody {
  bytes: Uint8Array<ArrayBuffer> | null
  /** `null` for what is no model call. */
  asked: Asked | null
  fields: Record<string, unknown>
}

/** @throws {TurnmillError} `payload_too_large`, `invalid_request`. */
export async function readBody(request: Request, { wireFormat }: Endpoint): Promise<CallBody> {
  if (request.method === 'GET') return { bytes: null, asked: null, fields: {} }
  const bytes = new Uint8Array(await request.arrayBuffer())
  if (bytes.byteLength > MAX_BODY_BYTES)
    throw new TurnmillError(
      'payload_too_large',
      `the body has ${bytes.byteLength} bytes, expected at most ${MAX_BODY_BYTES}`,
    )
  if (wireFormat === null) return { bytes, asked: null, fields: {} }
  const fields = parseObject(bytes)
  return { bytes, asked: readAsked(wireFormat, fields), fields }
}

/** Deeper than anybody nests what a model is asked. */
const MAX_DEPTH = 200

function parseObject(bytes: Uint8Array): Record<string, unknown> {
  if (depthOf(bytes) > MAX_DEPTH)
    throw new TurnmillError('invalid_request', `the body is nested deeper than ${MAX_DEPTH} levels`)
  try {
    const value: unknown = JSON.parse(
      Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8'),
    )
    if (isRecord(value)) return value
  } catch {
    // Said below.
  }
  throw new TurnmillError('invalid_request', 'the body is no JSON object, expected one')
}

/** What is to be sent: as it came, but for what the books need. */
export interface SentBody {
  bytes: Uint8Array<ArrayBuffer> | null
  /** Whether the answer will end with a chunk of usage that its caller has not asked for. */
  usageAdded: boolean
}

/** @param outputLimit to be written where the body has none; `null` to leave it as it is. */
export function prepareBody(
  { bytes, asked, fields }: CallBody,
  endpoint: Endpoint,
  outputLimit: number | null,
): SentBody {
  const { wireFormat } = endpoint
  if (asked === null || wireFormat === null) return { bytes, usageAdded: false }
  const options = asRecord(fields.stream_options)
  const usageAdded = wireFormat === 'openai-chat' && asked.streamed && options.include_usage !== true
  const added = {
    ...(usageAdded ? { stream_options: { ...options, include_usage: true } } : {}),
    ...(outputLimit !== null && asked.outputLimit === null ? { [limitField(wireFormat)]: outputLimit } : {}),
  }
  if (Object.keys(added).length === 0) return { bytes, usageAdded }
  return { bytes: new Uint8Array(Buffer.from(JSON.stringify({ ...fields, ...added }))), usageAdded }
}

const [QUOTE, BACKSLASH] = [0x22, 0x5c]
const OPENING = new Set([0x5b, 0x7b])
const CLOSING = new Set([0x5d, 0x7d])

/** How deep JSON is nested, without parsing it: whoever walks through it later may have no stack for that. */
function depthOf(bytes: Uint8Array): number {
  let [depth, deepest, inText] = [0, 0, false]
  for (let index = 0; index < bytes.length; index++) {
    const byte = bytes[index] ?? 0
    if (inText && byte === BACKSLASH) index++
    else if (byte === QUOTE) inText = !inText
    else if (!inText && OPENING.has(byte)) deepest = Math.max(deepest, ++depth)
    else if (!inText && CLOSING.has(byte)) depth--
  }
  return deepest
}
