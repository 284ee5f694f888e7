import { TurnmillError } from '../protocol/errors.ts'
import type { Secret } from '../protocol/secret.ts'

/** More than any answer of a model, far less than a process can hold. Counted after decompression. */
export const MAX_ANSWER_BYTES = 32 * 1024 * 1024

const REDACTED = Buffer.from('<redacted>')

/**
 * A provider's answer as it may be passed on: nothing in it repeats the credential of the call, wherever chunk borders
 * fall, and its body breaks off with `provider_rejected` beyond `MAX_ANSWER_BYTES`.
 */
export function guardBody(
  body: ReadableStream<Uint8Array> | null,
  credential: Secret | null,
): ReadableStream<Uint8Array> | null {
  if (body === null) return null
  const secret = Buffer.from(secretOf(credential))
  let held: Buffer = Buffer.alloc(0)
  let size = 0
  return body.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        size += chunk.byteLength
        if (size > MAX_ANSWER_BYTES) throw tooLong()
        const text = secret.length === 0 ? Buffer.from(chunk) : redact(Buffer.concat([held, chunk]), secret)
        const keep = beginningOf(secret, text)
        held = text.subarray(text.length - keep)
        if (text.length > keep) controller.enqueue(text.subarray(0, text.length - keep))
      },
      flush(controller) {
        if (held.length > 0) controller.enqueue(held)
      },
    }),
  )
}

/** The same for headers: a value that repeats the credential is none that anybody needs. */
export function guardHeaders(headers: Headers, credential: Secret | null): Headers {
  const secret = secretOf(credential)
  const kept = [...headers].filter(([, value]) => secret === '' || !value.includes(secret))
  return new Headers(kept)
}

/** A shorter one is no secret but a word, such as `none`, and stands in answers for itself. */
const MIN_SECRET = 12

function secretOf(credential: Secret | null): string {
  const secret = credential?.reveal() ?? ''
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
  for (let length = Math.min(secret.length - 1, text.length); length > 0; length--)
    if (text.subarray(text.length - length).equals(secret.subarray(0, length))) return length
  return 0
}
