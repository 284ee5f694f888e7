import { TurnmillError } from '../protocol/errors.ts'
import type {
  Attribution,
  CallPlace,
  ProviderType,
  Purpose,
  Route,
  RouteProvider,
  WireFormat,
} from '../protocol/routes.ts'
import type { FactsRequest, RouteFacts } from './route-facts.ts'

/**
 * The only place where a model route is made, for every purpose.
 *
 * I6 every upstream request carries its turn's key ID; without one, with gateway routing on, there is no route.
 */
export interface RouteRequest {
  purpose: Purpose
  chatId: string
  turnId: string | null
  /** The owner of the chat. */
  chatUserId: string
  /** Stored choices, the most specific first. */
  modelConfigIds: readonly string[]
  /** Computer use asks by provider type instead. */
  providerType?: ProviderType
  /** Which attempt of the turn makes the call; `null` outside of its steps. */
  place: CallPlace | null
}

export interface RouteOptions {
  /** The initiator, from the turn's row. */
  apiKeyId: string | null
  /** The owner of that key. */
  keyOwnerId: string | null
}

/** What this process has decided, once, at boot. */
export interface RoutingMode {
  gatewayRouting: boolean
  /** Whether this process has a gateway to route to. */
  gatewayPresent: boolean
}

export type ReadFacts = (request: FactsRequest) => Promise<RouteFacts | null>

export interface BuiltRoute {
  route: Route
  facts: RouteFacts
}

/**
 * Makes the route of one model call, or fails closed: each check has its own code, in this order.
 *
 * @throws {TurnmillError} `model_config_missing`, `provider_missing`, `provider_disabled`, `no_provider_for_type`,
 * `provider_auth_failed`, `provider_name_missing`, `missing_key`, `gateway_unavailable`.
 */
export async function buildRoute(
  mode: RoutingMode,
  readFacts: ReadFacts,
  request: RouteRequest,
  options: RouteOptions,
): Promise<BuiltRoute> {
  const facts = await readFacts({
    modelConfigIds: request.modelConfigIds,
    providerType: request.providerType ?? null,
    byokUserId: options.keyOwnerId === request.chatUserId ? options.keyOwnerId : null,
    withCentralKey: !mode.gatewayRouting,
  })
  if (facts === null) throw noModel(request)
  const provider = demandProvider(facts)
  demandCredential(facts, provider)
  const base = {
    provider,
    wireFormat: chooseWireFormat(provider.type, facts.modelConfig.options.useResponsesApi),
    modelConfigId: facts.modelConfig.id,
    model: facts.modelConfig.model,
    attribution: toAttribution(request, options),
    place: request.place,
  }
  const route = mode.gatewayRouting ? toGatewayRoute(mode, base, facts, options) : toDirectRoute(base, facts)
  return { route, facts }
}

type RouteBase = Pick<Route, 'provider' | 'wireFormat' | 'modelConfigId' | 'model' | 'attribution' | 'place'>

const toAttribution = (request: RouteRequest, { apiKeyId }: RouteOptions): Attribution => ({
  apiKeyId,
  chatId: request.chatId,
  turnId: request.turnId,
  purpose: request.purpose,
})

function noModel({ purpose, providerType, modelConfigIds }: RouteRequest): TurnmillError {
  if (providerType !== undefined)
    return new TurnmillError(
      'no_provider_for_type',
      `purpose ${purpose} needs an enabled model of an enabled provider of type ${providerType}, and there is none`,
    )
  const chosen =
    modelConfigIds.length === 0 ? 'none was chosen' : `${modelConfigIds.join(', ')} cannot be used`
  return new TurnmillError(
    'model_config_missing',
    `purpose ${purpose}: ${chosen}, and there is no enabled default model config`,
  )
}

const nameOf = (facts: RouteFacts): string =>
  `model config ${facts.modelConfig.id} (${facts.modelConfig.model})`

function demandProvider(facts: RouteFacts): RouteProvider {
  const { provider } = facts
  if (provider === null) throw new TurnmillError('provider_missing', `${nameOf(facts)} has no provider`)
  if (!provider.enabled)
    throw new TurnmillError(
      'provider_disabled',
      `provider ${provider.name ?? provider.id} of ${nameOf(facts)} is disabled`,
    )
  const { id, name, type, baseUrl, attribution } = provider
  return { id, name: name ?? '', type, baseUrl, attribution }
}

function demandCredential(facts: RouteFacts, provider: RouteProvider): void {
  if (needsCredential(provider.type) && facts.byok === null && facts.provider?.hasCentralKey !== true)
    throw new TurnmillError(
      'provider_auth_failed',
      `provider ${provider.name || provider.id} of ${nameOf(facts)} has no credential, neither a central one nor the user's own`,
    )
}

/** Self-hosted servers of the compatible kind often take no key at all. */
const needsCredential = (type: ProviderType): boolean => type !== 'openai-compatible'

/** OpenAI's own models have Responses; whoever imitates its API has Chat Completions at least. */
function chooseWireFormat(type: ProviderType, useResponsesApi: boolean | undefined): WireFormat {
  if (type === 'anthropic') return 'anthropic-messages'
  return (useResponsesApi ?? type === 'openai') ? 'openai-responses' : 'openai-chat'
}

function toGatewayRoute(
  mode: RoutingMode,
  base: RouteBase,
  facts: RouteFacts,
  { apiKeyId }: RouteOptions,
): Route {
  if (base.provider.name === '')
    throw new TurnmillError(
      'provider_name_missing',
      `provider ${base.provider.id} of ${nameOf(facts)} has no name`,
    )
  if (apiKeyId === null)
    throw new TurnmillError(
      'missing_key',
      `the turn carries no API key ID, so ${nameOf(facts)} of provider ${base.provider.name} is not called; send the message again`,
    )
  if (!mode.gatewayPresent)
    throw new TurnmillError(
      'gateway_unavailable',
      `gateway routing is on, but this process has no gateway to reach provider ${base.provider.name} of ${nameOf(facts)}`,
    )
  return { ...base, kind: 'gateway', delegatedKeyId: apiKeyId, byok: facts.byok }
}

function toDirectRoute(base: RouteBase, { byok, centralKey }: RouteFacts): Route {
  return {
    ...base,
    kind: 'direct',
    credential: byok ?? centralKey,
    credentialKind: byok === null ? 'central' : 'byok',
  }
}
