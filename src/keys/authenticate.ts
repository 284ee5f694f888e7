import { LRUCache } from 'lru-cache'
import { query, statement, type Database } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import type { Secret } from '../protocol/secret.ts'
import type { Scope } from './scopes.ts'
import { hashTokenSecret, parseToken, sameHash } from './token.ts'

/** Who calls: a living key and its active owner. */
export interface Principal {
  apiKeyId: string
  userId: string
  userName: string
  role: 'admin' | 'member'
  scopes: readonly Scope[]
}

/** $1 key, $2 hash of the secret that was sent. A use with the right one is noted once a minute at most, in the same round trip. */
const readKey = statement(
  'keys/find',
  `with used as (
    update api_keys set last_used_at = clock_timestamp()
    where id = $1 and secret_hash = $2 and (last_used_at is null or last_used_at < clock_timestamp() - interval '1 minute'))
  select k.id, k.secret_hash, k.scopes, u.id as user_id, u.name as user_name, u.role,
    u.status = 'active' and k.revoked_at is null and coalesce(k.expires_at > clock_timestamp(), true) as usable
  from api_keys k join users u on u.id = k.user_id where k.id = $1`,
)

/** $1 keys. */
const usableKeys = statement(
  'keys/usable',
  `select k.id from api_keys k join users u on u.id = k.user_id
  where k.id = any($1) and u.status = 'active' and k.revoked_at is null
    and coalesce(k.expires_at > clock_timestamp(), true)`,
)

/** Those of these keys that may be used. */
export async function findUsableKeys(db: Database, apiKeyIds: readonly string[]): Promise<Set<string>> {
  const rows = await query<{ id: string }>(db, usableKeys(apiKeyIds))
  return new Set(rows.map((row) => row.id))
}

export interface KeyRow {
  id: string
  secret_hash: Buffer
  scopes: Scope[]
  user_id: string
  user_name: string
  role: 'admin' | 'member'
  usable: boolean
}

/** Looks a key up by its ID. With the right hash of a secret the key counts as used; comparing it is the caller's. */
export type FindKey = (id: string, secretHash: Buffer) => Promise<KeyRow | undefined>

/** In Postgres, each time: one round trip. */
export const findKeyIn =
  (db: Database): FindKey =>
  async (id, secretHash) =>
    (await query<KeyRow>(db, readKey(id, secretHash)))[0]

/** Keys that a process remembers, at most. */
const MAX_REMEMBERED = 1000

/**
 * Remembers what was found for so long, in ms: for requests whose right is looked at once more where it counts. A secret
 * is compared each time.
 */
export function rememberKeys(findKey: FindKey, ttlMs: number): FindKey {
  const remembered = new LRUCache<string, KeyRow>({ max: MAX_REMEMBERED, ttl: ttlMs })
  return async (id, secretHash) => {
    const known = remembered.get(id)
    if (known !== undefined) return known
    const found = await findKey(id, secretHash)
    if (found?.usable === true && sameHash(secretHash, found.secret_hash)) remembered.set(id, found)
    return found
  }
}

/** Compared against where there is no such key, so that its absence takes as long as a wrong secret. */
const NO_HASH = Buffer.alloc(32)

/**
 * Finds out who sent a token.
 *
 * @throws {TurnmillError} `unauthenticated`, with one text for every cause.
 */
export async function authenticate(
  findKey: FindKey,
  pepper: Secret,
  token: string | null,
): Promise<Principal> {
  const parsed = token === null ? null : parseToken(token)
  if (parsed === null) throw unauthenticated()
  const hash = hashTokenSecret(pepper, parsed.secret)
  const row = await findKey(parsed.id, hash)
  const matches = sameHash(hash, row?.secret_hash ?? NO_HASH)
  if (row === undefined || !matches || !row.usable) throw unauthenticated()
  return {
    apiKeyId: row.id,
    userId: row.user_id,
    userName: row.user_name,
    role: row.role,
    scopes: row.scopes,
  }
}

const unauthenticated = (): TurnmillError =>
  new TurnmillError(
    'unauthenticated',
    'the request carries no usable API key, expected Authorization: Bearer tm_<id>_<secret> with a key of Turnmill that is complete, neither revoked nor expired, and of an active user; POST /v1/api-keys makes a new one', // prettier-ignore
  )

/** @throws {TurnmillError} `forbidden` where the key lacks the scope, or `admin` its owner the role. */
export function demandScope(principal: Principal, scope: Scope): void {
  if (!principal.scopes.includes(scope))
    throw new TurnmillError('forbidden', `the API key lacks the scope ${scope}`)
  if (scope === 'admin' && principal.role !== 'admin')
    throw new TurnmillError('forbidden', 'the owner of the API key is not an admin')
}
