import type { Claim, StepResult } from '../chats/index.ts'
import type { BuiltRoute } from '../models/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import type { MessagePart, ModelMessage } from '../protocol/messages.ts'
import type { AnswerPart, StreamPart } from '../protocol/parts.ts'
import type { Route } from '../protocol/routes.ts'
import { costMicros, type Usage } from '../protocol/usage.ts'
import type { ModelRequest } from '../providers/contract.ts'
import type { PartWriter } from '../streams/index.ts'
import { createAnswer } from './answer.ts'
import { withDeadlines, type Deadlines } from './deadlines.ts'

/** Everything a turn does to the world. */
export interface TurnEffects {
  /** What the model is shown, oldest first. */
  loadContext(claim: Claim): Promise<ModelMessage[]>
  /** @throws {TurnmillError} failing closed. */
  buildRoute(claim: Claim): Promise<BuiltRoute>
  callModel(route: Route, request: ModelRequest, signal: AbortSignal): AsyncIterable<StreamPart>
  /** Where watchers read the parts of one attempt. */
  openParts(claim: Claim, step: number, attempt: number): PartWriter
  deadlines: Deadlines
}

/** How a turn's model call ended: an answer to commit, or what to fail with and what it cost all the same. */
export type TurnOutcome =
  | { type: 'answered'; result: StepResult }
  | { type: 'failed'; error: TurnmillError; usage: Usage | null; costMicros: number | null }

/** There are no tools yet, so that a turn is one step, and nothing is retried: one attempt. */
const STEP = 1
const ATTEMPT = 1

/** Runs a claimed turn up to what is to be committed. @throws {TurnmillError} before the model was called. */
export async function runTurn(claim: Claim, effects: TurnEffects, signal: AbortSignal): Promise<TurnOutcome> {
  const startedAt = performance.now()
  demandUsableKey(claim)
  const [messages, { route, facts }] = await Promise.all([
    effects.loadContext(claim),
    effects.buildRoute(claim),
  ])
  const request = toModelRequest(claim, messages, facts)
  const parts = effects.openParts(claim, STEP, ATTEMPT)
  const stream = withDeadlines(
    (callSignal) => effects.callModel(route, request, callSignal),
    effects.deadlines,
    { signal, reasoning: request.reasoningEffort !== null && request.reasoningEffort !== 'none' },
  )
  const collected = await collect(stream, (part) => parts.write(part))
  await parts.flush()
  const cost = collected.usage === null ? null : costMicros(collected.usage, facts.modelConfig.prices)
  if (collected.type === 'failed') return { ...collected, costMicros: cost }
  const { firstPartAt, ...answer } = collected
  const firstPartMs = Math.round((firstPartAt ?? performance.now()) - startedAt)
  return {
    type: 'answered',
    result: { ...answer, step: STEP, modelConfigId: facts.modelConfig.id, costMicros: cost, firstPartMs },
  }
}

/** A key ID that is there is checked in both routing modes; where none is, the route decides. */
function demandUsableKey({ keyState, apiKeyId, ownerActive, chatId }: Claim): void {
  if (keyState === 'invalid')
    throw new TurnmillError(
      'key_revoked',
      `API key ${apiKeyId} is expired or revoked, or its owner is not active`,
    )
  if (!ownerActive) throw new TurnmillError('key_revoked', `the owner of chat ${chatId} is not active`)
}

const toModelRequest = (
  claim: Claim,
  messages: readonly ModelMessage[],
  { modelConfig }: BuiltRoute['facts'],
): ModelRequest => ({
  model: modelConfig.model,
  system: claim.systemPrompt,
  messages,
  maxOutputTokens: modelConfig.maxOutputTokens,
  temperature: modelConfig.options.temperature ?? null,
  reasoningEffort: claim.reasoningEffort ?? modelConfig.options.reasoningEffort ?? null,
})

type Collected =
  | { type: 'answered'; parts: MessagePart[]; finishReason: string; usage: Usage; firstPartAt: number | null }
  | { type: 'failed'; error: TurnmillError; usage: Usage | null }

/** The whole answer is the stream, collected. A failed attempt's text is dropped. */
async function collect(
  stream: AsyncIterable<StreamPart>,
  show: (part: AnswerPart) => void,
): Promise<Collected> {
  const answer = createAnswer()
  let firstPartAt: number | null = null
  for await (const part of stream) {
    if (part.type === 'error') return { type: 'failed', error: part.error, usage: part.usage ?? null }
    if (part.type === 'finish')
      return {
        type: 'answered',
        parts: answer.parts(),
        finishReason: part.reason,
        usage: part.usage,
        firstPartAt,
      }
    firstPartAt ??= performance.now()
    answer.add(part)
    show(part)
  }
  return {
    type: 'failed',
    error: new TurnmillError('provider_stream_broken', 'the stream ended without an ending'),
    usage: null,
  }
}
