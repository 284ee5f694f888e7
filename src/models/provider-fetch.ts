import { pipeline, Readable, type Transform } from 'node:stream'
import {
  constants,
  createBrotliDecompress,
  createGunzip,
  createInflate,
  createZstdDecompress,
} from 'node:zlib'
import { Agent, request, fetch as undiciFetch, type Dispatcher } from 'undici'
import { isTurnmillError, TurnmillError } from '../protocol/errors.ts'
import { demandDestination, lookUpPublic, type DestinationRules } from './destination.ts'

/**
 * A fetch of a URL, not of a `Request`: one `Request` follows the signal of another only as long as the other is referred
 * to, so that an abort after a garbage collection would reach nobody.
 */
export type ProviderFetch = (url: string, init?: RequestInit) => Promise<Response>

/**
 * The same without the platform's streams, for what is passed on: half the work.
 *
 * @throws what the connection failed with, and the signal's reason.
 */
export type SendToProvider = (url: string, sent: ProviderCall) => Promise<ProviderAnswer>

export interface ProviderCall {
  method: string
  headers: Headers
  body: Uint8Array | null
  /** Ends the request and its answer. While the connection is being made it does not: then no request is sent over it. */
  signal: AbortSignal
  /** Called when the request goes out over a connection that stands: from here on it may cost something. Must not throw. */
  onSend(): void
}

/** What a provider answered, decompressed. Its body is to be read or destroyed. */
export interface ProviderAnswer {
  status: number
  headers: Headers
  body: Readable
}

/** How long a connection may take to be made, in ms. */
const CONNECT_MS = 5000

/** A provider took a request, and answered what nobody can read. */
export class UnreadableAnswerError extends TurnmillError {
  /** Status of the answer, one of success. */
  readonly answered: number
  constructor(message: string, answered: number) {
    super('provider_rejected', message)
    this.answered = answered
  }
}

/** A fetch that reaches providers and nothing else. @throws {TurnmillError} `provider_address_refused`, before anything is sent. */
export function createProviderFetch(rules: DestinationRules): ProviderFetch {
  const dispatcher = createAgent(rules)
  // Its types are those of the package, not of the platform; what they say is the same.
  const send = undiciFetch as unknown as (url: string, init: object) => Promise<Response>
  return async (url, init) => {
    demandDestination(url, rules)
    try {
      return await send(url, { ...init, dispatcher, redirect: 'manual' })
    } catch (error) {
      throw refusalIn(error) ?? error
    }
  }
}

/** Likewise. Redirects are answers. @throws {UnreadableAnswerError} for an encoding that nobody can read. */
export function createSendToProvider(rules: DestinationRules): SendToProvider {
  const agent = createAgent(rules)
  return async (url, { method, headers, body, signal, onSend }) => {
    demandDestination(url, rules)
    const dispatcher = agent.compose(tellOfSending(onSend))
    try {
      const answer = await request(url, { dispatcher, method, headers: [...headers].flat(), body, signal })
      const answered = toHeaders(answer.headers)
      // Whoever reads it hears of it by itself, and whoever destroys it does not want to.
      answer.body.on('error', () => undefined)
      return { status: answer.statusCode, headers: answered, body: decode(answer, answered) }
    } catch (error) {
      throw refusalIn(error) ?? error
    }
  }
}

/** As far as there is something to read: a stream is to be passed on as it comes, and an answer may be cut off. */
const EAGER = { flush: constants.Z_SYNC_FLUSH, finishFlush: constants.Z_SYNC_FLUSH }
const EAGER_BROTLI = {
  flush: constants.BROTLI_OPERATION_FLUSH,
  finishFlush: constants.BROTLI_OPERATION_FLUSH,
}

const DECODERS = new Map<string, () => Transform>([
  ['gzip', () => createGunzip(EAGER)],
  ['x-gzip', () => createGunzip(EAGER)],
  ['deflate', () => createInflate(EAGER)],
  ['br', () => createBrotliDecompress(EAGER_BROTLI)],
  ['zstd', () => createZstdDecompress()],
])

/** What some say of an answer that is as it is. */
const PLAIN: readonly string[] = ['', 'identity', 'none', 'utf-8']

/**
 * Nobody is asked to compress, and some do it all the same. Of a refusal that nobody can read, its status is left.
 * Source: RFC 9110, section 8.4.1
 */
function decode({ body, statusCode }: Dispatcher.ResponseData, headers: Headers): Readable {
  const [name, ...others] = encodingsOf(headers)
  if (name === undefined) return body
  const createDecoder = others.length === 0 ? DECODERS.get(name) : undefined
  if (createDecoder !== undefined) {
    const decoder = createDecoder()
    decoder.on('error', () => undefined)
    return pipeline(body, decoder, () => undefined)
  }
  body.destroy()
  if (statusCode >= 300) return Readable.from([])
  // Not which one: a provider may write the credential there.
  throw new UnreadableAnswerError(
    `the provider answered in an encoding other than ${[...DECODERS.keys()].join(', ')} or none`,
    statusCode,
  )
}

const encodingsOf = (headers: Headers): string[] =>
  (headers.get('content-encoding') ?? '')
    .split(',')
    .map((encoding) => encoding.trim().toLowerCase())
    .filter((encoding) => !PLAIN.includes(encoding))

/** Both of them send through one of these. */
const createAgent = (rules: DestinationRules): Agent =>
  new Agent({
    // Deadlines are the caller's; these would end a long answer.
    headersTimeout: 0,
    bodyTimeout: 0,
    // A call has a connection of its own: what one of them meets is nobody else's business (decisions/0014).
    allowH2: false,
    connect: { timeout: CONNECT_MS, ...(rules.allowPrivate ? {} : { lookup: lookUpPublic(rules) as never }) },
  })

/** A request starts when there is a connection for it. */
const tellOfSending =
  (onSend: () => void): Dispatcher.DispatcherComposeInterceptor =>
  (dispatch) =>
  (options, handler) =>
    dispatch(options, {
      onRequestStart: (controller, context) => {
        handler.onRequestStart?.(controller, context)
        // There it is aborted where its caller has left.
        if (!controller.aborted) onSend()
      },
      onResponseStart: (...given) => handler.onResponseStart?.(...given),
      onResponseData: (...given) => handler.onResponseData?.(...given),
      onResponseEnd: (...given) => handler.onResponseEnd?.(...given),
      onResponseError: (...given) => handler.onResponseError?.(...given),
    })

function toHeaders(given: Readonly<Record<string, string | string[] | undefined>>): Headers {
  const headers = new Headers()
  for (const [name, value] of Object.entries(given))
    if (value !== undefined) headers.set(name, Array.isArray(value) ? value.join(', ') : value)
  return headers
}

/** A refusal of ours is the cause of what a connection fails with. */
function refusalIn(error: unknown): unknown {
  let one = error
  for (let depth = 0; depth < 10 && one instanceof Error; depth++, one = one.cause)
    if (isTurnmillError(one)) return one
  return undefined
}
