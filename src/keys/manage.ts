import { joinTransaction, query, statement, type Database, type Transaction } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import type { Secret } from '../protocol/secret.ts'
import { SCOPES, type Scope } from './scopes.ts'
import { missingUser } from './users.ts'
import { formatToken, hashTokenSecret, newTokenSecret, parseToken, sameHash } from './token.ts'

export interface ApiKeyView {
  id: string
  userId: string
  name: string
  scopes: string[]
  expiresAt: string | null
  revokedAt: string | null
  lastUsedAt: string | null
  createdAt: string
}

export interface NewApiKey {
  userId: string
  name: string
  scopes: readonly Scope[]
  expiresAt: Date | null
}

interface ApiKeyRow {
  id: string
  userId: string
  name: string
  scopes: string[]
  expiresAt: Date | null
  revokedAt: Date | null
  lastUsedAt: Date | null
  createdAt: Date
}

const toView = (row: ApiKeyRow): ApiKeyView => ({
  id: row.id,
  userId: row.userId,
  name: row.name,
  scopes: row.scopes,
  expiresAt: row.expiresAt?.toISOString() ?? null,
  revokedAt: row.revokedAt?.toISOString() ?? null,
  lastUsedAt: row.lastUsedAt?.toISOString() ?? null,
  createdAt: row.createdAt.toISOString(),
})

/** Until the transaction ends its role and status stay. $1 user. */
const holdOwner = statement(
  'keys/hold-owner',
  `select role from users where id = $1 and status <> 'deleted' for share`,
)

/**
 * Makes a key. The token is given this once and cannot be had again.
 *
 * @throws {TurnmillError} `not_found` where there is no such user, `invalid_request` where their role does not allow a scope.
 */
export function createApiKey(
  db: Database,
  pepper: Secret,
  key: NewApiKey,
): Promise<{ apiKey: ApiKeyView; token: Secret }> {
  const id = newId()
  const secret = newTokenSecret()
  return joinTransaction(db, async ({ prisma }, tx) => {
    await demandRole(tx, key)
    const row = await prisma.apiKey.create({
      data: {
        id,
        userId: key.userId,
        name: key.name,
        scopes: [...key.scopes],
        expiresAt: key.expiresAt,
        secretHash: bytes(hashTokenSecret(pepper, secret)),
      },
    })
    return { apiKey: toView(row), token: formatToken({ id, secret }) }
  })
}

/** U2. */
async function demandRole(tx: Transaction, { userId, scopes }: NewApiKey): Promise<void> {
  const [owner] = await tx.query<{ role: string }>(holdOwner(userId))
  if (owner === undefined) throw missingUser(userId)
  if (scopes.includes('admin') && owner.role !== 'admin')
    throw new TurnmillError(
      'invalid_request',
      `scopes: user ${userId} is a ${owner.role}, and admin is for admins; leave it out, or make the user an admin first`,
    )
}

const bytes = (buffer: Buffer): Uint8Array<ArrayBuffer> => Uint8Array.from(buffer)

/** A user's keys, newest first; everybody's for `null`. */
export async function listApiKeys(db: Database, userId: string | null): Promise<ApiKeyView[]> {
  const rows = await db.prisma.apiKey.findMany({
    where: userId === null ? {} : { userId },
    orderBy: { id: 'desc' },
  })
  return rows.map(toView)
}

/**
 * Revokes a key; its queued turns make no call, its running ones stop with the next lease renewal.
 *
 * @param userId the owner it must belong to; `null` for anybody's.
 * @throws {TurnmillError} `not_found`.
 */
export async function revokeApiKey(db: Database, id: string, userId: string | null): Promise<void> {
  const where = { id, ...(userId === null ? {} : { userId }) }
  const { count } = await db.prisma.apiKey.updateMany({
    where: { ...where, revokedAt: null },
    data: { revokedAt: new Date() },
  })
  if (count > 0) return
  const known = await db.prisma.apiKey.count({ where })
  if (known === 0) throw new TurnmillError('not_found', `API key ${id} does not exist`)
}

/** $1 key, whose id its user has, too: of processes that begin together one makes both. $2 hash, $3 scopes. */
const insertBootstrap = statement(
  'keys/bootstrap',
  `with admin as (
    insert into users (id, name, role) select $1, 'admin', 'admin' where not exists (select 1 from api_keys where id = $1)
    on conflict (id) do nothing returning id)
  insert into api_keys (id, user_id, name, secret_hash, scopes)
  select $1, id, 'bootstrap', $2, $3 from admin on conflict (id) do nothing`,
)

/** $1 key. */
const readHash = statement('keys/bootstrap-hash', 'select secret_hash from api_keys where id = $1')

/** $1 key. The ID of a bootstrap key is its user's, too. */
const otherBootstraps = statement(
  'keys/other-bootstraps',
  `select k.id from api_keys k join users u on u.id = k.user_id
  where k.id = k.user_id and k.id <> $1 and k.revoked_at is null and u.status = 'active' order by k.id`,
)

/**
 * Sees to it that the deployment's first admin key exists. A key that is there already is left as it is, so that
 * revoking it lasts.
 *
 * @param onOthers told of the bootstrap keys of earlier starts that can still be used, where there are any.
 * @throws {Error} where the token is not of the form `tm_<id>_<secret>`, or is not the one that is stored.
 */
export async function ensureBootstrapKey(
  db: Database,
  pepper: Secret,
  token: Secret,
  onOthers: (apiKeyIds: readonly string[]) => void = () => undefined,
): Promise<string> {
  const parsed = parseToken(token.reveal())
  if (parsed === null)
    throw new Error(
      'TURNMILL_BOOTSTRAP_API_KEY is not of the form tm_<32 hex digits>_<43 characters of base64url>',
    )
  const { id } = parsed
  const hash = hashTokenSecret(pepper, parsed.secret)
  await query(db, insertBootstrap(id, hash, [...SCOPES]))
  const [stored] = await query<{ secret_hash: Buffer }>(db, readHash(id))
  if (stored !== undefined && !sameHash(hash, stored.secret_hash)) throw misfit(id)
  const others = await query<{ id: string }>(db, otherBootstraps(id))
  if (others.length > 0) onOthers(others.map((other) => other.id))
  return id
}

/** A process with the wrong pepper would refuse every key. */
const misfit = (id: string): Error =>
  new Error(
    `API key ${id} is stored with another hash: TURNMILL_API_KEY_PEPPER or TURNMILL_BOOTSTRAP_API_KEY has another value than when it was stored; set that again, or, where the pepper is lost and with it every API key, a bootstrap key with an ID of its own`,
  )

/** A token for a first key, made where none was given. */
export const newToken = (): Secret => formatToken({ id: newId(), secret: newTokenSecret() })
