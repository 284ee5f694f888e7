import { isUniqueViolation, type Database } from '../db/index.ts'
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
