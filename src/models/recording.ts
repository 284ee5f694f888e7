import {
  createRedact,
  toRecordedJson,
  toRecordedText,
  BODY_LIMIT,
  BODY_MARGIN,
  type Redact,
} from './recorded-text.ts'
import type { Secret } from '../protocol/secret.ts'

type Fetch = typeof globalThis.fetch

type Ending = RecordedResponse['ending']

/** What was sent. `body` is its JSON, or text where it is none or too long. */
export interface RecordedRequest {
  method: string
  path: string
  headers: Record<string, string>
  body: unknown
}

/** What came. Without a status nothing came, and `error` says why. */
export interface RecordedResponse {
  status: number | null
  headers: Record<string, string>
  body: string
  /** `broken` where the connection was, or an abort broke it; `left` where nobody wanted the rest. */
  ending: 'complete' | 'broken' | 'left'
  error?: string
}

/** What is told of a call as it goes. What a recorder throws goes to `onError`, and nowhere else. */
export interface Recorder {
  /** Gives what is to be told of the answer, once. */
  begin(request: RecordedRequest): (response: RecordedResponse) => void
  onError(error: unknown): void
}

/** What is told of headers: nothing that could hold a credential. */
const HEADERS =
  /^(accept|content-type|user-agent|anthropic-(version|beta)|openai-(beta|model|processing-ms|version)|retry-after(-ms)?|(x-)?request-id|(x|anthropic)-ratelimit-.+)$/

/**
 * A fetch that tells what is sent and what comes back, without secrets. The call is as it was: it begins first, its answer
 * is read when and as far as its reader reads it, and fails with what it failed with.
 */
export const recordingFetch =
  (fetch: Fetch, secrets: readonly Secret[], recorder: Recorder): Fetch =>
  async (input, init) => {
    const answer = fetch(input, init)
    const redact = createRedact(secrets)
    const end = beginQuietly(recorder, () => describeRequest(input, init, redact))
    const response = await answer.catch((error: unknown) => {
      end(() => ({ status: null, headers: {}, body: '', ending: 'broken', error: redact(messageOf(error)) }))
      throw error
    })
    return watchResponse(response, redact, end)
  }

/** Told at most once; describing is part of what may fail. */
type End = (describe: () => RecordedResponse) => void

function beginQuietly({ begin, onError }: Recorder, describe: () => RecordedRequest): End {
  let end: ((response: RecordedResponse) => void) | undefined
  try {
    end = begin(describe())
  } catch (error) {
    onError(error)
  }
  return (response) => {
    const told = end
    end = undefined
    try {
      told?.(response())
    } catch (error) {
      onError(error)
    }
  }
}

function describeRequest(
  input: Parameters<Fetch>[0],
  init: RequestInit | undefined,
  redact: Redact,
): RecordedRequest {
  const { url, method, headers } =
    input instanceof Request ? input : { url: String(input), method: 'GET', headers: {} }
  return {
    method: init?.method ?? method,
    path: redact(pathOf(url)),
    headers: pickHeaders(new Headers(init?.headers ?? headers), redact),
    body: describeBody(init?.body, redact),
  }
}

const pathOf = (url: string): string => (URL.canParse(url) ? new URL(url).pathname : '')

/** The SDKs send texts. */
function describeBody(body: RequestInit['body'], redact: Redact): unknown {
  if (body === undefined || body === null) return null
  return typeof body === 'string' ? toRecordedJson(body, redact) : '<no text>'
}

const pickHeaders = (headers: Headers, redact: Redact): Record<string, string> =>
  Object.fromEntries(
    [...headers].filter(([name]) => HEADERS.test(name)).map(([name, value]) => [name, redact(value)]),
  )

const messageOf = (error: unknown): string =>
  typeof error === 'object' && error !== null && 'message' in error ? String(error.message) : String(error)

function watchResponse(response: Response, redact: Redact, end: End): Response {
  const { status, statusText, headers, body } = response
  const toRecorded = (read: ReadBody, ending: Ending, error?: unknown): RecordedResponse => ({
    status,
    headers: pickHeaders(headers, redact),
    body: toRecordedText(read.text(), redact, read.isCut()),
    ending,
    ...(error !== undefined && { error: redact(messageOf(error)) }),
  })
  const watched = body === null ? null : watchBody(body, (...told) => end(() => toRecorded(...told)))
  if (watched === null) end(() => toRecorded(createReadBody(), 'complete'))
  return new Response(watched, { status, statusText, headers })
}

/** The beginning of a body, as far as it was read. */
interface ReadBody {
  add(chunk: Uint8Array): void
  text(): string
  isCut(): boolean
}

function createReadBody(): ReadBody {
  const chunks: Uint8Array[] = []
  let size = 0
  return {
    add: (chunk) => {
      if (size < BODY_LIMIT + BODY_MARGIN) chunks.push(chunk)
      size += chunk.byteLength
    },
    text: () =>
      Buffer.concat(chunks)
        .subarray(0, BODY_LIMIT + BODY_MARGIN)
        .toString(),
    isCut: () => size > BODY_LIMIT + BODY_MARGIN,
  }
}

/** Reads nothing ahead of its reader. */
function watchBody(
  body: ReadableStream<Uint8Array>,
  onEnd: (read: ReadBody, ending: Ending, error?: unknown) => void,
): ReadableStream<Uint8Array> {
  const reader = body.getReader()
  const read = createReadBody()
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = await reader.read().catch((error: unknown) => {
          onEnd(read, 'broken', error)
          throw error
        })
        if (done) {
          controller.close()
          onEnd(read, 'complete')
          return
        }
        read.add(value)
        controller.enqueue(value)
      },
      async cancel(reason) {
        onEnd(read, 'left')
        await reader.cancel(reason)
      },
    },
    { highWaterMark: 0 },
  )
}
