import type { Prices } from '../protocol/usage.ts'
import type { Asked } from './asked.ts'
import type { ModelFacts } from './authorise.ts'
import { exceedsItsBytes } from './input-size.ts'

/** The longest answer of a model that says nothing of it, in tokens. */
const OUTPUT_TOKENS = 8192

/** The context of a model that says nothing of it, in tokens. */
const CONTEXT_TOKENS = 200_000

/** The longest answer that a call may have, in tokens: what it asks for, else what its model gives. */
export const outputBound = (asked: Pick<Asked, 'outputLimit'>, model: ModelFacts | null): number =>
  asked.outputLimit ?? model?.maxOutputTokens ?? OUTPUT_TOKENS

/** The most input that a call may be charged for, in tokens. A token of text is a byte at least. */
function inputBound({ input }: Pick<Asked, 'input'>, bodyBytes: number, model: ModelFacts | null): number {
  const text = bodyBytes + input.hiddenTokens
  return exceedsItsBytes(input) ? Math.max(text, model?.contextWindow ?? CONTEXT_TOKENS) : text
}

/** About what an image takes, in tokens. */
const IMAGE_TOKENS = 1500

/**
 * What a call is charged for as input where its provider does not say: its bound, but for images, of which the bound says
 * nothing sensible.
 */
export function unreportedInput(
  { input }: Pick<Asked, 'input'>,
  bodyBytes: number,
  model: ModelFacts | null,
): number {
  const bound = inputBound({ input }, bodyBytes, model)
  if (input.openEnded) return bound
  return Math.min(bound, bodyBytes - input.imageCharacters + input.images * IMAGE_TOKENS)
}

/** The most that a call may cost, in micro-dollars, rounded up; `null` where it has no price that is known here. */
export function worstCaseMicros(
  asked: Pick<Asked, 'outputLimit' | 'answers' | 'input' | 'pricedOtherwise'>,
  bodyBytes: number,
  model: ModelFacts | null,
): number | null {
  if (model === null || asked.pricedOtherwise || !isPriced(model.prices)) return null
  const { inputMicros, outputMicros, cacheReadMicros, cacheWriteMicros } = model.prices
  // Input may be read from a cache, or written to one at a higher price.
  const dearest = Math.max(inputMicros ?? 0, cacheReadMicros ?? 0, cacheWriteMicros ?? 0)
  const total =
    inputBound(asked, bodyBytes, model) * dearest +
    asked.answers * outputBound(asked, model) * (outputMicros ?? 0)
  return Math.min(Math.ceil(total / 1_000_000), Number.MAX_SAFE_INTEGER)
}

const isPriced = ({ inputMicros, outputMicros }: Prices): boolean =>
  inputMicros !== null && outputMicros !== null
