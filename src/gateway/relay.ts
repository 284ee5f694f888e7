import type { BodyGuard } from '../models/index.ts'
import { isTurnmillError } from '../protocol/errors.ts'

export interface Relay {
  /** Lets through what may be passed on. */
  guard: BodyGuard
  onChunk(chunk: Uint8Array): void
  /** Called once. @param errorCode `null` where the body came to its end. */
  onEnd(errorCode: string | null): void
}

/** A caller that let go of its answer. */
export const CLIENT_CLOSED = 'client_closed'

/**
 * Passes a body on chunk by chunk, at the reader's pace. A reader that lets go closes the source; so does the signal,
 * also where the reader has stopped reading.
 */
export function relayBody(
  body: ReadableStream<Uint8Array> | null,
  signal: AbortSignal,
  { guard, onChunk, onEnd }: Relay,
): ReadableStream<Uint8Array> | null {
  if (body === null) {
    onEnd(null)
    return null
  }
  const reader = body.getReader()
  let ended = false
  let fail: ((reason: unknown) => void) | undefined
  const end = (errorCode: string | null): void => {
    if (!ended) onEnd(errorCode)
    ended = true
    signal.removeEventListener('abort', onAbort)
  }
  const onAbort = (): void => {
    end(codeOf(signal.reason))
    fail?.(signal.reason)
    void reader.cancel(signal.reason).catch(() => undefined)
  }
  signal.addEventListener('abort', onAbort)
  return new ReadableStream<Uint8Array>(
    {
      start: (controller) => {
        fail = (reason) => controller.error(reason)
      },
      pull: async (controller) => {
        try {
          const { passed, done } = await readOn(reader, guard)
          if (passed.length > 0) {
            onChunk(passed)
            controller.enqueue(passed)
          }
          if (!done) return
          end(null)
          controller.close()
        } catch (error) {
          end(codeOf(error))
          controller.error(error)
          void reader.cancel(error).catch(() => undefined)
        }
      },
      cancel: async (reason) => {
        end(CLIENT_CLOSED)
        await reader.cancel(reason)
      },
    },
    { highWaterMark: 0 },
  )
}

/** Reads until there is something to pass on, or nothing left. */
async function readOn(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  guard: BodyGuard,
): Promise<{ passed: Uint8Array; done: boolean }> {
  for (;;) {
    const { done, value } = await reader.read()
    const passed = done ? guard.rest() : guard.pass(value)
    if (done || passed.length > 0) return { passed, done }
  }
}

/** The names of an abort's reason where nobody gave one of ours, and of a signal that timed out. */
const CLOSING = ['AbortError', 'TimeoutError']

/** What ended a call, in a word. */
export const codeOf = (error: unknown): string => {
  if (isTurnmillError(error)) return error.code
  const name = typeof error === 'object' && error !== null && 'name' in error ? error.name : undefined
  return CLOSING.includes(String(name)) ? CLIENT_CLOSED : 'provider_unreachable'
}
