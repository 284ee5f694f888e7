import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { WireFormat } from '../../src/protocol/routes.ts'
import type {
  AnswerFrames,
  AnswerScript,
  ScriptedCall,
  UpstreamError,
  UpstreamUsage,
} from './fake-upstream-formats.ts'
import { RENDERERS } from './fake-upstream-formats.ts'

export type { ScriptedCall, UpstreamError, UpstreamUsage } from './fake-upstream-formats.ts'

/** Holds a fake provider until the test lets it go on. */
export interface Gate {
  readonly opened: Promise<unknown>
  release(): void
}

export function hold(): Gate {
  const { promise, resolve } = Promise.withResolvers<undefined>()
  return { opened: promise, release: () => resolve(undefined) }
}

/** Streams an answer. Everything is optional: by default `echo: <last user text>`, complete and at once. */
export interface AnswerBehaviour {
  type: 'answer'
  /** Text of the answer; cut into several deltas unless `chunks` says how. */
  text?: string
  chunks?: readonly string[]
  reasoning?: readonly string[]
  finish?: AnswerScript['finish']
  /** Partial counts replace the default ones; null reports none. */
  usage?: Partial<UpstreamUsage> | null
  toolCall?: string
  /** Calls of tools, after the text; without a text and with them, the answer has no text. */
  toolCalls?: readonly ScriptedCall[]
  /** Whether the calls stream at the same time. */
  interleaved?: boolean
  headers?: Record<string, string>
  /** Pause before each delta, in ms. */
  delayMs?: number
  /** Waits here before delta number `gateAt` (0: before the first, after the headers and the opening event). */
  gate?: Gate
  gateAt?: number
  /**
   * What comes after the deltas. `complete` by default; `missing`: the body ends without the format's own ending;
   * `cut`: the socket is destroyed within an event; `malformed`: an event that is no JSON; `error`: an error event;
   * `silence`: nothing more, the socket stays open; `lingering`: complete, but the socket stays open.
   */
  ending?: 'complete' | 'missing' | 'cut' | 'malformed' | 'error' | 'silence' | 'lingering'
  /** The error of `ending: 'error'`. */
  error?: Partial<UpstreamError>
}

/** Answers with a status. `error` is put into the wire format's own shape; `body` is sent as it is. */
export interface StatusBehaviour {
  type: 'status'
  status: number
  headers?: Record<string, string>
  error?: Partial<UpstreamError>
  body?: string
}

/** Says nothing at all, or nothing after the headers of a stream. */
export interface SilenceBehaviour {
  type: 'silence'
  after: 'request' | 'headers'
}

/** Exact events, or a body of any other kind. */
export interface BodyBehaviour {
  type: 'body'
  body: string
  contentType?: string
  /** The socket is destroyed behind it. */
  cut?: boolean
}

export type Behaviour = AnswerBehaviour | StatusBehaviour | SilenceBehaviour | BodyBehaviour

export interface UpstreamRequest {
  /** Counts up from 1. */
  number: number
  method: string
  path: string
  /** Null for a path that is none of the streaming endpoints. */
  wireFormat: WireFormat | null
  /** The client's port: the same for requests that shared a connection. */
  port: number
  /** As received, credentials included. */
  headers: IncomingHttpHeaders
  body: Record<string, unknown>
  /** Text of the last user message. */
  text: string
  /** Resolves when the connection has ended: `early` when the client left before the answer was complete. */
  closed: Promise<{ early: boolean; at: number }>
}

export interface FakeUpstream {
  /** Origin, without a path. */
  url: string
  /** What an adapter or a provider row wants as base URL. */
  baseUrl(wireFormat: WireFormat): string
  requests: readonly UpstreamRequest[]
  /** How to answer from now on. Without one: the default answer. */
  script(behaviour: Behaviour | ((request: UpstreamRequest) => Behaviour)): void
  /** Resolves with request number `n`, from 1, once its body has arrived. */
  waitForRequest(n: number): Promise<UpstreamRequest>
  /** Forgets requests and script; connections that are open stay so. */
  reset(): void
  stop(): Promise<void>
}

