export { loadAdapters, providerAdapters } from './adapters.ts'
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
