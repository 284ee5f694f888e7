import type OpenAI from 'openai'
import { Secret } from '../../src/protocol/secret.ts'
import type { ProviderConnection } from '../../src/providers/contract.ts'
import { createOpenAiClient } from '../../src/providers/openai-client.ts'
import { nowMs } from './clock.ts'
import { MODEL } from './call-stage.ts'

export const CALL_KINDS = ['whole', 'streamed'] as const
/** Whether the answer comes in one piece. */
export type CallKind = (typeof CALL_KINDS)[number]

/** From the call on, in ms. */
export interface CallTimes {
  /** Until the first bytes of the body were there; of a stream, until the SDK gave its first event. */
  first: number
  /** Until the answer was complete. */
  total: number
}

export type MakeCall = (kind: CallKind) => Promise<CallTimes>

/**
 * Calls through OpenAI's SDK as a worker does: by the worker's own client, one per call, which keeps an answer that is
 * complete from looking like one that was let go of. All contenders are called so, and the clock starts when the client
 * is there, so that it counts for none.
 *
 * @param parts what the answer has to have; anything else is an error.
 */
export const createCaller =
  (parts: number, connection: ProviderConnection): MakeCall =>
  (kind) => {
    const client = createOpenAiClient(connection, new AbortController().signal)
    return kind === 'whole' ? callWhole(client, parts) : callStreamed(client, parts)
  }

/** Over HTTP, by the platform's own fetch. @param headers to be sent as well. */
export const reach = (
  baseUrl: string,
  credential: string,
  headers: Readonly<Record<string, string>> = {},
): ProviderConnection => ({
  baseUrl,
  credential: new Secret(credential),
  fetch: (input, init) => {
    const all = new Headers(init?.headers)
    for (const [name, value] of Object.entries(headers)) all.set(name, value)
    return fetch(input, { ...init, headers: all })
  },
})

const MESSAGES = [
  { role: 'system' as const, content: 'You know everything about mills.' },
  { role: 'user' as const, content: 'How does the mill turn?' },
]

async function callWhole(client: OpenAI, parts: number): Promise<CallTimes> {
  const start = nowMs()
  const response = await client.chat.completions.create({ model: MODEL, messages: MESSAGES }).asResponse()
  const chunks: Uint8Array[] = []
  let first = NaN
  for await (const chunk of response.body ?? []) {
    if (chunks.push(chunk) === 1) first = nowMs() - start
  }
  const answer = JSON.parse(Buffer.concat(chunks).toString()) as OpenAI.ChatCompletion
  const total = nowMs() - start
  demandParts(parts, answer.usage?.completion_tokens)
  return { first, total }
}

async function callStreamed(client: OpenAI, parts: number): Promise<CallTimes> {
  const start = nowMs()
  const stream = await client.chat.completions.create({
    model: MODEL,
    messages: MESSAGES,
    stream: true,
    stream_options: { include_usage: true },
  })
  let first = NaN
  let words = 0
  for await (const { choices } of stream) {
    if (Number.isNaN(first)) first = nowMs() - start
    if (choices[0]?.delta.content !== undefined) words++
  }
  const total = nowMs() - start
  demandParts(parts, words)
  return { first, total }
}

function demandParts(expected: number, found: number | undefined): void {
  if (found !== expected) throw new Error(`an answer had ${found} words, expected ${expected}`)
}
