import { query, statement, type Database } from '../db/index.ts'
import type { ReasoningEffort } from '../protocol/messages.ts'
import type { ProviderType } from '../protocol/routes.ts'
import type { Secret } from '../protocol/secret.ts'
import type { Prices } from '../protocol/usage.ts'
import type { Encryption } from './encryption.ts'

/** Per-model settings, as stored in `model_configs.options`. */
export interface ModelOptions {
  temperature?: number
  /** Effort where the message asks for none. */
  reasoningEffort?: ReasoningEffort
  /** Responses instead of Chat Completions, or the other way round; otherwise the provider's type decides. */
  useResponsesApi?: boolean
}

/** What is stored of the chosen model and its provider, as far as it is there. */
export interface RouteFacts {
  modelConfig: {
    id: string
    model: string
    maxOutputTokens: number | null
    options: ModelOptions
    prices: Prices
  }
  provider: {
    id: string
    name: string | null
    type: ProviderType
    baseUrl: string
    enabled: boolean
    attribution: boolean
    /** Whether there is a central credential. */
    hasCentralKey: boolean
  } | null
  /** The credential of the user, where there is one and the provider allows it. */
  byok: Secret | null
  /** The first central credential; loaded for direct routes only. */
  centralKey: Secret | null
}

export interface FactsRequest {
  /** Stored choices, the most specific first; one that is gone or disabled falls to the next, and all to the default. */
  modelConfigIds: readonly string[]
  /** Computer use asks by provider type instead. */
  providerType: ProviderType | null
  /** Whose own provider key is to be used; `null` for nobody's. */
  byokUserId: string | null
  /** Whether the central credential is to be read. */
  withCentralKey: boolean
}

/** $1 choices, $2 provider type, $3 user for BYOK, $4 whether to read the central credential. */
const findFacts = statement(
  'models/route-facts',
  `select m.id, m.model, m.max_output_tokens, m.options, m.input_price_micros, m.output_price_micros,
    m.cache_read_price_micros, m.cache_write_price_micros,
    p.id as provider_id, p.name, p.type, p.base_url, p.enabled, p.attribution,
    central.id as central_id, case when $4 then central.encrypted end as central_encrypted,
    own.id as own_id, own.encrypted as own_encrypted
  from model_configs m
  left join providers p on p.id = m.provider_id
  left join lateral (select id, encrypted from provider_keys k where k.provider_id = p.id order by position limit 1) central on true
  left join user_provider_keys own on own.provider_id = p.id and own.user_id = $3 and p.allow_byok
  where m.enabled and case when $2::text is null then m.id = any($1::uuid[]) or m.is_default else p.type = $2 and p.enabled end
  order by array_position($1::uuid[], m.id) nulls last, m.is_default desc, m.id limit 1`,
)

interface FactsRow extends PriceColumns {
  id: string
  model: string
  max_output_tokens: number | null
  options: ModelOptions
  provider_id: string | null
  name: string | null
  type: ProviderType
  base_url: string
  enabled: boolean
  attribution: boolean
  central_id: string | null
  central_encrypted: string | null
  own_id: string | null
  own_encrypted: string | null
}

/** Chooses the model and reads all that its route needs, in one round trip; `null` where no model config is usable. */
export async function readRouteFacts(
  db: Database,
  encryption: Encryption,
  request: FactsRequest,
): Promise<RouteFacts | null> {
  const { modelConfigIds, providerType, byokUserId, withCentralKey } = request
  const [row] = await query<FactsRow>(db, findFacts(modelConfigIds, providerType, byokUserId, withCentralKey))
  if (row === undefined) return null
  return {
    modelConfig: {
      id: row.id,
      model: row.model,
      maxOutputTokens: row.max_output_tokens,
      options: row.options,
      prices: toPrices(row),
    },
    provider: row.provider_id === null ? null : toProvider(row, row.provider_id),
    byok: decryptKey(encryption, 'user_provider_keys', row.own_id, row.own_encrypted),
    centralKey: decryptKey(encryption, 'provider_keys', row.central_id, row.central_encrypted),
  }
}

const toProvider = (row: FactsRow, id: string): RouteFacts['provider'] => ({
  id,
  name: row.name,
  type: row.type,
  baseUrl: row.base_url,
  enabled: row.enabled,
  attribution: row.attribution,
  hasCentralKey: row.central_id !== null,
})

/** Prices as Postgres gives them: a bigint is text. */
export interface PriceColumns {
  input_price_micros: string | null
  output_price_micros: string | null
  cache_read_price_micros: string | null
  cache_write_price_micros: string | null
}

export const toPrices = (row: PriceColumns): Prices => ({
  inputMicros: numberOrNull(row.input_price_micros),
  outputMicros: numberOrNull(row.output_price_micros),
  cacheReadMicros: numberOrNull(row.cache_read_price_micros),
  cacheWriteMicros: numberOrNull(row.cache_write_price_micros),
})

const numberOrNull = (value: string | null): number | null => (value === null ? null : Number(value))

function decryptKey(
  encryption: Encryption,
  table: 'provider_keys' | 'user_provider_keys',
  rowId: string | null,
  encrypted: string | null,
): Secret | null {
  if (rowId === null || encrypted === null) return null
  return encryption.decrypt({ table, column: 'encrypted', rowId }, encrypted)
}
