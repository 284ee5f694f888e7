export {
  buildRoute,
  type BuiltRoute,
  type ReadFacts,
  type RouteOptions,
  type RouteRequest,
  type RoutingMode,
} from './build-route.ts'
export * from './catalog.ts'
export { attributionHeaders, BYOK_HEADER, connectRoute, ERROR_HEADER } from './connection.ts'
export {
  checkDestination,
  createProviderFetch,
  type ProviderFetch,
  demandDestination,
  type DestinationRules,
} from './destination.ts'
export { createEncryption, type CipherPlace, type Encryption } from './encryption.ts'
export {
  createBodyGuard,
  guardBody,
  guardHeaders,
  MAX_ANSWER_BYTES,
  type BodyGuard,
} from './guard-response.ts'
export { addProviderKey, deleteProviderKey, listProviderKeys, type ProviderKeyView } from './provider-keys.ts'
export { demandEncryptionKeys, rotateSecrets } from './stored-secrets.ts'
export {
  readRouteFacts,
  toPrices,
  type FactsRequest,
  type ModelOptions,
  type PriceColumns,
  type RouteFacts,
} from './route-facts.ts'
