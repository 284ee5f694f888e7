/** A fake provider whose model has a small window: what is longer it refuses, and a summary it writes from what it reads. */
import type { WireFormat } from '../../src/protocol/routes.ts'
import type { Behaviour, UpstreamError, UpstreamRequest } from './fake-upstream.ts'

/** About how long a request is, in tokens, as such a provider counts. */
export const tokensOf = ({ body }: UpstreamRequest): number => Math.ceil(JSON.stringify(body).length / 4)

/** Whether a request asks for a summary. */
export const asksForSummary = ({ body }: UpstreamRequest): boolean =>
  JSON.stringify(body).includes('You sum up a conversation')

const REFUSALS: Record<WireFormat, Partial<UpstreamError>> = {
  'openai-responses': {
    type: 'invalid_request_error',
    code: 'context_length_exceeded',
    message: 'Your input exceeds the context window of this model.',
  },
  'openai-chat': {
    type: 'invalid_request_error',
    code: 'context_length_exceeded',
    message: "This model's maximum context length is smaller than that.",
  },
  'anthropic-messages': {
    type: 'invalid_request_error',
    message: 'prompt is too long: more tokens than the maximum',
  },
}

/** The refusal of a request that is too long, in the provider's own shape. */
export const tooLong = ({ wireFormat }: UpstreamRequest): Behaviour => ({
  type: 'status',
  status: 400,
  error: REFUSALS[wireFormat ?? 'openai-chat'],
})

const FACT = /\bfact-[a-z0-9-]+\b/g

/** What there is to be remembered in a request: all words that begin with `fact-`. */
export const factsIn = (request: UpstreamRequest | undefined): string[] => [
  ...new Set(JSON.stringify(request?.body ?? null).match(FACT) ?? []),
]

/** Refuses what does not fit into the window, sums up facts when asked to, and else answers as told. */
export const withWindow =
  (window: number, otherwise: (request: UpstreamRequest) => Behaviour) =>
  (request: UpstreamRequest): Behaviour => {
    if (tokensOf(request) > window) return tooLong(request)
    return asksForSummary(request) ? summaryOf(request) : otherwise(request)
  }

export const summaryOf = (request: UpstreamRequest): Behaviour => ({
  type: 'answer',
  text: `To be remembered: ${factsIn(request).join(', ') || 'nothing'}.`,
  usage: { input: tokensOf(request), output: 20 },
})

/** An answer that reports as usage what the request takes. */
export const counted = (request: UpstreamRequest, text: string): Behaviour => ({
  type: 'answer',
  text,
  usage: { input: tokensOf(request), output: Math.ceil(text.length / 4) },
})
