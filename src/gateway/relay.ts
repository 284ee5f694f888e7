import { finished, Readable } from 'node:stream'
import type { BodyGuard } from '../models/index.ts'
import { isTurnmillError } from '../protocol/errors.ts'

export interface Relay {
  /** Lets through what may be passed on. */
  guard: BodyGuard
  /** Takes out what the caller has not asked for; `null` where there is nothing of that kind. */
  hide: BodyGuard | null
  /** Told of what the provider said, before anything is taken out. */
  onChunk(chunk: Uint8Array): void
  /** Called once. @param errorCode `null` where the body came to its end. */
  onEnd(errorCode: string | null): void
}

/** A caller that let go of its answer. */
export const CLIENT_CLOSED = 'client_closed'

const NOTHING = new Uint8Array(0)

/**
 * Passes an answer on as it comes, at the reader's pace: what arrived together leaves together. A reader that destroys it
 * closes the source.
 */
export function relayStream(source: Readable, relay: Relay): Readable {
  const { pass, rest } = through(relay)
  let wanted = false
  /** Gives whether more is wanted. What fails fails the whole. */
  const give = (work: () => Uint8Array): void => {
    try {
      const piece = work()
      if (piece.length > 0) wanted = passing.push(piece)
    } catch (error) {
      passing.destroy(error as Error)
    }
  }
  const take = (): void => {
    while (wanted && !passing.destroyed) {
      const chunk = source.read() as Uint8Array | null
      if (chunk === null) return
      give(() => pass(chunk))
    }
  }
  const passing = new Readable({
    read: () => {
      wanted = true
      take()
    },
    destroy: (error, done) => {
      source.destroy()
      if (error !== null) relay.onEnd(codeOf(error))
      else relay.onEnd(source.readableEnded ? null : CLIENT_CLOSED)
      done(error)
    },
  })
  source.on('readable', take)
  finished(source, (error) => {
    if (error) passing.destroy(error)
    if (passing.destroyed) return
    give(rest)
    passing.push(null)
  })
  return passing
}

/** Reads an answer to its end. @throws what it broke off with. */
export async function relayWhole(source: Readable, relay: Relay): Promise<Uint8Array> {
  const { pass, rest } = through(relay)
  const pieces: Uint8Array[] = []
  try {
    for await (const chunk of source) pieces.push(pass(chunk as Uint8Array))
    pieces.push(rest())
  } catch (error) {
    relay.onEnd(codeOf(error))
    throw error
  }
  relay.onEnd(null)
  return Buffer.concat(pieces)
}

function through({ guard, hide, onChunk }: Relay): BodyGuard {
  const show = (passed: Uint8Array): Uint8Array => {
    if (passed.length === 0) return passed
    onChunk(passed)
    return hide === null ? passed : hide.pass(passed)
  }
  return {
    pass: (chunk) => show(guard.pass(chunk)),
    rest: () => Buffer.concat([show(guard.rest()), hide === null ? NOTHING : hide.rest()]),
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
