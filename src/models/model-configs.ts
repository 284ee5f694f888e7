import { query, statement, type Database } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import type { ModelOptions } from './model-options.ts'
import { withDefault } from './with-default.ts'

/**
 * Models as an admin describes them.
 *
 * M1 one of them is the default, from the first enabled one on: another one takes its place, and it can be taken away only
 * with the last one; its provider stays with it. It may be disabled; what nobody has chosen a model for then fails as `model_config_missing`, since no
 * model is put in its place that nobody has asked for.
 */
export interface ModelConfigView {
  id: string
  providerId: string | null
  /** Its name at the provider. */
  model: string
  displayName: string
  enabled: boolean
  isDefault: boolean
  /** In tokens. */
  contextWindow: number | null
  maxOutputTokens: number | null
  /** Share of the context window, in percent. */
  compactionThreshold: number | null
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
  /** The default where it is left out. */
  compactionThreshold?: number | null
  options: ModelOptions
  prices: ModelPrices
}

/** What is left out stays, of the prices as well; `options` are replaced as a whole. */
export type ModelConfigChange = Partial<Omit<NewModelConfig, 'prices'>> & { prices?: Partial<ModelPrices> }

/**
 * Makes a model config; the first enabled one is the default.
 *
 * @throws {TurnmillError} `not_found` where the provider does not exist.
 */
export async function createModelConfig(db: Database, config: NewModelConfig): Promise<ModelConfigView> {
  await demandProvider(db, config.providerId)
  return withDefault(db, async ({ prisma }) => {
    const isFirst = config.enabled && (await prisma.modelConfig.count({ where: { isDefault: true } })) === 0
    const isDefault = config.isDefault || isFirst
    if (isDefault) await dethrone(prisma)
    const { prices, options, ...columns } = config
    const data = { ...columns, options: { ...options }, ...toPriceColumns(prices) }
    return toModelConfigView(await prisma.modelConfig.create({ data: { id: newId(), ...data, isDefault } }))
  })
}

type Prisma = Database['prisma']

const dethrone = (prisma: Prisma) =>
  prisma.modelConfig.updateMany({ where: { isDefault: true }, data: { isDefault: false } })

async function demandProvider({ prisma }: Database, id: string): Promise<void> {
  if ((await prisma.provider.count({ where: { id } })) === 0)
    throw new TurnmillError('not_found', `provider ${id} does not exist`)
}

/** @throws {TurnmillError} `not_found`, `conflict` where the default would be no more while another one could be it. */
export async function updateModelConfig(
  db: Database,
  id: string,
  change: ModelConfigChange,
): Promise<ModelConfigView> {
  if (change.providerId !== undefined) await demandProvider(db, change.providerId)
  return withDefault(db, async (joined) => {
    const { prisma } = joined
    const before = await readModelConfig(joined, id)
    if (before.isDefault && change.isDefault === false) await demandNoOther(prisma, before)
    if (change.isDefault === true) await dethrone(prisma)
    const { prices = {}, options, ...columns } = change
    const data = { ...columns, ...(options === undefined ? {} : { options: { ...options } }), ...toPriceColumns(prices) } // prettier-ignore
    return toModelConfigView(await prisma.modelConfig.update({ where: { id }, data }))
  })
}

/**
 * Chats that have chosen it fall to the next choice, and so does who has set an override to it.
 *
 * @throws {TurnmillError} `not_found`, `conflict` where it is the default and another one could be it.
 */
export const deleteModelConfig = (db: Database, id: string): Promise<void> =>
  withDefault(db, async (joined) => {
    const found = await readModelConfig(joined, id)
    if (found.isDefault) await demandNoOther(joined.prisma, found)
    await query(joined, removeModelConfig(id))
  })

/** $1 model config. */
const removeModelConfig = statement('models/remove-config', 'delete from model_configs where id = $1')

/** M1. */
async function demandNoOther(prisma: Prisma, { id, model }: ModelConfigView): Promise<void> {
  if ((await prisma.modelConfig.count({ where: { id: { not: id } } })) > 0)
    throw new TurnmillError(
      'conflict',
      `model config ${id} (${model}) is the default; make another one the default first`,
    )
}

const PRICE_COLUMNS = {
  input: 'inputPriceMicros',
  output: 'outputPriceMicros',
  cacheRead: 'cacheReadPriceMicros',
  cacheWrite: 'cacheWritePriceMicros',
} as const satisfies Record<keyof ModelPrices, string>

/** Those that are there. */
function toPriceColumns(prices: Partial<ModelPrices>): Partial<Record<PriceColumn, number | null>> {
  const given = Object.entries(prices) as [keyof ModelPrices, number | null][]
  return Object.fromEntries(given.map(([name, price]) => [PRICE_COLUMNS[name], price]))
}

type PriceColumn = (typeof PRICE_COLUMNS)[keyof ModelPrices]

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
  compactionThreshold: row.compactionThreshold,
  options: row.options as ModelOptions,
  prices: {
    input: numberOrNull(row.inputPriceMicros),
    output: numberOrNull(row.outputPriceMicros),
    cacheRead: numberOrNull(row.cacheReadPriceMicros),
    cacheWrite: numberOrNull(row.cacheWritePriceMicros),
  },
  createdAt: row.createdAt.toISOString(),
})

/** The oldest first. */
export const listModelConfigs = async (db: Database): Promise<ModelConfigView[]> =>
  (await findModelConfigs(db)).map(toModelConfigView)

/** @throws {TurnmillError} `not_found`. */
export async function readModelConfig({ prisma }: Database, id: string): Promise<ModelConfigView> {
  const row = await prisma.modelConfig.findUnique({ where: { id } })
  if (row === null) throw new TurnmillError('not_found', `model config ${id} does not exist`)
  return toModelConfigView(row)
}

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
