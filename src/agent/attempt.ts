import type { Claim, Spent, StepResult } from '../chats/index.ts'
import type { BuiltRoute } from '../models/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { charactersOf, type MessagePart, type ModelMessage } from '../protocol/messages.ts'
import type { AnswerPart, EndPart, StreamPart } from '../protocol/parts.ts'
import type { CallPlace, Route } from '../protocol/routes.ts'
import { costMicros, NO_USAGE, type Prices, type Usage } from '../protocol/usage.ts'
import type { ModelRequest } from '../providers/contract.ts'
import type { PartWriter } from '../streams/index.ts'
import { createAnswer } from './answer.ts'
import { withDeadlines, type Deadlines } from './deadlines.ts'

/** Everything that an attempt does to the world. */
export interface AttemptEffects {
  /** What the model is shown, oldest first. */
  loadContext(claim: Claim): Promise<ModelMessage[]>
  /** @throws {TurnmillError} failing closed. */
  buildRoute(claim: Claim, place: CallPlace): Promise<BuiltRoute>
  callModel(route: Route, request: ModelRequest, signal: AbortSignal): AsyncIterable<StreamPart>
  /** Where watchers read the parts of one attempt. */
  openParts(claim: Claim, step: number, attempt: number): PartWriter
  deadlines: Deadlines
}

/** One try at a step. */
export interface Attempt {
  claim: Claim
  step: number
  /** 1, 2, … within the step, also over takeovers. */
  number: number
  /** When the claim began, by this process's monotonic clock. */
  startedAt: number
}

/** How a model call ended: an answer to commit, or what to fail with and what it cost all the same. */
export type AttemptOutcome =
  | { type: 'answered'; result: StepResult }
  | { type: 'failed'; error: TurnmillError; spent: Spent }
  /** It was told to stop; `partial` is what there was of the answer, `null` for nothing. Its usage is not in `spent`. */
  | { type: 'interrupted'; partial: StepResult | null; spent: Spent }

export const NOTHING_SPENT: Spent = Object.freeze({ usage: null, costMicros: null })

/** Calls the model once. The route is made for this one call. @throws {TurnmillError} before the model was called. */
export async function runAttempt(
  attempt: Attempt,
  effects: AttemptEffects,
  signal: AbortSignal,
): Promise<AttemptOutcome> {
  const { claim, step, number } = attempt
  const [messages, { route, facts }] = await Promise.all([
    effects.loadContext(claim),
    effects.buildRoute(claim, { step, epoch: claim.epoch, attempt: number }),
  ])
  const request = toModelRequest(claim, messages, facts)
  const parts = effects.openParts(claim, step, number)
  const stream = withDeadlines(
    (callSignal) => effects.callModel(route, request, callSignal),
    effects.deadlines,
    { signal, reasoning: request.reasoningEffort !== null && request.reasoningEffort !== 'none' },
  )
  const collected = await collect(stream, (part) => parts.write(part))
  await parts.flush()
  return toOutcome({ attempt, request, facts, collected })
}

interface Ended {
  attempt: Attempt
  request: ModelRequest
  facts: BuiltRoute['facts']
  collected: Collected
}

function toOutcome(ended: Ended): AttemptOutcome {
  const { ending, parts } = ended.collected
  if (ending.type === 'finish')
    return { type: 'answered', result: toResult(ended, ending.usage, ending.reason) }
  const spent = toSpent(ending.usage, ended.facts.modelConfig.prices)
  if (ending.error.code !== 'turn_interrupted') return { type: 'failed', error: ending.error, spent }
  if (parts.length === 0) return { type: 'interrupted', partial: null, spent }
  const usage = ending.usage ?? estimateUsage(ended.request, parts)
  return { type: 'interrupted', partial: toResult(ended, usage, 'interrupted'), spent: NOTHING_SPENT }
}

export const toSpent = (usage: Usage | undefined, prices: Prices): Spent =>
  usage === undefined ? NOTHING_SPENT : { usage, costMicros: costMicros(usage, prices) }

const toResult = ({ attempt, facts, collected }: Ended, usage: Usage, finishReason: string): StepResult => ({
  step: attempt.step,
  parts: collected.parts,
  modelConfigId: facts.modelConfig.id,
  finishReason,
  usage,
  costMicros: costMicros(usage, facts.modelConfig.prices),
  firstPartMs: Math.round((collected.firstPartAt ?? performance.now()) - attempt.startedAt),
})

const toModelRequest = (
  claim: Claim,
  messages: readonly ModelMessage[],
  { modelConfig }: BuiltRoute['facts'],
): ModelRequest => ({
  model: modelConfig.model,
  system: claim.systemPrompt,
  messages,
  tools: [],
  maxOutputTokens: modelConfig.maxOutputTokens,
  temperature: modelConfig.options.temperature ?? null,
  reasoningEffort: claim.reasoningEffort ?? modelConfig.options.reasoningEffort ?? null,
})

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
