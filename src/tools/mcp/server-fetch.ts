import { setImmediate, setTimeout as wait } from 'node:timers/promises'
import type { GuardedFetch } from '../builtin/web-fetch.ts'
import { messageOf } from '../settle-outcome.ts'
import { createAnswerMeter } from './answer-meter.ts'
import { createAnswerProgress, type AnswerProgress } from './answer-progress.ts'

/**
 * What the MCP client is given in place of `fetch`, since a server may lie, dawdle and flood:
 *
 * M1 no redirect is followed: the headers are for one address;
 * M2 an answer is read up to a size and a number of values, lines and messages, and for a time: what goes beyond is not
 *    taken apart, so that no answer keeps the process from everything else;
 * M3 a request whose answer ends without a result, or holds none, fails then, and not when its time is up; one that ends
 *    after an event with an id is resumed from there, and fails once that is refused or its tries are used up;
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
/** How often the rest of an answer is asked for that does not come. */
const MAX_TRIES = 2
/** How long at first we wait before we ask for it, where the server does not say, and how long at most, in ms. */
const RETRY_MS = 500
const MAX_RETRY_MS = 600_000
/** How many values of JSON an answer may hold. Text counts for one, and models are told less than these could say. */
const MAX_VALUES = 50_000
/** How many lines an event stream may have, with some three of them to a message: a long call may tell of its progress. */
const MAX_LINES = 20_000
/** How many messages an answer in JSON may hold. */
const MAX_BATCH = 300

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
  const doFavour = (): void => {
    if (++favours > MAX_FAVOURS) throw new Error('the server asks for too much')
  }
  return async (url, init = {}) => {
    if (init.method === 'GET') return new Response(null, { status: 405 })
    const rpc = readRpc(init.body)
    if (rpc.method === null && rpc.id !== null) doFavour()
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
      const askForRest: Guarded['askForRest'] = async (lastEventId) => {
        doFavour()
        const headers = headersOfRest(init.headers, response.headers, lastEventId)
        return fetch(String(url), { ...init, method: 'GET', body: null, headers, signal: own.signal })
      }
      return await guard(response, { id: callId, maxBytes, own, done, askForRest })
    } catch (error) {
      done()
      throw error
    }
  }
}

function headersOfRest(sent: RequestInit['headers'], answered: Headers, lastEventId: string): Headers {
  const headers = new Headers(sent)
  headers.delete('content-type')
  headers.set('accept', 'text/event-stream')
  headers.set('last-event-id', lastEventId)
  const session = answered.get('mcp-session-id')
  if (session !== null) headers.set('mcp-session-id', session)
  return headers
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
  /** What the server answers to who asks for what comes after an event. @throws {Error} where it does not, or too often. */
  askForRest(lastEventId: string): Promise<Response>
}

async function guard(response: Response, guarded: Guarded): Promise<Response> {
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
  const awaited = response.ok ? guarded.id : null
  if (response.body === null || status === 202 || status === 204) {
    leave()
    if (awaited !== null) throw new Error(`the server answers ${status} and nothing else, expected a result`)
    return new Response(null, { status, statusText, headers })
  }
  const isStream = isEventStream(headers)
  const body = readWithin(response.body, { ...guarded, id: awaited, isStream })
  const read = awaited === null || isStream ? body : await readAnswer(body, awaited)
  return new Response(read, { status, statusText, headers })
}

const isEventStream = (headers: Headers): boolean =>
  /^\s*text\/event-stream\b/i.test(headers.get('content-type') ?? '')

/** An answer that is all there is, as text. @throws {Error} where it is not one to this request. */
async function readAnswer(body: ReadableStream<Uint8Array>, id: string | number): Promise<string> {
  const text = await new Response(body).text()
  const answer = parse(text)
  const messages = Array.isArray(answer) ? answer : [answer]
  if (messages.length > MAX_BATCH) throw new Error(`the server's answer is longer than ${MAX_BATCH} messages`)
  // Of what is no JSON, or is not said to be, the client says so.
  if (answer !== undefined && !messages.some((message) => answers(message, id)))
    throw new Error("the server's answer holds none to the request")
  return text
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** The client takes IDs for numbers, whatever they are written as. */
const answers = (message: unknown, id: string | number): boolean =>
  typeof message === 'object' &&
  message !== null &&
  ('result' in message || 'error' in message) &&
  'id' in message &&
  Number(message.id) === Number(id)

/** The body up to its limits; where an event stream ends too early, with an ending that says so. */
function readWithin(
  body: ReadableStream<Uint8Array>,
  { id, maxBytes, own, done, askForRest, isStream }: Guarded & { isStream: boolean },
): ReadableStream<Uint8Array> {
  let reader = body.getReader()
  const progress =
    isStream && id !== null ? createAnswerProgress((message) => answers(parse(message), id)) : null
  const meter = createAnswerMeter({
    maxBytes,
    maxValues: MAX_VALUES,
    maxLines: isStream ? MAX_LINES : Infinity,
  })
  /** What follows; where the stream has ended too early, the rest of it after a border. */
  const read = async (): Promise<Uint8Array | null> => {
    const { done: ended, value } = await reader.read()
    if (!ended) return value
    const rest = progress === null ? null : await resume(progress, askForRest, own.signal)
    if (rest === null) return null
    reader = rest.getReader()
    return BORDER
  }
  const next = async (): Promise<Uint8Array | null> => {
    const value = await read()
    if (value === null) return null
    meter.add(value)
    progress?.read(value)
    // What came all at once is still read a piece at a time, and others have their turn between two.
    await setImmediate()
    return value
  }
  /** What is read after the end, so that who waits for this very answer waits no longer; who has it takes no notice. */
  const ending = (problem: unknown): Uint8Array | null => {
    if (progress === null) return null
    const message = problem === null ? 'the answer ended without a result' : messageOf(problem)
    return lastEvent({ id, error: { code: -32_000, message } })
  }
  return new ReadableStream({
    pull: async (controller) => {
      let problem: unknown = null
      try {
        const chunk = await next()
        if (chunk !== null) {
          controller.enqueue(chunk)
          return
        }
      } catch (error) {
        problem = error
      }
      done()
      const last = ending(problem)
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

/**
 * The rest of an answer from its last event on; `null` where there is no such event, or no need of a rest.
 *
 * @throws {Error} where the server does not give it.
 */
async function resume(
  progress: AnswerProgress,
  askForRest: Guarded['askForRest'],
  signal: AbortSignal,
): Promise<ReadableStream<Uint8Array> | null> {
  const lastEventId = progress.lastEventId()
  if (progress.isAnswered() || lastEventId === null) return null
  let problem = ''
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    const pause = Math.min(progress.retryMs() ?? RETRY_MS * 2 ** tries, MAX_RETRY_MS)
    await wait(pause, undefined, { signal })
    try {
      const { status, headers, body } = await askForRest(lastEventId)
      if (status === 200 && body !== null && isEventStream(headers)) return body
      await body?.cancel()
      problem = `the server answers ${status}`
      if (status < 500) break
    } catch (error) {
      problem = messageOf(error)
    }
  }
  throw new Error(`the answer ended without a result, and its rest cannot be had: ${problem}`)
}

/** What ends an event that stands unfinished. */
const BORDER = Buffer.from('\n\n')

/** An event of its own, whatever stands unfinished before it. */
const lastEvent = (message: object): Uint8Array =>
  Buffer.from(`\n\nevent: message\ndata: ${JSON.stringify({ jsonrpc: '2.0', ...message })}\n\n`)
