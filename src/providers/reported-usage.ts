import type { WireFormat } from '../protocol/routes.ts'
import type { Usage } from '../protocol/usage.ts'
import { asCount, asRecord, isRecord } from './outside.ts'

/** What a provider says that a call has used: the `usage` of its answer or of one of its events. */
export type ReadUsage = (usage: unknown) => Usage | undefined

/** What a provider reported, as most of them count: the input with its cached parts, the output with its reasoning. */
interface ReportedUsage {
  inputTokens: number
  outputTokens: number
  cacheReadTokens: number
  cacheWriteTokens: number
  reasoningTokens: number
}

/** Takes the cached parts out of the input, so that the counts no longer overlap. */
function usageOf(reported: ReportedUsage): Usage {
  const { inputTokens, outputTokens, cacheReadTokens, cacheWriteTokens, reasoningTokens } = reported
  return {
    inputTokens: Math.max(0, inputTokens - cacheReadTokens - cacheWriteTokens),
    outputTokens,
    cacheReadTokens,
    cacheWriteTokens,
    reasoningTokens: Math.min(reasoningTokens, outputTokens),
    estimated: false,
  }
}

const isCount = (value: unknown): boolean =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0

/** A report without a single count that can be one says nothing. */
const hasCount = (...counts: unknown[]): boolean => counts.some(isCount)

function readChatUsage(usage: unknown): Usage | undefined {
  if (!isRecord(usage) || !hasCount(usage.prompt_tokens, usage.completion_tokens)) return undefined
  const prompt = asRecord(usage.prompt_tokens_details)
  const reasoning = asCount(asRecord(usage.completion_tokens_details).reasoning_tokens)
  return usageOf({
    inputTokens: asCount(usage.prompt_tokens),
    outputTokens: withReasoning(usage.completion_tokens, usage.prompt_tokens, usage.total_tokens, reasoning),
    cacheReadTokens: asCount(prompt.cached_tokens),
    cacheWriteTokens: asCount(prompt.cache_write_tokens),
    reasoningTokens: reasoning,
  })
}

/**
 * Most count reasoning among the output. Some, xAI and translations of Gemini among them, count it beside, which shows
 * in the total.
 */
function withReasoning(output: unknown, input: unknown, total: unknown, reasoning: number): number {
  const isBeside = asCount(total) - asCount(input) - asCount(output) >= reasoning
  return asCount(output) + (isBeside ? reasoning : 0)
}

function readResponsesUsage(usage: unknown): Usage | undefined {
  if (!isRecord(usage) || !hasCount(usage.input_tokens, usage.output_tokens)) return undefined
  const input = asRecord(usage.input_tokens_details)
  const reasoning = asCount(asRecord(usage.output_tokens_details).reasoning_tokens)
  return usageOf({
    inputTokens: asCount(usage.input_tokens),
    outputTokens: withReasoning(usage.output_tokens, usage.input_tokens, usage.total_tokens, reasoning),
    cacheReadTokens: asCount(input.cached_tokens),
    cacheWriteTokens: asCount(input.cache_write_tokens),
    reasoningTokens: reasoning,
  })
}

/** Anthropic's own counts do not overlap. */
function readMessagesUsage(usage: unknown): Usage | undefined {
  const reported = asRecord(usage)
  if (!hasCount(reported.input_tokens, reported.output_tokens)) return undefined
  return {
    inputTokens: asCount(reported.input_tokens),
    outputTokens: asCount(reported.output_tokens),
    cacheReadTokens: asCount(reported.cache_read_input_tokens),
    cacheWriteTokens: asCount(reported.cache_creation_input_tokens),
    reasoningTokens: asCount(asRecord(reported.output_tokens_details).thinking_tokens),
    estimated: false,
  }
}

export const readUsage: Readonly<Record<WireFormat, ReadUsage>> = {
  'openai-chat': readChatUsage,
  'openai-responses': readResponsesUsage,
  'anthropic-messages': readMessagesUsage,
}

/** Which sides a report counts: it may leave one out, or have something there that is no count. */
export function reportedSides(wireFormat: WireFormat, usage: unknown): { input: boolean; output: boolean } {
  const [input, output] =
    wireFormat === 'openai-chat' ? ['prompt_tokens', 'completion_tokens'] : ['input_tokens', 'output_tokens']
  const reported = asRecord(usage)
  return { input: isCount(reported[input]), output: isCount(reported[output]) }
}

type Highest = (one: Usage, other: Usage) => Usage

const highestOfEach: Highest = (one, other) => ({
  inputTokens: Math.max(one.inputTokens, other.inputTokens),
  outputTokens: Math.max(one.outputTokens, other.outputTokens),
  cacheReadTokens: Math.max(one.cacheReadTokens, other.cacheReadTokens),
  cacheWriteTokens: Math.max(one.cacheWriteTokens, other.cacheWriteTokens),
  reasoningTokens: Math.max(one.reasoningTokens, other.reasoningTokens),
  estimated: false,
})

const allInput = ({ inputTokens, cacheReadTokens, cacheWriteTokens }: Usage): number =>
  inputTokens + cacheReadTokens + cacheWriteTokens

/** Where the whole input is reported, and only later how much of it was in a cache, what was is not counted again. */
const highestOfWhole: Highest = (one, other) => {
  const highest = highestOfEach(one, other)
  const { cacheReadTokens, cacheWriteTokens } = highest
  const whole = Math.max(allInput(one), allInput(other))
  return { ...highest, inputTokens: Math.max(0, whole - cacheReadTokens - cacheWriteTokens) }
}

/** Counts are cumulative, and a proxy may leave some out of an event: the highest of each counts, once. */
export const highestOf: Readonly<Record<WireFormat, Highest>> = {
  'openai-chat': highestOfWhole,
  'openai-responses': highestOfWhole,
  'anthropic-messages': highestOfEach,
}
