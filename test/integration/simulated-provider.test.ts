/** For how long `npm start` runs the simulated provider. */
import { loadConfig } from '../../src/config/index.ts'
import { openDatabase, type Database } from '../../src/db/index.ts'
import { startProviders, type SimulatedProvider } from '../../src/development/index.ts'
import {
  createEncryption,
  createModelConfig,
  createProvider,
  putModelOverride,
  updateModelConfig,
} from '../../src/models/index.ts'
import { Secret } from '../../src/protocol/secret.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { TEST_SECRETS } from '../support/turnmill.ts'

const encryption = createEncryption(new Secret(TEST_SECRETS.TURNMILL_ENCRYPTION_KEYS))

let database: TestDatabase
let db: Database
let started: SimulatedProvider[]
beforeEach(async () => {
  database = await createTestDatabase()
  db = openDatabase({
    url: database.url,
    poolSize: 2,
    connectTimeoutMs: 10_000,
    silenceMs: 10_000,
    applicationName: 'test',
  })
  started = []
})
afterEach(async () => {
  await Promise.all(started.map((simulated) => simulated.stop()))
  await db.close()
  await database.drop()
})

/** A start of the process, as far as providers are concerned. */
async function start(environment: Record<string, string> = {}): Promise<SimulatedProvider | null> {
  const simulated = await startProviders({ config: loadConfig(environment), db, encryption })
  if (simulated !== null) started.push(simulated)
  return simulated
}

const findSimulated = () => db.prisma.provider.findUniqueOrThrow({ where: { name: 'simulated' } })
const simulatedModel = () =>
  db.prisma.modelConfig.findFirstOrThrow({ where: { provider: { name: 'simulated' } } })

async function addOwnModel(): Promise<string> {
  const provider = await createProvider(db, encryption, {
    name: 'own', type: 'openai-compatible', baseUrl: 'http://127.0.0.1:9/v1', enabled: true, allowByok: false,
    attribution: false, keys: [],
  }) // prettier-ignore
  const { id } = await createModelConfig(db, {
    providerId: provider.id, model: 'own-1', displayName: 'Own', enabled: true, isDefault: false, contextWindow: null,
    maxOutputTokens: null, options: {}, prices: { input: null, output: null, cacheRead: null, cacheWrite: null },
  }) // prettier-ignore
  return id
}

test('starts again, at its new address, while the default model is its own', async () => {
  await start()
  await addOwnModel()
  const second = await start()
  expect(second).not.toBeNull()
  expect(await findSimulated()).toMatchObject({ baseUrl: `${second?.url}/v1` })
})

test('starts again beside the provider of a key, while a model of its own is enabled', async () => {
  await start()
  const second = await start({ OPENAI_API_KEY: 'sk-test' })
  expect(await findSimulated()).toMatchObject({ baseUrl: `${second?.url}/v1` })
  expect(await db.prisma.modelConfig.findFirst({ where: { isDefault: true }, include: { provider: true } })).toMatchObject({ provider: { name: 'openai' } }) // prettier-ignore
})

test('starts again while an override leads to it', async () => {
  await start()
  const own = await addOwnModel()
  await updateModelConfig(db, own, { isDefault: true })
  await putModelOverride(db, null, 'title', (await simulatedModel()).id)
  expect(await start()).not.toBeNull()
})

test('starts no more where none of its models can be called and there is another provider', async () => {
  await start()
  const own = await addOwnModel()
  await updateModelConfig(db, own, { isDefault: true })
  await updateModelConfig(db, (await simulatedModel()).id, { enabled: false })
  expect(await start()).toBeNull()
})

test('is neither started nor made where a key is set from the first start on', async () => {
  expect(await start({ ANTHROPIC_API_KEY: 'sk-test' })).toBeNull()
  expect(await db.prisma.provider.count({ where: { name: 'simulated' } })).toBe(0)
})
