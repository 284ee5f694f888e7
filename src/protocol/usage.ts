/**
 * What one model call used, in tokens. The four counts do not overlap: `inputTokens` leaves out what was read from or
 * written to the provider's prompt cache. `reasoningTokens` is the part of `outputTokens` spent on reasoning.
 */
export interface Usage {
  inputTokens: number
  outputTokens: number
  cacheReadTokens: number
  cacheWriteTokens: number
  reasoningTokens: number
  /** True where the provider did not report it and we counted ourselves. */
  estimated: boolean
}

export const NO_USAGE: Usage = Object.freeze({
  inputTokens: 0,
  outputTokens: 0,
  cacheReadTokens: 0,
  cacheWriteTokens: 0,
  reasoningTokens: 0,
  estimated: false,
})

/** Prices in micro-dollars per million tokens; `null` where a price is not known. */
export interface Prices {
  inputMicros: number | null
  outputMicros: number | null
  cacheReadMicros: number | null
  cacheWriteMicros: number | null
}

/**
 * The cost of a call in micro-dollars, rounded up; `null` where a price it needs is not known.
 * Unknown cache prices fall back to the input price.
 */
export function costMicros(usage: Usage, prices: Prices): number | null {
  const terms: [tokens: number, price: number | null][] = [
    [usage.inputTokens, prices.inputMicros],
    [usage.outputTokens, prices.outputMicros],
    [usage.cacheReadTokens, prices.cacheReadMicros ?? prices.inputMicros],
    [usage.cacheWriteTokens, prices.cacheWriteMicros ?? prices.inputMicros],
  ]
  let total = 0
  for (const [tokens, price] of terms) {
    if (price === null) {
      if (tokens > 0) return null
      continue
    }
    total += tokens * price
  }
  if (terms.every(([, price]) => price === null)) return null
  // A provider may report anything; what is stored has to fit.
  return Math.min(Math.ceil(total / 1_000_000), Number.MAX_SAFE_INTEGER)
}
