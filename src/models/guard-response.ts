import { TurnmillError } from '../protocol/errors.ts'
import type { Secret } from '../protocol/secret.ts'

/** More than any answer of a model, far less than a process can hold. Counted after decompression. */
export const MAX_ANSWER_BYTES = 32 * 1024 * 1024

const REDACTED = Buffer.from('<redacted>')

/** Reads a provider's answer piece by piece and gives what of it may be passed on. */
export interface BodyGuard {
  /** @throws {TurnmillError} `provider_rejected` beyond `MAX_ANSWER_BYTES`. */
  pass(chunk: Uint8Array): Uint8Array
  /** What was held back until the end. */
  rest(): Uint8Array
}

/** Nothing that passes repeats a credential of the call, wherever chunk borders fall. */
export function createBodyGuard(credentials: readonly Secret[]): BodyGuard {
  const [first, ...others] = credentials
    .map(secretOf)
    .filter((secret) => secret !== '')
    .flatMap(formsOf)
    .map(createGuardOf)
  return others.reduce(inTurn, first ?? createGuardOf(''))
}

/** As it is, and as JSON writers escape it: PHP's `\/`, Go's `\u0026`. */
function formsOf(secret: string): string[] {
  const asCode = (character: string): string => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
  const escaped = [secret.replaceAll('/', '\\/'), secret.replace(/[&<>]/g, asCode)]
  return [...new Set([secret, ...escaped])]
}

const inTurn = (one: BodyGuard, next: BodyGuard): BodyGuard => ({
  pass: (chunk) => next.pass(one.pass(chunk)),
  rest: () => Buffer.concat([next.pass(one.rest()), next.rest()]),
})

function createGuardOf(text: string): BodyGuard {
  const secret = Buffer.from(text)
  let held: Buffer = Buffer.alloc(0)
  let size = 0
  return {
    pass: (chunk) => {
      size += chunk.byteLength
      if (size > MAX_ANSWER_BYTES) throw tooLong()
      if (secret.length === 0) return chunk
      const text = redact(held.length === 0 ? toBuffer(chunk) : Buffer.concat([held, chunk]), secret)
      const keep = beginningOf(secret, text)
      // A copy: whoever gets the rest may take its memory.
      held = Buffer.from(text.subarray(text.length - keep))
      return text.subarray(0, text.length - keep)
    },
    rest: () => held,
  }
}

/** The same bytes, not a copy. */
const toBuffer = ({ buffer, byteOffset, byteLength }: Uint8Array): Buffer =>
  Buffer.from(buffer, byteOffset, byteLength)

/**
 * A provider's answer as it may be passed on, see `createBodyGuard`. Its body breaks off with `provider_rejected` beyond
 * `MAX_ANSWER_BYTES`.
 */
export function guardBody(
  body: ReadableStream<Uint8Array> | null,
  credential: Secret | null,
): ReadableStream<Uint8Array> | null {
  if (body === null) return null
  const guard = createBodyGuard(credential === null ? [] : [credential])
  return body.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        const passed = guard.pass(chunk)
        if (passed.length > 0) controller.enqueue(passed)
      },
      flush(controller) {
        const rest = guard.rest()
        if (rest.length > 0) controller.enqueue(rest)
      },
    }),
  )
}

/** The same for headers: a value that repeats a credential is none that anybody needs. */
export function guardHeaders(headers: Headers, credentials: readonly Secret[]): Headers {
  const secrets = credentials.map(secretOf).filter((secret) => secret !== '')
  return new Headers([...headers].filter(([, value]) => !secrets.some((secret) => value.includes(secret))))
}

/** A shorter one is no secret but a word, such as `none`, and stands in answers for itself. */
const MIN_SECRET = 12

function secretOf(credential: Secret): string {
  const secret = credential.reveal()
  return secret.length < MIN_SECRET ? '' : secret
}

const tooLong = (): TurnmillError =>
  new TurnmillError('provider_rejected', `the provider's answer is longer than ${MAX_ANSWER_BYTES} bytes`)

function redact(text: Buffer, secret: Buffer): Buffer {
  const pieces: Buffer[] = []
  let start = 0
  for (let at = text.indexOf(secret); at !== -1; at = text.indexOf(secret, start)) {
    pieces.push(text.subarray(start, at), REDACTED)
    start = at + secret.length
  }
  return start === 0 ? text : Buffer.concat([...pieces, text.subarray(start)])
}

/** How many bytes at the end of the text may be the beginning of the secret. */
function beginningOf(secret: Buffer, text: Buffer): number {
  const from = Math.max(0, text.length - secret.length + 1)
  const [first = 0] = secret
  for (let at = text.indexOf(first, from); at !== -1; at = text.indexOf(first, at + 1))
    if (secret.subarray(0, text.length - at).equals(text.subarray(at))) return text.length - at
  return 0
}
