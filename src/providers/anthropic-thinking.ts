import type { MessageCreateParamsStreaming } from '@anthropic-ai/sdk/resources/messages'
import type { ReasoningEffort } from '../protocol/messages.ts'
import type { ModelRequest } from './contract.ts'

/** What is answered at most where nobody set a limit, in tokens: Anthropic wants one. */
const DEFAULT_ANSWER_TOKENS = 4_096

/** What an answer is left at least beside the thinking, in tokens. */
const LEAST_ANSWER_TOKENS = 1_024

/** Anthropic's least budget, in tokens. */
const LEAST_BUDGET_TOKENS = 1_024

/** How many tokens a model may think for. */
const BUDGETS: Readonly<Record<ReasoningEffort, number>> = {
  none: 0,
  minimal: LEAST_BUDGET_TOKENS,
  low: 2_048,
  medium: 8_192,
  high: 16_384,
}

const EFFORTS = { minimal: 'low', low: 'low', medium: 'medium', high: 'high' } as const

type ThinkingParams = Pick<MessageCreateParamsStreaming, 'max_tokens' | 'thinking' | 'output_config'>

/**
 * How much a model may write and how it is to think. Thinking counts against `max_tokens`.
 *
 * Claude 4.6 and later decide how much they think, by an effort, and from 4.7 on refuse a budget; everything else
 * knows the budget only.
 * Source: https://platform.claude.com/docs/en/build-with-claude/thinking
 */
export function toThinkingParams(request: ModelRequest): ThinkingParams {
  const effort = request.reasoningEffort ?? 'none'
  const max_tokens = request.maxOutputTokens ?? DEFAULT_ANSWER_TOKENS + BUDGETS[effort]
  if (request.reasoningEffort === null) return { max_tokens }
  if (effort === 'none') return { max_tokens, ...withoutThinking(request.model) }
  return { max_tokens, ...(isAdaptive(request.model) ? adaptive(effort) : budgeted(effort, max_tokens)) }
}

/** Whether the request makes the model think, which rules out a temperature. */
export const thinks = ({ thinking }: ThinkingParams): boolean =>
  thinking !== undefined && thinking.type !== 'disabled'

/** Some of the adaptive models think unless they are told not to; the others may not know the word. */
const withoutThinking = (model: string): Partial<ThinkingParams> =>
  isAdaptive(model) ? { thinking: { type: 'disabled' } } : {}

const adaptive = (effort: keyof typeof EFFORTS): Partial<ThinkingParams> => ({
  thinking: { type: 'adaptive', display: 'summarized' },
  output_config: { effort: EFFORTS[effort] },
})

function budgeted(effort: ReasoningEffort, maxTokens: number): Partial<ThinkingParams> {
  const budget_tokens = Math.min(BUDGETS[effort], maxTokens - LEAST_ANSWER_TOKENS)
  return budget_tokens < LEAST_BUDGET_TOKENS ? {} : { thinking: { type: 'enabled', budget_tokens } }
}

/** `claude-opus-4-6`, `claude-sonnet-5`, `claude-3-7-sonnet-20250219`: a date is no version. */
const VERSION = /claude-(?:[a-z]+-)?(\d{1,2})(?!\d)(?:[-.](\d{1,2})(?!\d))?/

/** The version in a Claude model's name, 406 for 4.6; null where the name says none. */
export function claudeVersionOf(model: string): number | null {
  const [, major, minor] = VERSION.exec(model) ?? []
  return major === undefined ? null : Number(major) * 100 + Number(minor ?? 0)
}

const isAdaptive = (model: string): boolean => (claudeVersionOf(model) ?? 0) >= 406
