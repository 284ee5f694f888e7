import { TurnmillError } from '../protocol/errors.ts'
import type { ProviderType } from '../protocol/routes.ts'

/** What this process has decided, once, at boot. */
export interface RoutingMode {
  gatewayRouting: boolean
  /** Whether this process has a gateway to route to. */
  gatewayPresent: boolean
}

/** What the checks look at of a provider. */
export interface CheckedProvider {
  id: string
  name: string | null
  type: ProviderType
  enabled: boolean
  /** Whether there is a central credential. */
  hasCentralKey: boolean
}

/** What the checks look at of a model. */
export interface CheckedFacts<P extends CheckedProvider> {
  modelConfig: { id: string; model: string }
  provider: P | null
  /** The user's own credential, or that there is one; `null` where there is none that may be used. */
  byok: unknown
}

/** How a call of the model may be made. */
export type Passage<P extends CheckedProvider> =
  | { kind: 'gateway'; provider: P & { name: string }; delegatedKeyId: string }
  | { kind: 'direct'; provider: P }

/**
 * Whether a call of this model may be made, and how: each check has its own code, in this order.
 *
 * @param apiKeyId the initiator; `null` where nobody can say who it was.
 * @throws {TurnmillError} `provider_missing`, `provider_disabled`, `provider_auth_failed`, `provider_name_missing`,
 * `missing_key`, `gateway_unavailable`.
 */
export function demandPassage<P extends CheckedProvider>(
  mode: RoutingMode,
  facts: CheckedFacts<P>,
  apiKeyId: string | null,
): Passage<P> {
  const provider = demandProvider(facts)
  demandCredential(facts, provider)
  if (!mode.gatewayRouting) return { kind: 'direct', provider }
  const { name } = provider
  if (name === null || name === '')
    throw new TurnmillError(
      'provider_name_missing',
      `provider ${provider.id} of ${nameOf(facts)} has no name`,
    )
  if (apiKeyId === null)
    throw new TurnmillError(
      'missing_key',
      `the turn carries no API key ID, so ${nameOf(facts)} of provider ${name} is not called; send the message again`,
    )
  if (!mode.gatewayPresent)
    throw new TurnmillError(
      'gateway_unavailable',
      `gateway routing is on, but this process has no gateway to reach provider ${name} of ${nameOf(facts)}`,
    )
  return { kind: 'gateway', provider: { ...provider, name }, delegatedKeyId: apiKeyId }
}

const nameOf = ({ modelConfig }: CheckedFacts<CheckedProvider>): string =>
  `model config ${modelConfig.id} (${modelConfig.model})`

function demandProvider<P extends CheckedProvider>(facts: CheckedFacts<P>): P {
  const { provider } = facts
  if (provider === null) throw new TurnmillError('provider_missing', `${nameOf(facts)} has no provider`)
  if (!provider.enabled)
    throw new TurnmillError(
      'provider_disabled',
      `provider ${provider.name ?? provider.id} of ${nameOf(facts)} is disabled`,
    )
  return provider
}

function demandCredential<P extends CheckedProvider>(facts: CheckedFacts<P>, provider: P): void {
  if (needsCredential(provider.type) && facts.byok === null && !provider.hasCentralKey)
    throw new TurnmillError(
      'provider_auth_failed',
      `provider ${provider.name ?? provider.id} of ${nameOf(facts)} has no credential, neither a central one nor the user's own`,
    )
}

/** Self-hosted servers of the compatible kind often take no key at all. */
const needsCredential = (type: ProviderType): boolean => type !== 'openai-compatible'
