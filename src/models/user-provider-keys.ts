import type { Database } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import { maskSecret, type Secret } from '../protocol/secret.ts'
import type { Encryption } from './encryption.ts'

/** A user's own provider key (BYOK), as a hint. */
export interface UserProviderKeyView {
  /** The provider's name. */
  provider: string
  hint: string
}

/** By the provider's name. */
export async function listUserProviderKeys(db: Database, userId: string): Promise<UserProviderKeyView[]> {
  const keys = await db.prisma.userProviderKey.findMany({
    where: { userId },
    select: { hint: true, provider: { select: { name: true } } },
    orderBy: { provider: { name: 'asc' } },
  })
  return keys.map(({ hint, provider }) => ({ provider: provider.name, hint }))
}

/** Stores a user's own provider key in place of an earlier one, and gives its hint. @throws {TurnmillError} `not_found`, `forbidden`. */
export async function putUserProviderKey(
  db: Database,
  encryption: Encryption,
  owner: { userId: string; providerName: string },
  key: Secret,
): Promise<UserProviderKeyView> {
  const provider = await db.prisma.provider.findUnique({ where: { name: owner.providerName } })
  if (provider === null) throw new TurnmillError('not_found', `provider ${owner.providerName} does not exist`)
  if (!provider.allowByok)
    throw new TurnmillError('forbidden', `provider ${provider.name} does not take keys of users`)
  const place = { userId: owner.userId, providerId: provider.id }
  const hint = maskSecret(key.reveal())
  await db.prisma.$transaction(async (tx) => {
    await tx.userProviderKey.deleteMany({ where: place })
    const id = newId()
    const encrypted = encryption.encrypt({ table: 'user_provider_keys', column: 'encrypted', rowId: id }, key)
    await tx.userProviderKey.create({ data: { id, ...place, encrypted, hint } })
  })
  return { provider: provider.name, hint }
}

/** @throws {TurnmillError} `not_found` where there is none. */
export async function deleteUserProviderKey(
  db: Database,
  userId: string,
  providerName: string,
): Promise<void> {
  const { count } = await db.prisma.userProviderKey.deleteMany({
    where: { userId, provider: { name: providerName } },
  })
  if (count === 0)
    throw new TurnmillError('not_found', `there is no key of yours for provider ${providerName}`)
}
