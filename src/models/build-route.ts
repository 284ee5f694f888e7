import { TurnmillError } from '../protocol/errors.ts'
import type { Attribution, CallPlace, ProviderType, Purpose, Route, WireFormat } from '../protocol/routes.ts'
import { demandPassage, type Passage, type RoutingMode } from './route-checks.ts'
import type { FactsProvider, FactsRequest, RouteFacts } from './route-facts.ts'

/**
 * The only place where a model route is made, for every purpose.
 *
 * I6 every upstream request carries its turn's key ID; without one, with gateway routing on, there is no route.
 */
export interface RouteRequest {
  purpose: Purpose
  chatId: string
  turnId: string | null
  /** The owner of the chat, whose choices of models count. */
  chatUserId: string
  /** What was asked for with the message, or by whoever makes the call. */
  explicitModelConfigId: string | null
  /** What is stored with the chat; a subagent's chat holds its parent's unless it was given its own. */
  chatModelConfigId: string | null
  /** Computer use asks by provider type: a choice of another type does not count, and any model of the type will do. */
  providerType?: ProviderType | readonly ProviderType[]
  /** Which attempt of the turn makes the call; `null` outside of its steps. */
  place: CallPlace | null
}

export interface RouteOptions {
  /** The initiator, from the turn's row. */
  apiKeyId: string | null
  /** The owner of that key. */
  keyOwnerId: string | null
  /** Whether the call is to be recorded. */
  recordHttp?: boolean
}

export type ReadFacts = (request: FactsRequest) => Promise<RouteFacts | null>

export interface BuiltRoute {
  route: Route
  facts: RouteFacts
}

/**
 * Makes the route of one model call, or fails closed: each check has its own code, in this order.
 *
 * The model is the explicit choice, else the user's override for the purpose, the deployment's, the chat's model, the
 * default. A choice that is gone or disabled falls to the next one; one that fails at the checks fails visibly.
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
    purpose: request.purpose,
    explicitModelConfigId: request.explicitModelConfigId,
    chatModelConfigId: request.chatModelConfigId,
    chatUserId: request.chatUserId,
    providerTypes: typesOf(request),
    byokUserId: options.keyOwnerId === request.chatUserId ? options.keyOwnerId : null,
    withCentralKey: !mode.gatewayRouting,
  })
  if (facts === null) throw noModel(request)
  const passage = demandPassage(mode, facts, options.apiKeyId)
  const { type } = passage.provider
  const base = {
    provider: toRouteProvider(passage.provider),
    wireFormat: chooseWireFormat(type, facts.modelConfig.options.useResponsesApi),
    modelConfigId: facts.modelConfig.id,
    model: facts.modelConfig.model,
    attribution: toAttribution(request, options),
    place: request.place,
    ...(options.recordHttp === true && { recordHttp: true }),
  }
  return { route: toRoute(base, passage, facts), facts }
}

type RouteBase = Pick<
  Route,
  'provider' | 'wireFormat' | 'modelConfigId' | 'model' | 'attribution' | 'place' | 'recordHttp'
>

function typesOf({ providerType }: RouteRequest): readonly ProviderType[] | null {
  if (providerType === undefined) return null
  return typeof providerType === 'string' ? [providerType] : providerType
}

const toRouteProvider = ({ id, name, type, baseUrl, attribution }: FactsProvider): Route['provider'] => ({
  id,
  name: name ?? '',
  type,
  baseUrl,
  attribution,
})

const toAttribution = (request: RouteRequest, { apiKeyId }: RouteOptions): Attribution => ({
  apiKeyId,
  chatId: request.chatId,
  turnId: request.turnId,
  purpose: request.purpose,
})

function noModel(request: RouteRequest): TurnmillError {
  const { purpose, explicitModelConfigId, chatModelConfigId } = request
  const types = typesOf(request)
  if (types !== null)
    return new TurnmillError(
      'no_provider_for_type',
      `purpose ${purpose} needs an enabled model of an enabled provider of type ${types.join(' or ')}, and there is none`,
    )
  const named = [explicitModelConfigId, chatModelConfigId].filter((id) => id !== null)
  const chosen = named.length === 0 ? 'none was chosen' : `${named.join(', ')} cannot be used`
  return new TurnmillError(
    'model_config_missing',
    `purpose ${purpose}: ${chosen}, no override can be used, and there is no enabled default model config: an admin makes one with POST /v1/model-configs and "isDefault": true`,
  )
}

/** OpenAI's own models have Responses; whoever imitates its API has Chat Completions at least. */
function chooseWireFormat(type: ProviderType, useResponsesApi: boolean | undefined): WireFormat {
  if (type === 'anthropic') return 'anthropic-messages'
  return (useResponsesApi ?? type === 'openai') ? 'openai-responses' : 'openai-chat'
}

function toRoute(base: RouteBase, passage: Passage<FactsProvider>, { byok, centralKey }: RouteFacts): Route {
  if (passage.kind === 'gateway')
    return { ...base, kind: 'gateway', delegatedKeyId: passage.delegatedKeyId, byok }
  return {
    ...base,
    kind: 'direct',
    extraHeaders: passage.provider.extraHeaders,
    credential: byok ?? centralKey,
    credentialKind: byok === null ? 'central' : 'byok',
  }
}
