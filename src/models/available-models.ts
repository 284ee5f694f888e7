import { query, statement, type Database } from '../db/index.ts'
import { isTurnmillError, type ErrorCode } from '../protocol/errors.ts'
import type { ReasoningEffort } from '../protocol/messages.ts'
import type { ProviderType } from '../protocol/routes.ts'
import type { ModelPrices } from './model-configs.ts'
import type { ModelOptions } from './model-options.ts'
import { demandPassage, type CheckedFacts, type CheckedProvider, type RoutingMode } from './route-checks.ts'
import { toPrices, type PriceColumns } from './route-facts.ts'

/** A model as whoever calls it sees it. */
export interface AvailableModel {
  id: string
  /** Its name at the provider. */
  model: string
  displayName: string
  provider: { name: string; type: ProviderType } | null
  isDefault: boolean
  /** In tokens. */
  contextWindow: number | null
  maxOutputTokens: number | null
  reasoning: { default: ReasoningEffort | null; max: ReasoningEffort | null }
  /** Micro-dollars per million tokens. */
  prices: ModelPrices
  /** Whether a call of this user's may be made with it. */
  usable: boolean
  /** What such a call would fail with; `null` where it is usable. */
  reason: ErrorCode | null
  /** Whose credential the call would be made with; `null` for none. */
  credential: 'byok' | 'central' | null
}

/** $1 user. */
const findModels = statement(
  'models/available',
  `select m.id, m.model, m.display_name, m.enabled as model_enabled, m.is_default, m.context_window, m.max_output_tokens, m.options,
    m.input_price_micros, m.output_price_micros, m.cache_read_price_micros, m.cache_write_price_micros,
    p.id as provider_id, p.name, p.type, p.enabled,
    exists (select from provider_keys k where k.provider_id = p.id) as has_central_key,
    p.allow_byok and exists (select from user_provider_keys k where k.provider_id = p.id and k.user_id = $1) as has_own_key
  from model_configs m left join providers p on p.id = m.provider_id
  order by m.is_default desc, m.display_name, m.id`,
)

interface ModelRow extends PriceColumns {
  id: string
  model: string
  display_name: string
  model_enabled: boolean
  is_default: boolean
  context_window: number | null
  max_output_tokens: number | null
  options: ModelOptions
  provider_id: string | null
  name: string
  type: ProviderType
  enabled: boolean
  has_central_key: boolean
  has_own_key: boolean | null
}

/** Every model there is, the default first, with what the checks of a route say to this caller's call of it. */
export async function listAvailableModels(
  db: Database,
  mode: RoutingMode,
  caller: { userId: string; apiKeyId: string },
): Promise<AvailableModel[]> {
  const rows = await query<ModelRow>(db, findModels(caller.userId))
  return rows.map((row) => toAvailableModel(row, reasonAgainst(row, mode, caller.apiKeyId)))
}

function reasonAgainst(row: ModelRow, mode: RoutingMode, apiKeyId: string): ErrorCode | null {
  if (!row.model_enabled) return 'model_config_missing'
  try {
    demandPassage(mode, toFacts(row), apiKeyId)
    return null
  } catch (error) {
    if (isTurnmillError(error)) return error.code
    throw error
  }
}

const toFacts = (row: ModelRow): CheckedFacts<CheckedProvider> => ({
  modelConfig: { id: row.id, model: row.model },
  provider:
    row.provider_id === null
      ? null
      : {
          id: row.provider_id,
          name: row.name,
          type: row.type,
          enabled: row.enabled,
          hasCentralKey: row.has_central_key,
        },
  byok: row.has_own_key === true ? true : null,
})

function toAvailableModel(row: ModelRow, reason: ErrorCode | null): AvailableModel {
  const { inputMicros, outputMicros, cacheReadMicros, cacheWriteMicros } = toPrices(row)
  return {
    id: row.id,
    model: row.model,
    displayName: row.display_name,
    provider: row.provider_id === null ? null : { name: row.name, type: row.type },
    isDefault: row.is_default,
    contextWindow: row.context_window,
    maxOutputTokens: row.max_output_tokens,
    reasoning: {
      default: row.options.reasoningEffort ?? null,
      max: row.options.maxReasoningEffort ?? null,
    },
    prices: { input: inputMicros, output: outputMicros, cacheRead: cacheReadMicros, cacheWrite: cacheWriteMicros }, // prettier-ignore
    usable: reason === null,
    reason,
    credential: row.has_own_key === true ? 'byok' : row.has_central_key ? 'central' : null,
  }
}
