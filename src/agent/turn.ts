import type { Claim, StepResult } from '../chats/index.ts'
import type { BuiltRoute } from '../models/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { charactersOf, type MessagePart, type ModelMessage } from '../protocol/messages.ts'
import type { AnswerPart, EndPart, StreamPart } from '../protocol/parts.ts'
import type { Route } from '../protocol/routes.ts'
import { costMicros, NO_USAGE, type Usage } from '../protocol/usage.ts'
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
  /** It was told to stop; `partial` is what there was of the answer, `null` for nothing. */
  | { type: 'interrupted'; partial: StepResult | null }

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
  const toResult = (usage: Usage, finishReason: string): StepResult => ({
    step: STEP,
    parts: collected.parts,
    modelConfigId: facts.modelConfig.id,
    finishReason,
    usage,
    costMicros: costMicros(usage, facts.modelConfig.prices),
    firstPartMs: Math.round((collected.firstPartAt ?? performance.now()) - startedAt),
  })
  const { ending } = collected
  if (ending.type === 'finish') return { type: 'answered', result: toResult(ending.usage, ending.reason) }
  const usage = ending.usage ?? null
  if (ending.error.code !== 'turn_interrupted') {
    const spent = usage === null ? null : costMicros(usage, facts.modelConfig.prices)
    return { type: 'failed', error: ending.error, usage, costMicros: spent }
  }
  if (collected.parts.length === 0) return { type: 'interrupted', partial: null }
  return {
    type: 'interrupted',
    partial: toResult(usage ?? estimateUsage(request, collected.parts), 'interrupted'),
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

interface Collected {
  /** The answer as far as it came. */
  parts: MessagePart[]
  ending: EndPart
  firstPartAt: number | null
}

/** The whole answer is the stream, collected. */
async function collect(
  stream: AsyncIterable<StreamPart>,
  show: (part: AnswerPart) => void,
): Promise<Collected> {
  const answer = createAnswer()
  let firstPartAt: number | null = null
  let length = 0
  for await (const part of stream) {
    if (part.type === 'error' || part.type === 'finish')
      return { parts: answer.parts(), ending: part, firstPartAt }
    firstPartAt ??= performance.now()
    length += 'text' in part ? part.text.length : 0
    if (length > MAX_ANSWER_CHARACTERS)
      return { parts: [], ending: { type: 'error', error: tooLong() }, firstPartAt }
    answer.add(part)
    show(part)
  }
  const error = new TurnmillError('provider_stream_broken', 'the stream ended without an ending')
  return { parts: answer.parts(), ending: { type: 'error', error }, firstPartAt }
}

/** More than any model writes, and well within what a row takes. */
const MAX_ANSWER_CHARACTERS = 8_000_000

const tooLong = (): TurnmillError =>
  new TurnmillError('provider_rejected', `the answer is longer than ${MAX_ANSWER_CHARACTERS} characters`)

const CHARACTERS_PER_TOKEN = 4

/** What a call used whose provider was cut off before it could say. */
function estimateUsage(request: ModelRequest, answer: readonly MessagePart[]): Usage {
  const tokensOf = (parts: readonly MessagePart[]): number =>
    Math.ceil(charactersOf(parts) / CHARACTERS_PER_TOKEN)
  const asked = request.messages.reduce((tokens, message) => tokens + tokensOf(message.parts), 0)
  return { ...NO_USAGE, inputTokens: asked, outputTokens: tokensOf(answer), estimated: true }
}
