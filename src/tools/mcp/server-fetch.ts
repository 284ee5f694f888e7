import type { GuardedFetch } from '../builtin/web-fetch.ts'

/**
 * What the MCP client is given in place of `fetch`, since a server may lie, dawdle and flood:
 *
 * M1 no redirect is followed: the headers are for one address;
 * M2 an answer is read up to a size, and for a time;
 * M3 a request whose answer ends without a result fails then, and not when its time is up;
 * M4 a request that was cancelled lets go of its connection;
 * M5 a server that asks us, or has us come back for the rest of an answer, is heard a bounded number of times;
 * M6 the stream on which a server may speak unasked is not opened: nothing in it is for us.
 */
export interface ServerFetchOptions {
  fetch: GuardedFetch
  /** How long a request and its answer may take, in ms. */
  timeoutMs: number
  /** The longest answer, in bytes after decompression. */
  maxBytes: number
}

/** How often a server may have us answer it, or resume, on one connection. */
const MAX_FAVOURS = 100

type FetchLike = (url: string | URL, init?: RequestInit) => Promise<Response>

/** What a request says of itself, as far as it matters here. */
interface Rpc {
  method: string | null
  id: string | number | null
  cancels: string | number | null
}

export function createServerFetch({ fetch, timeoutMs, maxBytes }: ServerFetchOptions): FetchLike {
  const calls = new Map<string | number, AbortController>()
  let favours = 0
  return async (url, init = {}) => {
    const resumes = new Headers(init.headers).has('last-event-id')
    if (init.method === 'GET' && !resumes) return new Response(null, { status: 405 })
    const rpc = readRpc(init.body)
    if (resumes || (rpc.method === null && rpc.id !== null)) favours += 1
    if (favours > MAX_FAVOURS) throw new Error('the server asks for too much')
    if (rpc.cancels !== null) calls.get(rpc.cancels)?.abort(cancelled())

    const own = new AbortController()
    const onAbort = (): void => own.abort(init.signal?.reason)
    init.signal?.addEventListener('abort', onAbort, { once: true })
    const timer = setTimeout(() => own.abort(tooSlow(timeoutMs)), timeoutMs)
    const callId = rpc.method === null ? null : rpc.id
    if (callId !== null) calls.set(callId, own)
    const done = (): void => {
      clearTimeout(timer)
      init.signal?.removeEventListener('abort', onAbort)
      if (callId !== null && calls.get(callId) === own) calls.delete(callId)
    }
    try {
      const response = await fetch(String(url), { ...init, signal: own.signal })
      return guard(response, { id: callId, maxBytes, own, done })
    } catch (error) {
      done()
      throw error
    }
  }
}

const cancelled = (): Error => new DOMException('the call was cancelled', 'AbortError')
const tooSlow = (ms: number): Error => new Error(`the server did not answer within ${ms} ms`)

function readRpc(body: unknown): Rpc {
  const none: Rpc = { method: null, id: null, cancels: null }
  if (typeof body !== 'string') return none
  const { method, id, params } = JSON.parse(body) as {
    method?: string
    id?: string | number
    params?: { requestId?: string | number }
  }
  const cancels = method === 'notifications/cancelled' ? (params?.requestId ?? null) : null
  return { method: method ?? null, id: id ?? null, cancels }
}

interface Guarded {
  /** The request that the answer is to, where it is a call. */
  id: string | number | null
  maxBytes: number
  own: AbortController
  /** Called once, when nothing more comes. */
  done(): void
}

function guard(response: Response, guarded: Guarded): Response {
  const { status, statusText } = response
  const leave = (): void => {
    guarded.done()
    guarded.own.abort(cancelled())
  }
  if (status >= 300 && status < 400) {
    leave()
    throw new Error(`the server redirects (${status}), expected an answer`)
  }
  const headers = new Headers([...response.headers])
  if (response.body === null || status === 202 || status === 204) {
    leave()
    return new Response(null, { status, statusText, headers })
  }
  const isStream = /^\s*text\/event-stream\b/i.test(headers.get('content-type') ?? '')
  return new Response(readWithin(response.body, { ...guarded, isStream }), { status, statusText, headers })
}

/** The body up to its limits; where an event stream ends too early, with an ending that says so. */
function readWithin(
  body: ReadableStream<Uint8Array>,
  { id, maxBytes, own, done, isStream }: Guarded & { isStream: boolean },
): ReadableStream<Uint8Array> {
  const reader = body.getReader()
  const resumable = createIdFinder()
  let size = 0
  const next = async (): Promise<Uint8Array | null> => {
    const { done: ended, value } = await reader.read()
    if (ended) return null
    size += value.byteLength
    if (size > maxBytes) throw new Error(`the server's answer is longer than ${maxBytes} bytes`)
    return value
  }
  /** What is read after the end, so that who waits for this very answer waits no longer. */
  const ending = (problem: unknown): Uint8Array | null => {
    if (id === null || (problem === null && resumable.found())) return null
    // A call that was cancelled is answered, so that the client does not resume it.
    if (own.signal.aborted) return lastEvent({ id, result: {} })
    const message = problem === null ? 'the answer ended without a result' : (problem as Error).message
    return lastEvent({ id, error: { code: -32_000, message } })
  }
  return new ReadableStream({
    pull: async (controller) => {
      let problem: unknown = null
      try {
        const chunk = await next()
        if (chunk !== null) {
          if (isStream) resumable.read(chunk)
          controller.enqueue(chunk)
          return
        }
      } catch (error) {
        problem = error
      }
      done()
      const last = isStream ? ending(problem) : null
      own.abort(cancelled())
      if (last !== null) controller.enqueue(last)
      else if (problem !== null) {
        controller.error(problem)
        return
      }
      controller.close()
    },
    cancel: () => {
      done()
      own.abort(cancelled())
    },
  })
}

/** An event of its own, whatever stands unfinished before it. */
const lastEvent = (message: object): Uint8Array =>
  Buffer.from(`\n\nevent: message\ndata: ${JSON.stringify({ jsonrpc: '2.0', ...message })}\n\n`)

/** Whether any event of a stream had an id, from which it can be resumed. */
function createIdFinder(): { read(chunk: Uint8Array): void; found(): boolean } {
  let tail = '\n'
  let found = false
  return {
    read: (chunk) => {
      if (found) return
      const text = tail + Buffer.from(chunk).toString('latin1')
      found = /[\r\n]id: ?[^\r\n ]/.test(text)
      tail = text.slice(-6)
    },
    found: () => found,
  }
}
