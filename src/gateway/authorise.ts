import { query, statement, type Database } from '../db/index.ts'
import { toPrices, type Encryption, type ExtraHeaders, type PriceColumns } from '../models/index.ts'
import type { Caller, ProviderType } from '../protocol/routes.ts'
import type { Secret } from '../protocol/secret.ts'
import type { Prices } from '../protocol/usage.ts'

/** What the gateway needs of a call: that its key may call, where the provider is, and what the model costs. */
export interface Authorisation {
  /** The key's owner; `null` where the key cannot be used. */
  userId: string | null
  provider: GatewayProvider | null
  /** What is stored of the model that the call names. */
  model: ModelFacts | null
  /** Whether a budget applies. */
  budgeted: boolean
}

export interface GatewayProvider {
  id: string
  name: string
  type: ProviderType
  baseUrl: string
  enabled: boolean
  attribution: boolean
  allowByok: boolean
  extraHeaders: ExtraHeaders
  /** In the order in which they are tried. */
  centralKeys: readonly StoredCredential[]
  /** What the key's owner has stored, where the provider allows it; for callers over HTTP. */
  ownKey: StoredCredential | null
}

/** A credential that is read only where it is used. */
export interface StoredCredential {
  id: string
  hint: string
  reveal(): Secret
}

export interface ModelFacts {
  id: string
  contextWindow: number | null
  maxOutputTokens: number | null
  prices: Prices
}

/** $1 key, $2 provider name, $3 model, $4 model config. */
const authoriseCall = statement(
  'gateway/authorise',
  `with caller as (
    select k.id, k.user_id from api_keys k join users u on u.id = k.user_id
    where k.id = $1 and u.status = 'active' and k.revoked_at is null
      and coalesce(k.expires_at > clock_timestamp(), true))
  select caller.user_id, p.id, p.name, p.type, p.base_url, p.enabled, p.attribution, p.allow_byok, p.extra_headers,
    (select jsonb_agg(jsonb_build_object('id', k.id, 'hint', k.hint, 'encrypted', k.encrypted) order by k.position)
      from provider_keys k where k.provider_id = p.id) as central,
    (select jsonb_build_object('id', k.id, 'hint', k.hint, 'encrypted', k.encrypted)
      from user_provider_keys k where k.provider_id = p.id and k.user_id = caller.user_id and p.allow_byok) as own,
    m.id as model_id, m.context_window, m.max_output_tokens, m.input_price_micros, m.output_price_micros,
    m.cache_read_price_micros, m.cache_write_price_micros,
    exists (select 1 from budgets b where b.subject = 'deployment' or (b.subject = 'key' and b.subject_id = $1)
      or (b.subject = 'user' and b.subject_id = caller.user_id)) as budgeted
  from (values (1)) one
  left join caller on true
  left join providers p on p.name = $2
  left join lateral (
    select * from model_configs m where m.provider_id = p.id and (m.id = $4 or m.model = $3)
    order by m.id = $4 desc nulls last, m.enabled desc, m.id limit 1) m on true`,
)

interface StoredKey {
  id: string
  hint: string
  encrypted: string
}

interface AuthorisationRow extends PriceColumns {
  user_id: string | null
  id: string | null
  name: string
  type: ProviderType
  base_url: string
  enabled: boolean
  attribution: boolean
  allow_byok: boolean
  extra_headers: ExtraHeaders
  central: StoredKey[] | null
  own: StoredKey | null
  model_id: string | null
  context_window: number | null
  max_output_tokens: number | null
  budgeted: boolean
}

/** One round trip. @param model as the caller names it. */
export async function authorise(
  db: Database,
  encryption: Encryption,
  caller: Caller,
  { provider, model }: { provider: string; model: string },
): Promise<Authorisation> {
  const modelConfigId = caller.kind === 'delegated' ? caller.modelConfigId : null
  const [row] = await query<AuthorisationRow>(
    db,
    authoriseCall(caller.apiKeyId, provider, model, modelConfigId),
  )
  if (row === undefined) return { userId: null, provider: null, model: null, budgeted: false }
  return {
    userId: row.user_id,
    provider: row.id === null ? null : toProvider(encryption, row, row.id),
    model: row.model_id === null ? null : toModelFacts(row, row.model_id),
    budgeted: row.budgeted,
  }
}

const toProvider = (encryption: Encryption, row: AuthorisationRow, id: string): GatewayProvider => ({
  id,
  name: row.name,
  type: row.type,
  baseUrl: row.base_url,
  enabled: row.enabled,
  attribution: row.attribution,
  allowByok: row.allow_byok,
  extraHeaders: row.extra_headers,
  centralKeys: (row.central ?? []).map((key) => toCredential(encryption, 'provider_keys', key)),
  ownKey: row.own === null ? null : toCredential(encryption, 'user_provider_keys', row.own),
})

const toCredential = (
  encryption: Encryption,
  table: 'provider_keys' | 'user_provider_keys',
  { id, hint, encrypted }: StoredKey,
): StoredCredential => ({
  id,
  hint,
  reveal: () => encryption.decrypt({ table, column: 'encrypted', rowId: id }, encrypted),
})

const toModelFacts = (row: AuthorisationRow, id: string): ModelFacts => ({
  id,
  contextWindow: row.context_window,
  maxOutputTokens: row.max_output_tokens,
  prices: toPrices(row),
})
