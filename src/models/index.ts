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
export { createEncryption, type CipherPlace, type Encryption } from './encryption.ts'
export { guardBody, MAX_ANSWER_BYTES } from './guard-response.ts'
export { readRouteFacts, type FactsRequest, type ModelOptions, type RouteFacts } from './route-facts.ts'
