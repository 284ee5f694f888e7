import path from 'node:path'
import type { Config } from '../config/index.ts'
import { startEmbeddedPostgres } from '../db/embedded.ts'
import type { Database } from '../db/index.ts'
import type { Encryption } from '../models/index.ts'
import { demandDirectory, withLocalSecrets } from './secrets.ts'
import { readSealed } from './sealed.ts'
import { needsSimulated, seedProvider, seedsOf, simulatedSeed } from './seed.ts'
import { startSimulatedProvider, type SimulatedProvider } from './simulated-provider.ts'

/** What was started because it was not configured, and how it is stopped. */
export interface LocalGround {
  config: Config
  stop(): Promise<void>
}

/** Fills in what the configuration leaves open: a Postgres, and the secrets. */
export async function startLocalGround(given: Config): Promise<LocalGround> {
  const { url, stop } = await startPostgres(given)
  try {
    const config = await withLocalSecrets({ ...given, databaseUrl: url }, () => readSealed(given, url))
    return { config, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

interface LocalPostgres {
  url: string
  stop(): Promise<void>
}

async function startPostgres({ databaseUrl, dataDir }: Config): Promise<LocalPostgres> {
  if (databaseUrl !== null) return { url: databaseUrl, stop: async () => undefined }
  demandDirectory(dataDir)
  return startEmbeddedPostgres({ dataDir: path.resolve(dataDir, 'postgres') })
}

/** What seeding a provider takes. */
export interface ProviderGround {
  config: Config
  db: Database
  encryption: Encryption
}

/** Sees to it that there is a provider: those whose key is set, what is there already, and the simulated one while it is needed. */
export async function startProviders({
  config,
  db,
  encryption,
}: ProviderGround): Promise<SimulatedProvider | null> {
  for (const seed of seedsOf(config)) await seedProvider(db, encryption, seed)
  if (!(await needsSimulated(db))) return null
  const simulated = await startSimulatedProvider()
  await seedProvider(db, encryption, simulatedSeed(simulated.url))
  return simulated
}
