import { streamAnthropicMessages } from './anthropic-messages.ts'
import type { ProviderAdapters } from './contract.ts'
import { streamOpenAiChat } from './openai-chat.ts'
import { streamOpenAiResponses } from './openai-responses.ts'

/** The adapter of every wire format. */
export const providerAdapters: ProviderAdapters = {
  'openai-responses': streamOpenAiResponses,
  'openai-chat': streamOpenAiChat,
  'anthropic-messages': streamAnthropicMessages,
}

export { outputLimitName } from './openai-chat-request.ts'
export { highestOf, readUsage, reportedSides, type ReportedSides } from './reported-usage.ts'
export { asList, asRecord, asText, isRecord } from './outside.ts'
export { parseRetryAfter } from './retry-after.ts'
export type {
  ModelCall,
  ModelRequest,
  ProviderAdapters,
  ProviderConnection,
  StreamModel,
} from './contract.ts'
