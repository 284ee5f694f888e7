import { asRecord, isRecord } from '../providers/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import type { Asked } from './asked.ts'
import { foldName, limitField, readAsked, UNDERSTOOD } from './asked.ts'
import type { GatewayRequest, ProviderType } from '../protocol/routes.ts'
import type { Endpoint } from './endpoints.ts'

export const MAX_BODY_BYTES = 32 * 1024 * 1024

/** The body of a call, as it came and as it is understood. */
export interface CallBody {
  bytes: Uint8Array | null
  /** `null` for what is no model call. */
  asked: Asked | null
  fields: Record<string, unknown>
}

/** @throws {TurnmillError} `payload_too_large`, `invalid_request`. */
export function readBody({ method, body }: GatewayRequest, { wireFormat }: Endpoint): CallBody {
  if (method === 'GET') return { bytes: null, asked: null, fields: {} }
  const bytes = body ?? new Uint8Array(0)
  if (bytes.byteLength > MAX_BODY_BYTES)
    throw new TurnmillError(
      'payload_too_large',
      `the body has ${bytes.byteLength} bytes, expected at most ${MAX_BODY_BYTES}`,
    )
  if (wireFormat === null) return { bytes, asked: null, fields: {} }
  const fields = parseObject(bytes)
  return { bytes, asked: readAsked(wireFormat, fields), fields }
}

/** Far more than any provider knows. */
const MAX_NAMES = 1000

/** Those of objects at any depth, too: parsing more of them would keep everybody else waiting for seconds. */
const MAX_FIELDS = 500_000

/** Deeper than anybody nests what a model is asked. */
const MAX_DEPTH = 200

function parseObject(bytes: Uint8Array): Record<string, unknown> {
  const { depth, names, fields } = scan(bytes)
  if (names.length > MAX_NAMES || fields > MAX_FIELDS)
    throw new TurnmillError(
      'invalid_request',
      `the body has too many fields, expected at most ${MAX_NAMES}, and ${MAX_FIELDS} with those of its objects`,
    )
  if (depth > MAX_DEPTH)
    throw new TurnmillError('invalid_request', `the body is nested deeper than ${MAX_DEPTH} levels`)
  const value = parse(toText(bytes))
  if (!isRecord(value)) throw new TurnmillError('invalid_request', 'the body is no JSON object, expected one')
  demandOneReading(names.map((name) => String(parse(toText(name)))))
  if (countFields(value) !== fields)
    throw new TurnmillError('invalid_request', 'an object in the body has a field twice, expected each field once') // prettier-ignore
  return value
}

const toText = ({ buffer, byteOffset, byteLength }: Uint8Array): string =>
  Buffer.from(buffer, byteOffset, byteLength).toString('utf8')

function parse(json: string): unknown {
  try {
    return JSON.parse(json)
  } catch {
    return undefined
  }
}

/** How much of a name an error tells. */
const MAX_NAME = 100

/**
 * What is authorised and reserved for has to be what the provider reads: of two fields of a name one takes the first, the
 * other the last, and some take a name however it is written.
 */
function demandOneReading(names: readonly string[]): void {
  const seen = new Set<string>()
  for (const name of names) {
    const understood = UNDERSTOOD.get(foldName(name))
    if (seen.has(name) || (understood !== undefined && name !== understood))
      throw new TurnmillError('invalid_request', `the body has ${name.slice(0, MAX_NAME)} twice or written otherwise, expected each field once`) // prettier-ignore
    seen.add(name)
  }
}

/** Those of what was parsed: one of each name. */
function countFields(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0
  let count = 0
  if (Array.isArray(value)) for (const item of value) count += countFields(item)
  else for (const name in value) count += 1 + countFields((value as Record<string, unknown>)[name])
  return count
}

/** What is to be sent: as it came, but for what the books need. */
export interface SentBody {
  bytes: Uint8Array | null
  /** Whether the answer will end with a chunk of usage that its caller has not asked for. */
  usageAdded: boolean
}

/** @param outputLimit what the books go by, to be written where the model would not read it; `null` to leave it as it is. */
export function prepareBody(
  { bytes, asked, fields }: CallBody,
  { wireFormat }: Endpoint,
  type: ProviderType,
  outputLimit: number | null,
): SentBody {
  if (asked === null || wireFormat === null) return { bytes, usageAdded: false }
  const options = asRecord(fields.stream_options)
  const limit = limitField(wireFormat, type, asked.model)
  // OpenAI's own refuse both names at once; who knows the old one alone would not have read the new one.
  const limitMissing =
    asked.outputLimit === null || (limit === 'max_tokens' && typeof fields[limit] !== 'number')
  const usageAdded = wireFormat === 'openai-chat' && asked.streamed && options.include_usage !== true
  const added = {
    ...(usageAdded ? { stream_options: { ...options, include_usage: true } } : {}),
    ...(outputLimit !== null && limitMissing ? { [limit]: outputLimit } : {}),
  }
  return { bytes: bytes === null ? null : withFields(bytes, fields, added), usageAdded }
}

/** The same bytes with more fields: what was written before stays as it was, numbers that JavaScript cannot hold too. */
function withFields(
  bytes: Uint8Array,
  fields: Record<string, unknown>,
  added: Record<string, unknown>,
): Uint8Array {
  const names = Object.keys(added)
  if (names.length === 0) return bytes
  if (names.some((name) => name in fields)) return Buffer.from(JSON.stringify({ ...fields, ...added }))
  const end = bytes.lastIndexOf(CLOSING_BRACE)
  const more = JSON.stringify(added).slice(1)
  const comma = Object.keys(fields).length === 0 ? '' : ','
  return Buffer.concat([bytes.subarray(0, end), Buffer.from(comma + more)])
}

const [QUOTE, BACKSLASH, COLON, CLOSING_BRACE] = [0x22, 0x5c, 0x3a, 0x7d]
const OPENING = new Set([0x5b, 0x7b])
const CLOSING = new Set([0x5d, CLOSING_BRACE])

interface Scanned {
  depth: number
  /** Of its own fields, with their quotes, as often as they stand there; not all where there are too many. */
  names: Uint8Array[]
  /** How many fields its objects have, at any depth. */
  fields: number
}

/**
 * Looks through JSON without parsing it: whoever walks through it later may have no stack for that, and a parser keeps one
 * field of each name.
 */
function scan(bytes: Uint8Array): Scanned {
  const names: Uint8Array[] = []
  let [depth, deepest, fields, inText, begin, end] = [0, 0, 0, false, 0, 0]
  for (let index = 0; index < bytes.length; index++) {
    const byte = bytes[index] ?? 0
    if (inText && byte === BACKSLASH) index++
    else if (byte === QUOTE) {
      inText = !inText
      if (inText) begin = index
      else end = index + 1
    } else if (inText) continue
    else if (OPENING.has(byte)) deepest = Math.max(deepest, ++depth)
    else if (CLOSING.has(byte)) depth--
    else if (byte === COLON) {
      fields++
      if (depth === 1 && names.length <= MAX_NAMES) names.push(bytes.subarray(begin, end))
    }
  }
  return { depth: deepest, names, fields }
}
