import { query, statement, type Database } from '../db/index.ts'
import type { Encryption } from '../models/index.ts'
import type { ProviderType } from '../protocol/routes.ts'
import type { Secret } from '../protocol/secret.ts'

/** What the gateway needs of a call: that its key may call, and where the provider is. */
export interface Authorisation {
  keyUsable: boolean
  provider: {
    name: string
    type: ProviderType
    baseUrl: string
    enabled: boolean
    attribution: boolean
    allowByok: boolean
    extraHeaders: Record<string, string>
    /** The first central credential; `null` where there is none. */
    centralKey: Secret | null
  } | null
}

/** $1 key, $2 provider name. */
const authoriseCall = statement(
  'gateway/authorise',
  `select exists (
      select 1 from api_keys k join users u on u.id = k.user_id
      where k.id = $1 and u.status = 'active' and k.revoked_at is null
        and coalesce(k.expires_at > clock_timestamp(), true)) as key_usable,
    p.name, p.type, p.base_url, p.enabled, p.attribution, p.allow_byok, p.extra_headers, central.id as central_id, central.encrypted
  from (values (1)) one
  left join providers p on p.name = $2
  left join lateral (select id, encrypted from provider_keys k where k.provider_id = p.id order by position limit 1) central on true`,
)

interface AuthorisationRow {
  key_usable: boolean
  name: string | null
  type: ProviderType
  base_url: string
  enabled: boolean
  attribution: boolean
  allow_byok: boolean
  extra_headers: Record<string, string>
  central_id: string | null
  encrypted: string | null
}

/** One round trip. */
export async function authorise(
  db: Database,
  encryption: Encryption,
  apiKeyId: string,
  providerName: string,
): Promise<Authorisation> {
  const [row] = await query<AuthorisationRow>(db, authoriseCall(apiKeyId, providerName))
  if (row === undefined) return { keyUsable: false, provider: null }
  return {
    keyUsable: row.key_usable,
    provider: row.name === null ? null : toProvider(encryption, row, row.name),
  }
}

function toProvider(encryption: Encryption, row: AuthorisationRow, name: string): Authorisation['provider'] {
  const { central_id: rowId, encrypted } = row
  const centralKey =
    rowId === null || encrypted === null
      ? null
      : encryption.decrypt({ table: 'provider_keys', column: 'encrypted', rowId }, encrypted)
  return {
    name,
    type: row.type,
    baseUrl: row.base_url,
    enabled: row.enabled,
    attribution: row.attribution,
    allowByok: row.allow_byok,
    extraHeaders: row.extra_headers,
    centralKey,
  }
}
