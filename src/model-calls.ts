import type { ModelCallEffects } from './agent/index.ts'
import type { Config } from './config/index.ts'
import {
  buildRoute,
  connectRoute,
  readRouteFacts,
  type BuiltRoute,
  type RouteOptions,
  type RouteRequest,
} from './models/index.ts'
import type { Route } from './protocol/routes.ts'
import { providerAdapters, type ProviderConnection } from './providers/index.ts'
import type { Services } from './services.ts'

/** How this process calls models, for every purpose. */
export interface ModelCalls extends ModelCallEffects {
  /** @throws {TurnmillError} failing closed. */
  buildRoute(request: RouteRequest, options: RouteOptions): Promise<BuiltRoute>
}

export function createModelCalls(services: Services): ModelCalls {
  const { config, db, debugRuns, encryption, providerFetch } = services
  const gateway = config.gatewayRouting ? services.gateway : null
  const mode = { gatewayRouting: config.gatewayRouting, gatewayPresent: gateway !== null }
  const connect = (route: Route): ProviderConnection => {
    const connection = connectRoute(route, gateway, providerFetch)
    return route.recordHttp === true ? debugRuns.record(route, connection) : connection
  }
  return {
    buildRoute: (request, options) =>
      buildRoute(mode, (facts) => readRouteFacts(db, encryption, facts), request, options),
    callModel: (route, request, signal) =>
      providerAdapters[route.wireFormat]({ connection: connect(route), request, signal }),
    deadlines: deadlinesOf(config),
  }
}

const deadlinesOf = (config: Config): ModelCallEffects['deadlines'] => ({
  firstPartMs: config.firstPartTimeoutMs,
  reasoningFirstPartMs: config.reasoningFirstPartTimeoutMs,
  silenceMs: config.silenceTimeoutMs,
  attemptMs: config.attemptTimeoutMs,
})
