import type { Claim, ContextMessage, Spent, StepResult } from '../chats/index.ts'
import { clampEffort, type BuiltRoute } from '../models/index.ts'
import type { ErrorCode, TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import { isToolCall, type ModelMessage } from '../protocol/messages.ts'
import type { StreamPart } from '../protocol/parts.ts'
import type { CallPlace } from '../protocol/routes.ts'
import type { ToolDefinition } from '../protocol/tools.ts'
import { costMicros, NO_USAGE, type Usage } from '../protocol/usage.ts'
import type { ModelRequest } from '../providers/contract.ts'
import type { PartWriter } from '../streams/index.ts'
import {
  ASSUMED_WINDOW,
  canCompact,
  compactHistory,
  contextTokens,
  isTooLong,
  tokensLeft,
  type CompactionEffects,
  type CompactionMemory,
  type CompactionOutcome,
} from './compaction.ts'
import { withDeadlines } from './deadlines.ts'
import { collect, NOTHING_SPENT, reasons, toSpent, type Collected } from './model-call.ts'

/** Everything that an attempt does to the world. */
export interface AttemptEffects extends CompactionEffects {
  /** The route of a step's call. @throws {TurnmillError} failing closed. */
  buildRoute(claim: Claim, place: CallPlace): Promise<BuiltRoute>
  /** The messages with the bytes of their images. */
  showImages(claim: Claim, messages: readonly ContextMessage[]): Promise<readonly ModelMessage[]>
  /** What a model is told beside the chat's own system prompt, by what the chat is for. */
  systemPromptOf(claim: Claim): string | null
  /** Where watchers read the parts of one attempt. */
  openParts(claim: Claim, step: number, attempt: number): PartWriter
  addSpent(claim: Claim, spent: Spent): Promise<void>
  /** Called where the history was to be summed up, and the call is made without. */
  onUncompacted(claim: Claim, step: number, error: TurnmillError): void
}

/** One try at a step. */
export interface Attempt {
  claim: Claim
  step: number
  /** 1, 2, … within the step, also over takeovers. */
  number: number
  /** When the claim began, by this process's monotonic clock. */
  startedAt: number
  /** Why the attempt before it failed, if there was one. */
  before: ErrorCode | null
  /** What the model may ask for. */
  tools: readonly ToolDefinition[]
  /** Of this claim of the turn, whatever the step. */
  compactions: CompactionMemory
}

/** How a model call ended: an answer to commit, or what to fail with and what it cost all the same. */
export type AttemptOutcome =
  | { type: 'answered'; result: StepResult }
  /** `shorten`: the history is to be summed up, which the next attempt begins with. */
  | { type: 'failed'; error: TurnmillError; spent: Spent; shorten?: true }
  /** It was told to stop; `partial` is what there was of the answer, `null` for nothing. Its usage is not in `spent`. */
  | { type: 'interrupted'; partial: StepResult | null; spent: Spent }

/**
 * Calls the model once, with the history made to fit: compacted before the call where it is over the threshold, or was
 * refused before. The route is made for this one call.
 *
 * @throws {TurnmillError} before the model was called.
 */
export async function runAttempt(
  attempt: Attempt,
  effects: AttemptEffects,
  signal: AbortSignal,
): Promise<AttemptOutcome> {
  const { claim, step, compactions } = attempt
  const place = { step, epoch: claim.epoch, attempt: attempt.number }
  const load = () => Promise.all([effects.loadContext(claim), effects.buildRoute(claim, place)])
  if (attempt.before === 'context_too_long') compactions.refusedStep = step
  const [messages, built] = await load()
  if (await mustCompact(attempt, messages, built, effects)) {
    const compaction = await compactHistory(attempt, effects, signal)
    if (compaction.type === 'compacted') return callModel(attempt, await load(), effects, signal)
    if (compaction.type === 'interrupted' || !isDispensable(attempt, compaction, signal)) return compaction
    await giveUpCompacting(attempt, compaction, effects)
  }
  const outcome = await callModel(attempt, [messages, built], effects, signal)
  if (outcome.type !== 'failed' || outcome.error.code !== 'context_too_long') return outcome
  return canCompact(claim, messages) ? { ...outcome, shorten: true } : outcome
}

type FailedCompaction = Extract<CompactionOutcome, { type: 'failed' }>

/** Whether the call may be made without the summary: nobody has refused its length, and no other try is due. H4 */
const isDispensable = (
  { step, compactions }: Attempt,
  { shorten }: FailedCompaction,
  signal: AbortSignal,
): boolean => shorten !== true && compactions.refusedStep !== step && !signal.aborted

async function giveUpCompacting(
  { claim, step, compactions }: Attempt,
  { error, spent }: FailedCompaction,
  effects: AttemptEffects,
): Promise<void> {
  compactions.givenUp = true
  effects.onUncompacted(claim, step, error)
  if (spent.usage !== null) await effects.addSpent(claim, spent)
}

/** The share of its window from which on a model is compared with the one that sums up. */
const LOOK_FROM = 0.1

async function mustCompact(
  { claim, step, number, before, compactions }: Attempt,
  messages: readonly ContextMessage[],
  { facts }: BuiltRoute,
  effects: AttemptEffects,
): Promise<boolean> {
  if (!canCompact(claim, messages)) return false
  if (compactions.refusedStep === step) return true
  if (compactions.givenUp) return false
  if (before === 'compaction_failed') return true
  const tokens = contextTokens(messages)
  if (tokens < (facts.modelConfig.contextWindow ?? ASSUMED_WINDOW) * LOOK_FROM) return false
  const place = { step, epoch: claim.epoch, attempt: number }
  // Where no summary can be had, the provider says whether the history is too long.
  const summarizer = await effects.buildRouteFor(claim, 'compaction', place).catch(() => null)
  if (summarizer === null) return false
  const exceeds = (count: number) => isTooLong(count, facts.modelConfig, summarizer.facts.modelConfig)
  return exceeds(tokens) && !exceeds(tokensLeft(claim, messages))
}

async function callModel(
  attempt: Attempt,
  [messages, { route, facts }]: readonly [readonly ContextMessage[], BuiltRoute],
  effects: AttemptEffects,
  signal: AbortSignal,
): Promise<AttemptOutcome> {
  const { claim, step, number } = attempt
  const shown = await effects.showImages(claim, messages)
  const request = toModelRequest(attempt, shown, facts, effects.systemPromptOf(claim))
  const parts = effects.openParts(claim, step, number)
  const stream = withDeadlines(
    (callSignal) => effects.callModel(route, request, callSignal),
    effects.deadlines,
    { signal, reasoning: reasons(request) },
  )
  const answer = withOwnCallIds(request.tools.length === 0 ? withoutTools(stream) : stream, messages, step)
  const collected = await collect(answer, (part) => parts.write(part))
  await parts.flush()
  return toOutcome({ attempt, facts, collected })
}

/** A model that was offered nothing may ask all the same: none of its calls is run, whoever takes the turn over. */
async function* withoutTools(stream: AsyncIterable<StreamPart>): AsyncGenerator<StreamPart> {
  for await (const part of stream)
    yield part.type === 'tool-input-end' ? { ...part, inputError: NOT_OFFERED } : part
}

const NOT_OFFERED = 'No tools were offered: answer in words.'

/** Some providers count the ids of their calls anew with each answer; within a turn each is its own. */
async function* withOwnCallIds(
  stream: AsyncIterable<StreamPart>,
  messages: readonly ContextMessage[],
  step: number,
): AsyncGenerator<StreamPart> {
  const former = step === 1 ? [] : messages.flatMap(({ parts }) => parts.filter(isToolCall))
  const used = new Set(former.map(({ toolCallId }) => toolCallId))
  // What a summary took the place of is not seen here any more.
  const isHidden = step > 1 && messages.some(({ isSummary }) => isSummary)
  const ownId = (given: string): string => {
    let id = isHidden ? `${given}-${randomEnding()}` : given
    while (used.has(id)) id = `${id}-${step}`
    used.add(id)
    return id
  }
  for await (const part of stream)
    yield part.type === 'tool-input-start' ? { ...part, toolCallId: ownId(part.toolCallId) } : part
}

/** Whatever a provider gives, it was not given before. */
const randomEnding = (): string => newId().slice(-12)

interface Ended {
  attempt: Attempt
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
  const usage = ending.usage ?? NO_USAGE
  return { type: 'interrupted', partial: toResult(ended, usage, 'interrupted'), spent: NOTHING_SPENT }
}

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
  { claim, tools }: Attempt,
  messages: readonly ModelMessage[],
  { modelConfig }: BuiltRoute['facts'],
  prompt: string | null,
): ModelRequest => ({
  model: modelConfig.model,
  system: [prompt, claim.systemPrompt].filter((text) => text !== null).join('\n\n') || null,
  messages,
  tools: modelConfig.options.tools === false ? [] : tools,
  maxOutputTokens: modelConfig.maxOutputTokens,
  temperature: modelConfig.options.temperature ?? null,
  reasoningEffort: clampEffort(claim.reasoningEffort, modelConfig.options),
})
