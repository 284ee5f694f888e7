import { isUniqueViolation, statement, withTransaction, type Database } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import { maskSecret, type Secret } from '../protocol/secret.ts'
import type { Encryption } from './encryption.ts'

/** A central credential as an admin sees it. */
export interface ProviderKeyView {
  id: string
  /** Order of failover, ascending. */
  position: number
  hint: string
}

/** A row for a credential, encrypted for its place. */
export function toStoredKey(encryption: Encryption, key: Secret, position: number) {
  const id = newId()
  const encrypted = encryption.encrypt({ table: 'provider_keys', column: 'encrypted', rowId: id }, key)
  return { id, position, encrypted, hint: maskSecret(key.reveal()) }
}

/** @throws {TurnmillError} `not_found` where the provider does not exist. */
export async function listProviderKeys(db: Database, providerId: string): Promise<ProviderKeyView[]> {
  const provider = await db.prisma.provider.findUnique({
    where: { id: providerId },
    include: { keys: { orderBy: { position: 'asc' }, select: { id: true, position: true, hint: true } } },
  })
  if (provider === null) throw new TurnmillError('not_found', `provider ${providerId} does not exist`)
  return provider.keys
}

/**
 * Adds a credential behind those that are there. A key is replaced by adding the new one and deleting the old.
 *
 * @throws {TurnmillError} `not_found`, `conflict` where another one was added at the same moment.
 */
export async function addProviderKey(
  db: Database,
  encryption: Encryption,
  providerId: string,
  key: Secret,
): Promise<ProviderKeyView> {
  const keys = await listProviderKeys(db, providerId)
  const stored = toStoredKey(encryption, key, (keys.at(-1)?.position ?? -1) + 1)
  try {
    await db.prisma.providerKey.create({ data: { ...stored, providerId } })
  } catch (error) {
    if (isUniqueViolation(error))
      throw new TurnmillError('conflict', 'another key was added at the same moment; send this one again')
    throw error
  }
  return { id: stored.id, position: stored.position, hint: stored.hint }
}

/** @throws {TurnmillError} `not_found`. */
export async function deleteProviderKey(db: Database, providerId: string, id: string): Promise<void> {
  const { count } = await db.prisma.providerKey.deleteMany({ where: { id, providerId } })
  if (count === 0) throw new TurnmillError('not_found', `provider ${providerId} has no key ${id}`)
}

/** $1 provider. Whoever orders its keys holds it until the end. */
const lockProvider = statement('models/lock-provider', 'select id from providers where id = $1 for update')

/** $1 provider. */
const keyIdsOf = statement('models/key-ids', 'select id from provider_keys where provider_id = $1')

/** Out of the way first: no two may share a position in between. $1 provider. */
const clearPositions = statement(
  'models/clear-positions',
  'update provider_keys set position = -1 - position where provider_id = $1',
)

/** $1 provider, $2 keys in their order. */
const setPositions = statement(
  'models/set-positions',
  `update provider_keys k set position = o.place - 1
  from unnest($2::uuid[]) with ordinality o (id, place) where k.id = o.id and k.provider_id = $1`,
)

/**
 * Puts all credentials of a provider into this order of failover, at once.
 *
 * @param keyIds each of its keys, once.
 * @throws {TurnmillError} `not_found`, `invalid_request` where they are not the keys that it has.
 */
export async function orderProviderKeys(
  db: Database,
  providerId: string,
  keyIds: readonly string[],
): Promise<ProviderKeyView[]> {
  await withTransaction(db, async (tx) => {
    const [provider] = await tx.query(lockProvider(providerId))
    if (provider === undefined) throw new TurnmillError('not_found', `provider ${providerId} does not exist`)
    demandAll(keyIds, await tx.query<{ id: string }>(keyIdsOf(providerId)))
    await tx.query(clearPositions(providerId))
    await tx.query(setPositions(providerId, keyIds))
  })
  return listProviderKeys(db, providerId)
}

function demandAll(keyIds: readonly string[], there: readonly { id: string }[]): void {
  const named = new Set(keyIds)
  if (named.size === keyIds.length && named.size === there.length && there.every(({ id }) => named.has(id)))
    return
  throw new TurnmillError(
    'invalid_request',
    `keyIds names ${keyIds.length} keys, expected each of the provider's ${there.length} once`,
  )
}
