import OpenAI, { type ClientOptions } from 'openai'
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
 * Calls through OpenAI's SDK.
 *
 * @param parts what the answer has to have; anything else is an error.
 */
export function createCaller(parts: number, options: ClientOptions): MakeCall {
  const client = new OpenAI({ maxRetries: 0, logLevel: 'off', ...options })
  return (kind) => (kind === 'whole' ? callWhole(client, parts) : callStreamed(client, parts))
}

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
