import { charactersOf } from '../protocol/messages.ts'
import type { Usage } from '../protocol/usage.ts'
import type { ModelRequest } from './contract.ts'

/** What a provider reported, as most of them count: the input with its cached parts, the output with its reasoning. */
export interface ReportedUsage {
  inputTokens: number
  outputTokens: number
  cacheReadTokens: number
  cacheWriteTokens: number
  reasoningTokens: number
}

/** Takes the cached parts out of the input, so that the counts no longer overlap. */
export function usageOf(reported: ReportedUsage): Usage {
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

/** Roughly what a token stands for, in characters; common for English text, too high for most other scripts. */
const CHARACTERS_PER_TOKEN = 4

/** A count of our own of what a request asks, in tokens. */
export function estimateInput(request: ModelRequest): number {
  const system = request.system?.length ?? 0
  const sent = request.messages.flatMap(({ parts }) => parts.filter(({ type }) => type !== 'reasoning'))
  const tools = request.tools.length === 0 ? 0 : JSON.stringify(request.tools).length
  return Math.ceil((system + tools + charactersOf(sent)) / CHARACTERS_PER_TOKEN)
}
