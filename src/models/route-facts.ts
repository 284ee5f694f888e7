import { query, statement, type Database, type Statement } from '../db/index.ts'
import type { ProviderType, Purpose } from '../protocol/routes.ts'
import type { Secret } from '../protocol/secret.ts'
import type { Prices } from '../protocol/usage.ts'
import type { Encryption } from './encryption.ts'
import type { ExtraHeaders } from './extra-headers.ts'
import type { ModelOptions } from './model-options.ts'
import type { CheckedProvider } from './route-checks.ts'

/** What is stored of a model's provider. */
export interface FactsProvider extends CheckedProvider {
  baseUrl: string
  attribution: boolean
  extraHeaders: ExtraHeaders
}

/** What is stored of the chosen model and its provider, as far as it is there. */
export interface RouteFacts {
  modelConfig: {
    id: string
    model: string
    /** In tokens; `null` where nobody has said. */
    contextWindow: number | null
    maxOutputTokens: number | null
    /** Share of the context window, in percent, at which the history is compacted; `null` for the default. */
    compactionThreshold: number | null
    options: ModelOptions
    prices: Prices
  }
  provider: FactsProvider | null
  /** The credential of the user, where there is one and the provider allows it. */
  byok: Secret | null
  /** The first central credential; loaded for direct routes only. */
  centralKey: Secret | null
}

export interface FactsRequest {
  purpose: Purpose
  explicitModelConfigId: string | null
  chatModelConfigId: string | null
  /** Whose overrides count, before the deployment's. */
  chatUserId: string
  /** Only models of enabled providers of these types count, and any of them will do; `null` for all types. */
  providerTypes: readonly ProviderType[] | null
  /** Whose own provider key is to be used; `null` for nobody's. */
  byokUserId: string | null
  /** Whether the central credential is to be read. */
  withCentralKey: boolean
}

/** $1 to $4 as below; $5 user for BYOK, $6 whether to read the central credential. @param chosen SQL of the model's ID. */
const factsOf = (chosen: string): string => `
  select m.id, m.model, m.context_window, m.max_output_tokens, m.compaction_threshold, m.options, m.input_price_micros,
    m.output_price_micros, m.cache_read_price_micros, m.cache_write_price_micros,
    p.id as provider_id, p.name, p.type, p.base_url, p.enabled, p.attribution, p.extra_headers,
    central.id as central_id, case when $6 then central.encrypted end as central_encrypted,
    own.id as own_id, own.encrypted as own_encrypted
  from model_configs m
  left join providers p on p.id = m.provider_id
  left join lateral (select id, encrypted from provider_keys k where k.provider_id = p.id order by position limit 1) central on true
  left join user_provider_keys own on own.provider_id = p.id and own.user_id = $5 and p.allow_byok
  where m.id = ${chosen}`

/**
 * The first that counts: explicit, the user's override, the deployment's, the chat's, the default. Each is a look into an
 * index, and none that comes after the first is made.
 *
 * $1 purpose, $2 explicit choice, $3 user of the overrides, $4 the chat's model.
 *
 * @param counts SQL of whether a model config `c` counts.
 * @param otherwise SQL of an ID where none of them does.
 */
const firstOf = (counts: string, otherwise: string): string => `coalesce(
  (select c.id from model_configs c where c.id = $2 and ${counts}),
  (select c.id from model_overrides o join model_configs c on c.id = o.model_config_id
    where o.purpose = $1 and o.user_id = $3 and ${counts}),
  (select c.id from model_overrides o join model_configs c on c.id = o.model_config_id
    where o.purpose = $1 and o.user_id is null and ${counts}),
  (select c.id from model_configs c where c.id = $4 and ${counts}),
  (select c.id from model_configs c where c.is_default and ${counts}),
  ${otherwise})`

const findFacts = statement('models/route-facts', factsOf(firstOf('c.enabled', 'null')))

const OF_TYPE =
  'c.enabled and exists (select from providers t where t.id = c.provider_id and t.enabled and t.type = any($7::text[]))'

/** $7 provider types. Any model of them will do, the oldest first. */
const findFactsOfTypes = statement(
  'models/route-facts-of-types',
  factsOf(firstOf(OF_TYPE, `(select c.id from model_configs c where ${OF_TYPE} order by c.id limit 1)`)),
)

interface FactsRow extends PriceColumns {
  id: string
  model: string
  context_window: number | null
  max_output_tokens: number | null
  compaction_threshold: number | null
  options: ModelOptions
  provider_id: string | null
  name: string | null
  type: ProviderType
  base_url: string
  enabled: boolean
  attribution: boolean
  extra_headers: ExtraHeaders
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
  const [row] = await query<FactsRow>(db, toStatement(request))
  if (row === undefined) return null
  return {
    modelConfig: {
      id: row.id,
      model: row.model,
      contextWindow: row.context_window,
      maxOutputTokens: row.max_output_tokens,
      compactionThreshold: row.compaction_threshold,
      options: row.options,
      prices: toPrices(row),
    },
    provider: row.provider_id === null ? null : toProvider(row, row.provider_id),
    byok: decryptKey(encryption, 'user_provider_keys', row.own_id, row.own_encrypted),
    centralKey: decryptKey(encryption, 'provider_keys', row.central_id, row.central_encrypted),
  }
}

function toStatement(request: FactsRequest): Statement {
  const {
    purpose,
    explicitModelConfigId,
    chatUserId,
    chatModelConfigId,
    providerTypes,
    byokUserId,
    withCentralKey,
  } = request
  const values = [purpose, explicitModelConfigId, chatUserId, chatModelConfigId, byokUserId, withCentralKey]
  return providerTypes === null ? findFacts(...values) : findFactsOfTypes(...values, providerTypes)
}

const toProvider = (row: FactsRow, id: string): FactsProvider => ({
  id,
  name: row.name,
  type: row.type,
  baseUrl: row.base_url,
  enabled: row.enabled,
  attribution: row.attribution,
  extraHeaders: row.extra_headers,
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
