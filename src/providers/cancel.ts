import { TurnmillError } from '../protocol/errors.ts'
import { eventsWithData, type EventFilter } from './filter-events.ts'

/** How long the rest of a body may take that nobody reads any more. */
const DRAIN_MS = 250

type Fetch = typeof globalThis.fetch

/**
 * A fetch whose answer ends when `init.signal` aborts, whatever the fetch beneath does with the signal: the answer is
 * refused while it is awaited, its body errors afterwards. Anthropic's SDK leaves a body that did not come from a
 * socket running on abort, and a gateway in this process may not look at the signal at all.
 *
 * Its reader letting go of it without an abort closes nothing at once: the SDKs do so as soon as they saw an answer's
 * ending, and reading the few bytes after it lets the connection be used again.
 *
 * Of an event stream it passes on the events that have data.
 *
 * Redirects are not followed: a 307 would post the conversation to another host.
 *
 * @throws {TurnmillError} `provider_rejected` for a redirect.
 */
export function cancellable(fetch: Fetch): Fetch {
  return async (input, init) => {
    const signal = init?.signal ?? null
    const response = await untilAborted(fetch(input, { ...init, redirect: 'manual' }), signal)
    await refuseRedirect(response)
    return endOnAbort(response, signal)
  }
}

function untilAborted(answer: Promise<Response>, signal: AbortSignal | null): Promise<Response> {
  if (signal === null) return answer
  const { promise, reject } = Promise.withResolvers<never>()
  const onAbort = () => {
    reject(signal.reason as Error)
    // An answer that still comes has no reader any more.
    answer.then((response) => response.body?.cancel()).catch(ignore)
  }
  if (signal.aborted) onAbort()
  else signal.addEventListener('abort', onAbort, { once: true })
  return Promise.race([answer, promise]).finally(() => signal.removeEventListener('abort', onAbort))
}

async function refuseRedirect(response: Response): Promise<void> {
  const isRedirect = response.type === 'opaqueredirect' || (response.status >= 300 && response.status < 400)
  if (!isRedirect) return
  await response.body?.cancel()
  throw new TurnmillError(
    'provider_rejected',
    `the provider answered ${response.status}, a redirect; redirects are not followed`,
  )
}

function endOnAbort(response: Response, signal: AbortSignal | null): Response {
  if (signal === null || response.body === null) return response
  const { status, statusText, headers } = response
  const events = response.ok && !isJson(headers) ? eventsWithData() : UNFILTERED
  return new Response(bodyUntilAborted(response.body, signal, events), { status, statusText, headers })
}

/** Some servers call their events by a type that is none, but none by that of a whole answer. */
const isJson = (headers: Headers): boolean => /\bjson\b/i.test(headers.get('content-type') ?? '')

const UNFILTERED: EventFilter = { pass: (chunk) => chunk, rest: () => new Uint8Array(0) }

function bodyUntilAborted(
  body: ReadableStream<Uint8Array>,
  signal: AbortSignal,
  events: EventFilter,
): ReadableStream<Uint8Array> {
  const reader = body.getReader()
  let onAbort: () => void = ignore
  const forget = () => signal.removeEventListener('abort', onAbort)
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        onAbort = () => {
          controller.error(signal.reason)
          reader.cancel(signal.reason).catch(ignore)
        }
        if (signal.aborted) onAbort()
        else signal.addEventListener('abort', onAbort, { once: true })
      },
      async pull(controller) {
        for (;;) {
          const { done, value } = await readOr(reader, forget)
          if (signal.aborted) return
          const passed = done ? events.rest() : events.pass(value)
          if (passed.length > 0) controller.enqueue(passed)
          if (done) {
            forget()
            controller.close()
          }
          if (done || passed.length > 0) return
        }
      },
      cancel() {
        void drain(reader).finally(forget)
      },
    },
    { highWaterMark: 0 },
  )
}

async function readOr(reader: ReadableStreamDefaultReader<Uint8Array>, onError: () => void) {
  try {
    return await reader.read()
  } catch (error) {
    onError()
    throw error
  }
}

async function drain(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
  const timer = setTimeout(() => void reader.cancel().catch(ignore), DRAIN_MS)
  try {
    while (!(await reader.read()).done);
  } catch {
    // It broke where nobody needed it any more.
  } finally {
    clearTimeout(timer)
  }
}

function ignore(): void {
  // Cleaning up after an abort: there is nobody left to tell.
}
