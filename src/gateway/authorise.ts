import { LRUCache } from 'lru-cache'
import { query, statement, type Database } from '../db/index.ts'
import { toPrices, type Encryption, type ExtraHeaders, type PriceColumns } from '../models/index.ts'
import type { ProviderType } from '../protocol/routes.ts'
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
  /** Of all that was found: a call is written down only where it is still the same. */
  version: string
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

/**
 * What a call needs, found from `call`: a row source with `key`, `provider` (its name), `model` and `config` (a model
 * config, which goes before the name). Each `limit` keeps it a look into an index, whatever Postgres expects of `call`.
 */
export const STANDING = `
  left join lateral (
    select u.id, u.role = 'admin' and 'admin' = any(k.scopes) as admin from api_keys k join users u on u.id = k.user_id
    where k.id = call.key and u.status = 'active' and k.revoked_at is null
      and coalesce(k.expires_at > clock_timestamp(), true) limit 1) caller on true
  left join lateral (
    select p.*, p.xmin as row_version from providers p where p.name = call.provider limit 1) p on true
  left join lateral (
    select o.*, o.xmin as row_version from user_provider_keys o
    where o.provider_id = p.id and o.user_id = caller.id and p.allow_byok limit 1) own on true
  left join lateral (
    select m.*, m.xmin as row_version from model_configs m
    where m.provider_id = p.id and (m.id = call.config or m.model = call.model)
    order by m.id = call.config desc nulls last, m.enabled desc, m.id limit 1) m on true
  left join lateral (
    select exists (select 1 from budgets b where b.subject = 'deployment' or (b.subject = 'key' and b.subject_id = call.key)
      or (b.subject = 'user' and b.subject_id = caller.id)) as apply) budgets on true`

/**
 * Names the state of all that was found: another text, if anything in it has changed. Postgres gives each version of a
 * row the number of the transaction that wrote it.
 */
export const STANDING_VERSION = `concat_ws(' ', caller.id, p.id, p.row_version,
  (select string_agg(k.id || ' ' || k.xmin, ' ' order by k.position) from provider_keys k where k.provider_id = p.id),
  'own', own.id, own.row_version, 'model', m.id, m.row_version, budgets.apply)`

/** $1 key, $2 provider name, $3 model, $4 model config. */
const authoriseCall = statement(
  'gateway/authorise',
  `select caller.id as user_id, p.id, p.name, p.type, p.base_url, p.enabled, p.attribution, p.allow_byok, p.extra_headers,
    (select jsonb_agg(jsonb_build_object('id', k.id, 'hint', k.hint, 'encrypted', k.encrypted) order by k.position)
      from provider_keys k where k.provider_id = p.id) as central,
    case when own.id is not null then jsonb_build_object('id', own.id, 'hint', own.hint, 'encrypted', own.encrypted) end as own,
    m.id as model_id, m.context_window, m.max_output_tokens, m.input_price_micros, m.output_price_micros,
    m.cache_read_price_micros, m.cache_write_price_micros, budgets.apply as budgeted, ${STANDING_VERSION} as version
  from (values ($1::uuid, $2, $3, $4::uuid)) call (key, provider, model, config) ${STANDING}`,
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
  version: string
}

/** Whose call it is and of which model. */
export interface CallSubject {
  apiKeyId: string
  /** By name. */
  provider: string
  /** As the caller names it. */
  model: string
  /** What a worker's route is made from. */
  modelConfigId: string | null
}

export interface Authoriser {
  /** @param fresh reads it anew: what was known has changed. */
  authorise(call: CallSubject, fresh?: boolean): Promise<Authorisation>
  /** The type of a provider as it was read last; `null` where it was not. */
  typeOf(provider: string): ProviderType | null
}

/** Keys times models that a process remembers. */
const MAX_KNOWN = 1000

/** How long what was decrypted stays in memory, in ms. */
const KNOWN_MS = 60_000

/**
 * Remembers what it has read, so that a call costs no round trip of its own: whether it still holds is looked at where
 * the call is written down, see `STANDING_VERSION`. That a key cannot be used is not remembered.
 */
export function createAuthoriser(db: Database, encryption: Encryption): Authoriser {
  const known = new LRUCache<string, Authorisation>({ max: MAX_KNOWN, ttl: KNOWN_MS })
  const types = new LRUCache<string, ProviderType>({ max: MAX_KNOWN })
  return {
    typeOf: (provider) => types.get(provider) ?? null,
    authorise: async (call, fresh = false) => {
      const { apiKeyId, modelConfigId, provider, model } = call
      const name = JSON.stringify([apiKeyId, modelConfigId, provider, model])
      const remembered = fresh ? undefined : known.get(name)
      if (remembered !== undefined) return remembered
      const read = await readAuthorisation(db, encryption, call)
      if (read.provider !== null) types.set(provider, read.provider.type)
      if (read.userId === null || read.provider === null) known.delete(name)
      else known.set(name, read)
      return read
    },
  }
}

async function readAuthorisation(
  db: Database,
  encryption: Encryption,
  { apiKeyId, provider, model, modelConfigId }: CallSubject,
): Promise<Authorisation> {
  const [row] = await query<AuthorisationRow>(db, authoriseCall(apiKeyId, provider, model, modelConfigId))
  if (row === undefined) throw new TypeError('a call was not looked up')
  return {
    userId: row.user_id,
    provider: row.id === null ? null : toProvider(encryption, row, row.id),
    model: row.model_id === null ? null : toModelFacts(row, row.model_id),
    budgeted: row.budgeted,
    version: row.version,
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
): StoredCredential => {
  let secret: Secret | undefined
  return {
    id,
    hint,
    reveal: () => (secret ??= encryption.decrypt({ table, column: 'encrypted', rowId: id }, encrypted)),
  }
}

const toModelFacts = (row: AuthorisationRow, id: string): ModelFacts => ({
  id,
  contextWindow: row.context_window,
  maxOutputTokens: row.max_output_tokens,
  prices: toPrices(row),
})
