import { TurnmillError } from '../protocol/errors.ts'
import type { Secret } from '../protocol/secret.ts'
import { scanForSecrets } from './scan-for-secrets.ts'

/** More than any answer of a model, far less than a process can hold. Counted after decompression. */
export const MAX_ANSWER_BYTES = 32 * 1024 * 1024

/** Reads a provider's answer piece by piece and gives what of it may be passed on. */
export interface BodyGuard {
  /** @throws {TurnmillError} `provider_rejected` beyond `MAX_ANSWER_BYTES`. */
  pass(chunk: Uint8Array): Uint8Array
  /** What was held back until the end. */
  rest(): Uint8Array
}

/** Nothing that passes repeats a credential of the call, wherever chunk borders fall, and however JSON writes it. */
export function createBodyGuard(credentials: readonly Secret[]): BodyGuard {
  const secrets = credentials
    .map(secretOf)
    .filter((secret) => secret !== '')
    .map((secret) => Buffer.from(secret))
  let held: Buffer = Buffer.alloc(0)
  let size = 0
  return {
    pass: (chunk) => {
      size += chunk.byteLength
      if (size > MAX_ANSWER_BYTES) throw tooLong()
      if (secrets.length === 0) return chunk
      const text = held.length === 0 ? toBuffer(chunk) : Buffer.concat([held, chunk])
      const { passed, heldFrom } = scanForSecrets(text, secrets, { isEnd: false })
      // A copy: whoever gets the rest may take its memory.
      held = Buffer.from(text.subarray(heldFrom))
      return passed
    },
    rest: () => scanForSecrets(held, secrets, { isEnd: true }).passed,
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
