import type { Spent } from '../chats/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import type { MessagePart } from '../protocol/messages.ts'
import type { AnswerPart, EndPart, StreamPart } from '../protocol/parts.ts'
import type { Route } from '../protocol/routes.ts'
import { costMicros, type Prices, type Usage } from '../protocol/usage.ts'
import type { ModelRequest } from '../providers/contract.ts'
import { createAnswer } from './answer.ts'
import type { Deadlines } from './deadlines.ts'

/** What a model call does to the world. */
export interface ModelCallEffects {
  callModel(route: Route, request: ModelRequest, signal: AbortSignal): AsyncIterable<StreamPart>
  deadlines: Deadlines
}

/** Whether a request makes its model think before it answers. */
export const reasons = ({ reasoningEffort }: ModelRequest): boolean =>
  reasoningEffort !== null && reasoningEffort !== 'none'

export const NOTHING_SPENT: Spent = Object.freeze({ usage: null, costMicros: null })

export const toSpent = (usage: Usage | undefined, prices: Prices): Spent =>
  usage === undefined ? NOTHING_SPENT : { id: newId(), usage, costMicros: costMicros(usage, prices) }

export interface Collected {
  /** The answer as far as it came. */
  parts: MessagePart[]
  ending: EndPart
  firstPartAt: number | null
}

/** The whole answer is the stream, collected. */
export async function collect(
  stream: AsyncIterable<StreamPart>,
  show: (part: AnswerPart) => void,
): Promise<Collected> {
  const answer = createAnswer()
  let firstPartAt: number | null = null
  for await (const part of stream) {
    if (part.type === 'error' || part.type === 'finish')
      return { parts: answer.parts(), ending: part, firstPartAt }
    firstPartAt ??= performance.now()
    answer.add(part)
    show(part)
  }
  const error = new TurnmillError('provider_stream_broken', 'the stream ended without an ending')
  return { parts: answer.parts(), ending: { type: 'error', error }, firstPartAt }
}