/** A provider on 127.0.0.1 that speaks the streaming endpoints of all three wire formats and does what it is told. */
export async function startFakeUpstream(): Promise<FakeUpstream> {
  const state = new UpstreamState()
  const server = createServer((request, response) => void serve(state, request, response))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    url,
    baseUrl: (wireFormat) => (wireFormat === 'anthropic-messages' ? url : `${url}/v1`),
    requests: state.requests,
    script: (behaviour) => (state.behave = typeof behaviour === 'function' ? behaviour : () => behaviour),
    waitForRequest: (n) => state.waitFor(n),
    reset: () => state.reset(),
    stop: async () => {
      server.closeAllConnections()
      if (server.listening) await new Promise((resolve) => server.close(resolve))
    },
  }
}

class UpstreamState {
  readonly requests: UpstreamRequest[] = []
  behave: (request: UpstreamRequest) => Behaviour = defaultBehaviour
  #waiting: { number: number; resolve: (request: UpstreamRequest) => void }[] = []

  add(request: UpstreamRequest): void {
    this.requests.push(request)
    for (const waiter of this.#waiting) if (waiter.number === request.number) waiter.resolve(request)
    this.#waiting = this.#waiting.filter(({ number }) => number !== request.number)
  }

  waitFor(number: number): Promise<UpstreamRequest> {
    const found = this.requests[number - 1]
    if (found !== undefined) return Promise.resolve(found)
    return new Promise((resolve) => this.#waiting.push({ number, resolve }))
  }

  reset(): void {
    this.requests.length = 0
    this.behave = defaultBehaviour
  }
}

const defaultBehaviour = (): Behaviour => ({ type: 'answer' })

async function serve(
  state: UpstreamState,
  incoming: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const closed = closeOf(response)
  const body = await readBody(incoming)
  if (body === null) return
  const request = describe(incoming, body, { number: state.requests.length + 1, closed })
  state.add(request)
  await answer(state.behave(request), request, response)
}

const closeOf = (response: ServerResponse): UpstreamRequest['closed'] =>
  new Promise((resolve) => {
    response.once('close', () => resolve({ early: !response.writableFinished, at: performance.now() }))
  })

/** Null when the client left before its request was complete. */
async function readBody(incoming: IncomingMessage): Promise<string | null> {
  const chunks: Buffer[] = []
  try {
    for await (const chunk of incoming) chunks.push(chunk as Buffer)
    return Buffer.concat(chunks).toString()
  } catch {
    return null
  }
}

function describe(
  incoming: IncomingMessage,
  raw: string,
  rest: Pick<UpstreamRequest, 'number' | 'closed'>,
): UpstreamRequest {
  const path = incoming.url ?? ''
  const wireFormat = formatOf(path)
  const body = (raw === '' ? {} : JSON.parse(raw)) as Record<string, unknown>
  const text = wireFormat === null ? '' : RENDERERS[wireFormat].lastUserText(body)
  return {
    ...rest,
    method: incoming.method ?? '',
    path,
    wireFormat,
    port: incoming.socket.remotePort ?? 0,
    headers: incoming.headers,
    body,
    text,
  }
}

function formatOf(path: string): WireFormat | null {
  const formats = Object.keys(RENDERERS) as WireFormat[]
  return formats.find((format) => RENDERERS[format].path === path) ?? null
}

async function answer(
  behaviour: Behaviour,
  request: UpstreamRequest,
  response: ServerResponse,
): Promise<void> {
  // Other paths than those of a model call say what they are told to, word for word, or nothing.
  if (request.wireFormat === null && (behaviour.type === 'answer' || behaviour.type === 'silence')) {
    response.writeHead(404).end()
    return
  }
  switch (behaviour.type) {
    case 'answer':
      await streamAnswer(behaviour, request, response)
      break
    case 'status':
      sendStatus(behaviour, request.wireFormat ?? 'openai-chat', response)
      break
    case 'silence':
      if (behaviour.after === 'headers') startStream(response)
      break
    case 'body':
      response.writeHead(200, { 'content-type': behaviour.contentType ?? 'text/event-stream' })
      if (behaviour.cut === true) response.write(behaviour.body, () => response.destroy())
      else response.end(behaviour.body)
  }
}

function sendStatus(behaviour: StatusBehaviour, wireFormat: WireFormat, response: ServerResponse): void {
  const error = completeError(behaviour.error)
  const body = behaviour.body ?? JSON.stringify(RENDERERS[wireFormat].errorBody(error))
  response.writeHead(behaviour.status, { 'content-type': 'application/json', ...behaviour.headers })
  response.end(body)
}

const completeError = (error: Partial<UpstreamError> = {}): UpstreamError => ({
  type: 'scripted_error',
  code: null,
  message: 'a scripted error',
  ...error,
})

const startStream = (response: ServerResponse, headers: Record<string, string> = {}): void => {
  response.writeHead(200, { 'content-type': 'text/event-stream', ...headers })
  response.flushHeaders()
}

async function streamAnswer(
  behaviour: AnswerBehaviour,
  request: UpstreamRequest,
  response: ServerResponse,
): Promise<void> {
  const renderer = RENDERERS[request.wireFormat ?? 'openai-chat']
  const frames = renderer.render(scriptOf(behaviour, request))
  startStream(response, behaviour.headers)
  response.write(frames.opening)
  await streamDeltas(behaviour, frames, response)
  if (response.destroyed) return
  const error = renderer.error(completeError(behaviour.error))
  endAnswer(behaviour.ending ?? 'complete', { ...frames, error, malformed: renderer.malformed }, response)
}

async function streamDeltas(
  behaviour: AnswerBehaviour,
  { deltas }: AnswerFrames,
  response: ServerResponse,
): Promise<void> {
  const { gate, gateAt = 0, delayMs = 0 } = behaviour
  for (const [index, delta] of deltas.entries()) {
    if (index === gateAt) await gate?.opened
    if (delayMs > 0) await sleep(delayMs)
    if (response.destroyed) return
    response.write(delta)
  }
  if (gateAt >= deltas.length) await gate?.opened
}

function endAnswer(
  ending: NonNullable<AnswerBehaviour['ending']>,
  frames: AnswerFrames & { error: string; malformed: string },
  response: ServerResponse,
): void {
  switch (ending) {
    case 'complete':
      return void response.end(frames.ending)
    case 'missing':
      return void response.end()
    case 'malformed':
      return void response.end(frames.malformed + frames.ending)
    case 'error':
      return void response.end(frames.error)
    case 'lingering':
      return void response.write(frames.ending)
    case 'cut':
      return void response.write(frames.ending.slice(0, 20), () => response.destroy())
    case 'silence':
      return
  }
}

const DEFAULT_USAGE: UpstreamUsage = { input: 12, cacheRead: 0, cacheWrite: 0, output: 7, reasoning: 0 }

function scriptOf(behaviour: AnswerBehaviour, request: UpstreamRequest): AnswerScript {
  const { chunks, reasoning = [], usage = {}, toolCalls: calls = [], interleaved = false } = behaviour
  const text = behaviour.text ?? (calls.length > 0 ? '' : `echo: ${request.text}`)
  return {
    model: String(request.body.model),
    reasoning,
    chunks: chunks ?? cut(text),
    finish: behaviour.finish ?? (calls.length > 0 ? 'tool_calls' : 'stop'),
    usage: usage && { ...DEFAULT_USAGE, ...usage },
    toolCall: behaviour.toolCall ?? null,
    calls,
    interleaved,
  }
}

/** In about four pieces, between code points. */
function cut(text: string): string[] {
  const points = Array.from(text)
  const size = Math.max(1, Math.ceil(points.length / 4))
  return Array.from({ length: Math.ceil(points.length / size) }, (_, index) =>
    points.slice(index * size, (index + 1) * size).join(''),
  )
}
