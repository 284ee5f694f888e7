import type { Spent } from '../chats/index.ts'
import type { Usage } from '../protocol/usage.ts'

/** What the calls of one claim have used, call by call. */
export interface SpentSum {
  add(spent: Spent): void
  total(): Spent
}

export function createSpentSum(): SpentSum {
  let usage: Usage | null = null
  let costMicros: number | null = null
  return {
    add: (spent) => {
      if (spent.usage !== null) usage = usage === null ? spent.usage : addUsage(usage, spent.usage)
      if (spent.costMicros !== null) costMicros = (costMicros ?? 0) + spent.costMicros
    },
    total: () => ({ usage, costMicros }),
  }
}

const addUsage = (a: Usage, b: Usage): Usage => ({
  inputTokens: a.inputTokens + b.inputTokens,
  outputTokens: a.outputTokens + b.outputTokens,
  cacheReadTokens: a.cacheReadTokens + b.cacheReadTokens,
  cacheWriteTokens: a.cacheWriteTokens + b.cacheWriteTokens,
  reasoningTokens: a.reasoningTokens + b.reasoningTokens,
  estimated: a.estimated || b.estimated,
})
