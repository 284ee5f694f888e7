export { loadAdapters, providerAdapters } from './adapters.ts'
export { outputLimitName } from './openai-chat-request.ts'
export { filterEvents } from './filter-events.ts'
export { asList, asRecord, asText, isRecord } from './outside.ts'
export { parseRetryAfter } from './retry-after.ts'
export { countTokens, UsageTally, type UsageBounds } from './usage-tally.ts'
export type {
  ModelCall,
  ModelRequest,
  ProviderAdapters,
  ProviderConnection,
  StreamModel,
} from './contract.ts'
