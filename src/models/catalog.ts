import { isUniqueViolation, query, statement, type Database } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import type { ProviderType } from '../protocol/routes.ts'
import { maskSecret, type Secret } from '../protocol/secret.ts'
import type { Encryption } from './encryption.ts'
import { toStoredKey } from './provider-keys.ts'
import type { ModelOptions } from './route-facts.ts'

/** A provider as an admin sees it: its credentials as hints only. */
export interface ProviderView {
  id: string
  name: string
  type: ProviderType
  baseUrl: string
  enabled: boolean
  allowByok: boolean
  attribution: boolean
  keys: { id: string; position: number; hint: string }[]
  createdAt: string
}

export interface NewProvider {
  name: string
  type: ProviderType
  baseUrl: string
  enabled: boolean
  allowByok: boolean
  attribution: boolean
  /** Central credentials, in the order of failover. */
  keys: readonly Secret[]
}

export interface ModelConfigView {
  id: string
  providerId: string | null
  model: string
  displayName: string
  enabled: boolean
  isDefault: boolean
  contextWindow: number | null
  maxOutputTokens: number | null
  options: ModelOptions
  prices: ModelPrices
  createdAt: string
}

/** Micro-dollars per million tokens. */
export interface ModelPrices {
  input: number | null
  output: number | null
  cacheRead: number | null
  cacheWrite: number | null
}

export interface NewModelConfig {
  providerId: string
  model: string
  displayName: string
  enabled: boolean
  isDefault: boolean
  contextWindow: number | null
  maxOutputTokens: number | null
  options: ModelOptions
  prices: ModelPrices
}

/** @throws {TurnmillError} `conflict` where the name is taken. */
export async function createProvider(
  db: Database,
  encryption: Encryption,
  provider: NewProvider,
): Promise<ProviderView> {
  const { keys, ...columns } = provider
  const stored = keys.map((key, position) => toStoredKey(encryption, key, position))
  try {
    const row = await db.prisma.provider.create({
      data: {
        id: newId(),
        ...columns,
        baseUrl: withoutTrailingSlash(columns.baseUrl),
        keys: { create: stored },
      },
      include: { keys: true },
    })
    return toProviderView(row)
  } catch (error) {
    if (isUniqueViolation(error))
      throw new TurnmillError('conflict', `a provider named ${provider.name} exists already`)
    throw error
  }
}

const withoutTrailingSlash = (url: string): string => url.replace(/\/+$/, '')

type ProviderRow = Awaited<ReturnType<typeof findProviders>>[number]

const findProviders = (db: Database) =>
  db.prisma.provider.findMany({
    include: { keys: { orderBy: { position: 'asc' } } },
    orderBy: { name: 'asc' },
  })

const toProviderView = (row: ProviderRow): ProviderView => ({
  id: row.id,
  name: row.name,
  type: row.type as ProviderType,
  baseUrl: row.baseUrl,
  enabled: row.enabled,
  allowByok: row.allowByok,
  attribution: row.attribution,
  keys: row.keys.map(({ id, position, hint }) => ({ id, position, hint })),
  createdAt: row.createdAt.toISOString(),
})

export const listProviders = async (db: Database): Promise<ProviderView[]> =>
  (await findProviders(db)).map(toProviderView)

/** @throws {TurnmillError} `not_found`. */
export async function updateProvider(
  db: Database,
  id: string,
  change: Partial<Pick<NewProvider, 'enabled' | 'allowByok' | 'attribution' | 'baseUrl'>>,
): Promise<ProviderView> {
  const data =
    change.baseUrl === undefined ? change : { ...change, baseUrl: withoutTrailingSlash(change.baseUrl) }
  const { count } = await db.prisma.provider.updateMany({ where: { id }, data })
  if (count === 0) throw new TurnmillError('not_found', `provider ${id} does not exist`)
  return toProviderView(
    await db.prisma.provider.findUniqueOrThrow({
      where: { id },
      include: { keys: { orderBy: { position: 'asc' } } },
    }),
  )
}

/** Its credentials go with it; model configs stay, and cannot be used. @throws {TurnmillError} `not_found`. */
export async function deleteProvider(db: Database, id: string): Promise<void> {
  const { count } = await db.prisma.provider.deleteMany({ where: { id } })
  if (count === 0) throw new TurnmillError('not_found', `provider ${id} does not exist`)
}

