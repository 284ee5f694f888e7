import type { Config } from '../config/index.ts'
import type { Database } from '../db/index.ts'
import { createModelConfig, createProvider, updateModelConfig, type Encryption } from '../models/index.ts'
import { Secret } from '../protocol/secret.ts'
import type { ProviderType } from '../protocol/routes.ts'

interface Seed {
  name: string
  type: ProviderType
  baseUrl: string
  key: Secret
  model: string
  attribution: boolean
}

/** The provider that stands in where no key is set. */
export const SIMULATED = 'simulated'

/** The real providers whose key is in the environment. */
export function seedsOf(config: Config): Seed[] {
  const seeds: Seed[] = []
  const { openaiApiKey, openaiModel, anthropicApiKey, anthropicModel } = config
  if (openaiApiKey !== null)
    seeds.push({
      name: 'openai',
      type: 'openai',
      baseUrl: 'https://api.openai.com/v1',
      key: openaiApiKey,
      model: openaiModel,
      attribution: false,
    })
  if (anthropicApiKey !== null)
    seeds.push({
      name: 'anthropic',
      type: 'anthropic',
      baseUrl: 'https://api.anthropic.com',
      key: anthropicApiKey,
      model: anthropicModel,
      attribution: false,
    })
  return seeds
}

/** @param url of the simulated provider; our own, so it is told whose call it is. */
export const simulatedSeed = (url: string): Seed => ({
  name: SIMULATED,
  type: 'openai',
  baseUrl: `${url}/v1`,
  key: new Secret('simulated-provider-key'),
  model: 'simulated-1',
  attribution: true,
})

/** Whether there is no other provider, or a model of the simulated one may still be called: as the default, by an override, by a chat. */
export async function needsSimulated({ prisma }: Database): Promise<boolean> {
  const [others, models] = await Promise.all([
    prisma.provider.count({ where: { name: { not: SIMULATED } } }),
    prisma.modelConfig.count({ where: { enabled: true, provider: { name: SIMULATED } } }),
  ])
  return others === 0 || models > 0
}

/** Sees to it that the provider is there with this key and address, and that there is a default model. */
export async function seedProvider(db: Database, encryption: Encryption, seed: Seed): Promise<void> {
  const { name, type, baseUrl, key, attribution } = seed
  const known = await db.prisma.provider.findUnique({ where: { name } })
  if (known === null) {
    const provider = await createProvider(db, encryption, {
      name,
      type,
      baseUrl,
      attribution,
      enabled: true,
      allowByok: true,
      keys: [key],
    })
    await seedModel(db, provider.id, seed)
    return
  }
  await db.prisma.provider.update({ where: { name }, data: { baseUrl } })
  await replaceFirstKey(db, encryption, known.id, key)
}

async function replaceFirstKey(
  db: Database,
  encryption: Encryption,
  providerId: string,
  key: Secret,
): Promise<void> {
  const first = await db.prisma.providerKey.findFirst({ where: { providerId }, orderBy: { position: 'asc' } })
  if (first === null) return
  const encrypted = encryption.encrypt({ table: 'provider_keys', column: 'encrypted', rowId: first.id }, key)
  await db.prisma.providerKey.update({ where: { id: first.id }, data: { encrypted } })
}

/** The first real model takes the place of the simulated one as the default. */
async function seedModel(db: Database, providerId: string, { model, name }: Seed): Promise<void> {
  const current = await db.prisma.modelConfig.findFirst({
    where: { isDefault: true },
    include: { provider: true },
  })
  const config = await createModelConfig(db, {
    providerId, model, displayName: model, enabled: true, isDefault: false, contextWindow: null, maxOutputTokens: null,
    options: {}, prices: { input: null, output: null, cacheRead: null, cacheWrite: null },
  }) // prettier-ignore
  const takesOver = current === null || (current.provider?.name === SIMULATED && name !== SIMULATED)
  if (takesOver) await updateModelConfig(db, config.id, { isDefault: true })
}
