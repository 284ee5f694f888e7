export { findModelConfig } from './find-model.ts'
export {
  buildRoute,
  type BuiltRoute,
  type ReadFacts,
  type RouteOptions,
  type RouteRequest,
} from './build-route.ts'
export { listAvailableModels, type AvailableModel } from './available-models.ts'
export { attributionHeaders, BYOK_HEADER, connectRoute, ERROR_HEADER } from './connection.ts'
export {
  checkDestination,
  demandDestination,
  destinationsOf,
  type DestinationRules,
  type Destinations,
} from './destination.ts'
export {
  createDebugRuns,
  listDebugRuns,
  pruneDebugRuns,
  readDebugRun,
  type DebugRuns,
  type DebugRunSummary,
  type DebugRunView,
} from './debug-runs.ts'
export { createEncryption, type CipherPlace, type Encryption } from './encryption.ts'
export { findBadHeaders, setExtraHeaders, type ExtraHeaders } from './extra-headers.ts'
export {
  createBodyGuard,
  guardBody,
  guardHeaders,
  MAX_ANSWER_BYTES,
  type BodyGuard,
} from './guard-response.ts'
export * from './model-configs.ts'
export { clampEffort, exceedsEffort, type ModelOptions } from './model-options.ts'
export {
  deleteModelOverride,
  listModelOverrides,
  putModelOverride,
  type ModelOverrideView,
  type OverrideOwner,
} from './model-overrides.ts'
export {
  addProviderKey,
  deleteProviderKey,
  listProviderKeys,
  orderProviderKeys,
  type ProviderKeyView,
} from './provider-keys.ts'
export {
  createProviderFetch,
  createSendToProvider,
  type ProviderAnswer,
  type ProviderFetch,
  UnreadableAnswerError,
  type SendToProvider,
} from './provider-fetch.ts'
export * from './providers.ts'
export type { RoutingMode } from './route-checks.ts'
export { demandEncryptionKeys, rotateSecrets } from './stored-secrets.ts'
export type { RecordedRequest, RecordedResponse } from './recording.ts'
export {
  readRouteFacts,
  toPrices,
  type FactsRequest,
  type PriceColumns,
  type RouteFacts,
} from './route-facts.ts'
export {
  deleteUserProviderKey,
  listUserProviderKeys,
  putUserProviderKey,
  type UserProviderKeyView,
} from './user-provider-keys.ts'