/** @throws {TurnmillError} `not_found` where the provider does not exist. */
export async function createModelConfig(db: Database, config: NewModelConfig): Promise<ModelConfigView> {
  const { prices, ...columns } = config
  const provider = await db.prisma.provider.count({ where: { id: config.providerId } })
  if (provider === 0) throw new TurnmillError('not_found', `provider ${config.providerId} does not exist`)
  return db.prisma.$transaction(async (tx) => {
    if (config.isDefault)
      await tx.modelConfig.updateMany({ where: { isDefault: true }, data: { isDefault: false } })
    const data = { id: newId(), ...columns, options: { ...columns.options }, ...toPriceColumns(prices) }
    return toModelConfigView(await tx.modelConfig.create({ data }))
  })
}

export type ModelConfigChange = Partial<
  Pick<
    NewModelConfig,
    'enabled' | 'isDefault' | 'displayName' | 'maxOutputTokens' | 'contextWindow' | 'options'
  >
>

/** @throws {TurnmillError} `not_found`. */
export async function updateModelConfig(
  db: Database,
  id: string,
  change: ModelConfigChange,
): Promise<ModelConfigView> {
  const { options, ...columns } = change
  return db.prisma.$transaction(async (tx) => {
    if (change.isDefault === true)
      await tx.modelConfig.updateMany({ where: { isDefault: true }, data: { isDefault: false } })
    const data = { ...columns, ...(options === undefined ? {} : { options: { ...options } }) }
    const { count } = await tx.modelConfig.updateMany({ where: { id }, data })
    if (count === 0) throw new TurnmillError('not_found', `model config ${id} does not exist`)
    return toModelConfigView(await tx.modelConfig.findUniqueOrThrow({ where: { id } }))
  })
}

const toPriceColumns = (prices: ModelPrices) => ({
  inputPriceMicros: prices.input,
  outputPriceMicros: prices.output,
  cacheReadPriceMicros: prices.cacheRead,
  cacheWritePriceMicros: prices.cacheWrite,
})

const findModelConfigs = (db: Database) => db.prisma.modelConfig.findMany({ orderBy: { id: 'asc' } })

type ModelConfigRow = Awaited<ReturnType<typeof findModelConfigs>>[number]

const numberOrNull = (value: bigint | null): number | null => (value === null ? null : Number(value))

const toModelConfigView = (row: ModelConfigRow): ModelConfigView => ({
  id: row.id,
  providerId: row.providerId,
  model: row.model,
  displayName: row.displayName,
  enabled: row.enabled,
  isDefault: row.isDefault,
  contextWindow: row.contextWindow,
  maxOutputTokens: row.maxOutputTokens,
  options: row.options as ModelOptions,
  prices: {
    input: numberOrNull(row.inputPriceMicros),
    output: numberOrNull(row.outputPriceMicros),
    cacheRead: numberOrNull(row.cacheReadPriceMicros),
    cacheWrite: numberOrNull(row.cacheWritePriceMicros),
  },
  createdAt: row.createdAt.toISOString(),
})

export const listModelConfigs = async (db: Database): Promise<ModelConfigView[]> =>
  (await findModelConfigs(db)).map(toModelConfigView)

/** $1 model config. */
const usableModelConfig = statement('models/usable', 'select id from model_configs where id = $1 and enabled')

/**
 * That a model config which a caller names can be used.
 *
 * @throws {TurnmillError} `invalid_request` where it does not exist or is disabled.
 */
export async function demandModelConfig(db: Database, id: string | null): Promise<void> {
  if (id === null) return
  const [found] = await query(db, usableModelConfig(id))
  if (found === undefined)
    throw new TurnmillError(
      'invalid_request',
      `modelConfigId: model config ${id} does not exist or is disabled`,
    )
}

/** Stores a user's own provider key (BYOK) in place of an earlier one, and gives its hint. @throws {TurnmillError} `not_found`, `forbidden`. */
export async function putUserProviderKey(
  db: Database,
  encryption: Encryption,
  owner: { userId: string; providerName: string },
  key: Secret,
): Promise<{ provider: string; hint: string }> {
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
