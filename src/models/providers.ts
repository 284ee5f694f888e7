import { isUniqueViolation, type Database } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import type { ProviderType } from '../protocol/routes.ts'
import type { Secret } from '../protocol/secret.ts'
import type { Encryption } from './encryption.ts'
import type { ExtraHeaders } from './extra-headers.ts'
import { toStoredKey, type ProviderKeyView } from './provider-keys.ts'
import { withDefault } from './with-default.ts'

/** A provider as an admin sees it: its credentials as hints only. */
export interface ProviderView {
  id: string
  name: string
  type: ProviderType
  baseUrl: string
  enabled: boolean
  allowByok: boolean
  attribution: boolean
  extraHeaders: ExtraHeaders
  keys: ProviderKeyView[]
  createdAt: string
}

export interface NewProvider {
  name: string
  type: ProviderType
  baseUrl: string
  enabled: boolean
  allowByok: boolean
  attribution: boolean
  /** None where they are left out. */
  extraHeaders?: ExtraHeaders
  /** Central credentials, in the order of failover. */
  keys: readonly Secret[]
}

/** What is left out stays; `extraHeaders` are replaced as a whole. */
export type ProviderChange = Partial<
  Pick<NewProvider, 'enabled' | 'allowByok' | 'attribution' | 'baseUrl' | 'extraHeaders'>
>

/** @throws {TurnmillError} `conflict` where the name is taken. */
export async function createProvider(
  db: Database,
  encryption: Encryption,
  provider: NewProvider,
): Promise<ProviderView> {
  const { keys, name, type, ...change } = provider
  const stored = keys.map((key, position) => toStoredKey(encryption, key, position))
  try {
    const row = await db.prisma.provider.create({
      data: {
        id: newId(),
        name,
        type,
        ...toColumns(change),
        baseUrl: withoutTrailingSlash(change.baseUrl),
        keys: { create: stored },
      },
      include: WITH_KEYS,
    })
    return toProviderView(row)
  } catch (error) {
    if (isUniqueViolation(error))
      throw new TurnmillError('conflict', `a provider named ${name} exists already`)
    throw error
  }
}

const withoutTrailingSlash = (url: string): string => url.replace(/\/+$/, '')

const toColumns = ({ baseUrl, extraHeaders, ...columns }: ProviderChange) => ({
  ...columns,
  ...(baseUrl === undefined ? {} : { baseUrl: withoutTrailingSlash(baseUrl) }),
  ...(extraHeaders === undefined ? {} : { extraHeaders: { ...extraHeaders } }),
})

const WITH_KEYS = { keys: { orderBy: { position: 'asc' } } } as const

type ProviderRow = Awaited<ReturnType<typeof findProviders>>[number]

const findProviders = (db: Database) =>
  db.prisma.provider.findMany({ include: WITH_KEYS, orderBy: { name: 'asc' } })

const toProviderView = (row: ProviderRow): ProviderView => ({
  id: row.id,
  name: row.name,
  type: row.type as ProviderType,
  baseUrl: row.baseUrl,
  enabled: row.enabled,
  allowByok: row.allowByok,
  attribution: row.attribution,
  extraHeaders: row.extraHeaders as ExtraHeaders,
  keys: row.keys.map(({ id, position, hint }) => ({ id, position, hint })),
  createdAt: row.createdAt.toISOString(),
})

/** By name. */
export const listProviders = async (db: Database): Promise<ProviderView[]> =>
  (await findProviders(db)).map(toProviderView)

const missing = (id: string): TurnmillError => new TurnmillError('not_found', `provider ${id} does not exist`)

/** @throws {TurnmillError} `not_found`. */
export async function readProvider(db: Database, id: string): Promise<ProviderView> {
  const row = await db.prisma.provider.findUnique({ where: { id }, include: WITH_KEYS })
  if (row === null) throw missing(id)
  return toProviderView(row)
}

/** @throws {TurnmillError} `not_found`. */
export async function updateProvider(
  db: Database,
  id: string,
  change: ProviderChange,
): Promise<ProviderView> {
  const { count } = await db.prisma.provider.updateMany({ where: { id }, data: toColumns(change) })
  if (count === 0) throw missing(id)
  return readProvider(db, id)
}

/**
 * Its credentials go with it; model configs stay, and cannot be used.
 *
 * @throws {TurnmillError} `not_found`, `conflict` where the default model is one of its own.
 */
export const deleteProvider = (db: Database, id: string): Promise<void> =>
  withDefault(db, async ({ prisma }) => {
    const found = await prisma.modelConfig.findFirst({ where: { providerId: id, isDefault: true } })
    if (found !== null) throw servesDefault(id, found)
    const { count } = await prisma.provider.deleteMany({ where: { id } })
    if (count === 0) throw missing(id)
  })

const servesDefault = (id: string, model: { id: string; model: string }): TurnmillError =>
  new TurnmillError(
    'conflict',
    `provider ${id} has the default model config ${model.id} (${model.model}); make a model of another provider the default first, or delete every model config`,
  )
