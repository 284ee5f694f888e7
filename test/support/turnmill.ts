import type { AddressInfo } from 'node:net'
import { joinTransaction, openDatabase, query, statement, type Database } from '../../src/db/index.ts'
import { createApp } from '../../src/app.ts'
import { createAuxiliaryWorker } from '../../src/auxiliary-worker.ts'
import { loadConfig, type Config } from '../../src/config/index.ts'
import { createApiKey, DEFAULT_SCOPES, SCOPES, type Scope } from '../../src/keys/index.ts'
import {
  createModelConfig,
  createProvider,
  type ModelConfigView,
  type ProviderView,
  type SendToProvider,
} from '../../src/models/index.ts'
import { toTurnError } from '../../src/protocol/errors.ts'
import { newId } from '../../src/protocol/ids.ts'
import type { ProviderType, WireFormat } from '../../src/protocol/routes.ts'
import { Secret } from '../../src/protocol/secret.ts'
import { openServices, type Services } from '../../src/services.ts'
import { createLogger } from '../../src/telemetry/logger.ts'
import type { Tool } from '../../src/tools/index.ts'
import { createTurnWorker } from '../../src/turn-worker.ts'
import type { Worker } from '../../src/worker.ts'
import { createClient, type TestClient } from './client.ts'
import { createTestDatabase } from './database.ts'
import { startFakeUpstream, type FakeUpstream } from './fake-upstream.ts'
import { testRedisUrl } from './redis.ts'

export type BackendKind = 'redis' | 'postgres'

export const BACKENDS: readonly BackendKind[] = ['redis', 'postgres']

export const CENTRAL_KEY = 'central-provider-key-0001'

/** Secrets of the tests' deployment; made up here, used nowhere else. */
export const TEST_SECRETS = {
  TURNMILL_API_KEY_PEPPER: Buffer.alloc(32, 7).toString('base64'),
  TURNMILL_ENCRYPTION_KEYS: `test:${Buffer.alloc(32, 9).toString('base64')}`,
}

/** Leases and locks that run out within a test, for those that wait for it. */
export const LEASES_RUN_OUT = { TURNMILL_LEASE_MS: '1000', TURNMILL_LOCK_MS: '1000' }

/** Periods at a tenth. No turn is taken from a worker that lives, however busy the machine is. */
const FAST = {
  TURNMILL_LEASE_MS: '20000',
  TURNMILL_LEASE_RENEWAL_MS: '300',
  TURNMILL_LOCK_MS: '20000',
  TURNMILL_STALLED_CHECK_MS: '500',
  TURNMILL_RECONCILER_PERIOD_MS: '200',
  TURNMILL_LOST_AFTER_MS: '500',
  TURNMILL_DRAIN_MS: '2000',
  TURNMILL_RETRY_FIRST_MS: '50',
  TURNMILL_RETRY_MAXIMUM_MS: '1000',
  TURNMILL_BACKOFF_ABOVE_MS: '1000',
  TURNMILL_WATCH_POLL_MS: '200',
}

export interface TestUser {
  userId: string
  apiKeyId: string
  token: string
  client: TestClient
}

export interface TurnmillOptions {
  backend?: BackendKind
  /** A Redis of the test's own. */
  redisUrl?: string
  /** A migrated database of the test's own; by default one is made, and dropped in the end. */
  databaseUrl?: string
  workers?: number
  /** Workers for titles and status labels. */
  auxiliaryWorkers?: number
  /** Whether the reconciler's timer runs; off by default, so that a test sees what the fast path alone does. */
  reconcile?: boolean
  environment?: Record<string, string>
  wireFormat?: WireFormat
  allowByok?: boolean
  /** What models are given. */
  tools?: readonly Tool[]
  /** In place of the gateway's way to providers. */
  sendToProvider?: SendToProvider
  /** Lines of the log, as they are written. */
  onLog?: (line: string) => void
}

/** A whole Turnmill in this process: its own database, its own queue, a fake provider over real HTTP. */
export interface Turnmill {
  services: Services
  config: Config
  upstream: FakeUpstream
  provider: ProviderView
  modelConfig: ModelConfigView
  address: string
  admin: TestUser
  addUser(scopes?: readonly Scope[], role?: 'admin' | 'member'): Promise<TestUser>
  addKey(userId: string, scopes?: readonly Scope[], expiresAt?: Date): Promise<Omit<TestUser, 'userId'>>
  addWorker(): Worker
  addAuxiliaryWorker(): Worker
  stop(): Promise<void>
}

const TYPE_OF: Record<WireFormat, { type: ProviderType; useResponsesApi?: boolean }> = {
  'openai-responses': { type: 'openai' },
  'openai-chat': { type: 'openai', useResponsesApi: false },
  'anthropic-messages': { type: 'anthropic' },
}

/** Idle clients of Prisma, which a file's next deployment takes over: each takes 40 ms to make. */
const prismas: Database['lentPools'] = []

/** Hands over all that there is. */
const move = <T>(from: T[], to: T[]): number => to.push(...from.splice(0))

/** $1 id, $2 role. */
const insertUser = statement('test/insert-user', `insert into users (id, name, role) values ($1, 'test', $2)`)

/** The environment of a test's process on this database. */
export function testEnvironment(databaseUrl: string, options: TurnmillOptions): Record<string, string> {
  const backend = options.backend ?? 'postgres'
  const redisUrl = options.redisUrl ?? (backend === 'redis' ? testRedisUrl() : undefined)
  return {
    DATABASE_URL: databaseUrl,
    ...(redisUrl === undefined ? {} : { REDIS_URL: redisUrl, TURNMILL_QUEUE_PREFIX: `t-${newId()}` }),
    LOG_LEVEL: process.env['TURNMILL_TEST_LOG_LEVEL'] ?? (options.onLog === undefined ? 'fatal' : 'trace'),
    PORT: '0',
    TURNMILL_DATABASE_POOL_SIZE: '10',
    // The machine that runs the tests may be busy with anything.
    TURNMILL_DATABASE_CONNECT_TIMEOUT_MS: '10000',
    TURNMILL_DATABASE_SILENCE_MS: '10000',
    TURNMILL_ALLOW_PRIVATE_PROVIDERS: 'true',
    // A turn is to make the calls that a test counts, and no further one.
    TURNMILL_AUTO_TITLES: 'false',
    // The requests are to hold the tools of the test, and no others.
    TURNMILL_BUILTIN_TOOLS: 'none',
    TURNMILL_SUBAGENTS_ENABLED: 'false',
    TURNMILL_ADVISOR_USES: '0',
    // Providers that fail on purpose are to be called all the same.
    TURNMILL_BREAKER_FAILURES: '1000000',
    ...TEST_SECRETS,
    ...FAST,
    ...options.environment,
  }
}

export async function startTurnmill(options: TurnmillOptions = {}): Promise<Turnmill> {
  const database =
    options.databaseUrl === undefined
      ? await createTestDatabase()
      : { url: options.databaseUrl, drop: async () => undefined }
  const config = loadConfig(testEnvironment(database.url, options))
  const destination = options.onLog === undefined ? {} : { destination: { write: options.onLog } }
  const logger = createLogger({ level: config.logLevel, role: 'test', ...destination })
  const { sendToProvider } = options
  const services = await openServices(config, logger, sendToProvider === undefined ? {} : { sendToProvider })
  const upstream = await startFakeUpstream()
  const wireFormat = options.wireFormat ?? 'openai-responses'
  const app = await createApp(services)
  await app.listen({ host: '127.0.0.1', port: 0 })
  const address = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`

  const workers: Worker[] = []
  const starting = (worker: Worker): Worker => {
    workers.push(worker)
    void worker.start().catch((error: unknown) => {
      if (toTurnError(error).code !== 'worker_stopped') throw error
    })
    return worker
  }
  const addWorker = () => starting(createTurnWorker(services, { tools: options.tools ?? [] }))
  const addAuxiliaryWorker = () => starting(createAuxiliaryWorker(services))
  const addKey = async (
    userId: string,
    scopes: readonly Scope[] = DEFAULT_SCOPES,
    expiresAt: Date | null = null,
    db: Database = services.db,
  ) => {
    const { apiKey, token } = await createApiKey(db, services.pepper, {
      userId,
      name: 'test',
      scopes,
      expiresAt,
    })
    return { apiKeyId: apiKey.id, token: token.reveal(), client: createClient(address, token.reveal()) }
  }
  const addUser = async (
    scopes: readonly Scope[] = DEFAULT_SCOPES,
    role: 'admin' | 'member' = 'member',
    db: Database = services.db,
  ) => {
    const userId = newId()
    await query(db, insertUser(userId, role))
    return { userId, ...(await addKey(userId, scopes, null, db)) }
  }
  const seeded = await patiently(config, async (db) => ({
    ...(await seedUpstream(
      { db, encryption: services.encryption },
      upstream,
      wireFormat,
      options.allowByok ?? false,
    )),
    admin: await addUser([...SCOPES], 'admin', db),
  }))
  move(prismas, services.db.lentPools)
  for (let count = 0; count < (options.workers ?? 1); count++) addWorker()
  for (let count = 0; count < (options.auxiliaryWorkers ?? 0); count++) addAuxiliaryWorker()
  if (options.reconcile === true) services.reconciler.start()

  return {
    services, config, upstream, ...seeded, address, addUser, addKey, addWorker, addAuxiliaryWorker,
    stop: async () => {
      await upstream.stop()
      // A client that left a stream has opened its next connection, which the app would give time for a request.
      app.server.closeAllConnections()
      await app.close()
      await Promise.all(workers.map((worker) => worker.stop()))
      move(services.db.lentPools, prismas)
      await services.close()
      await database.drop()
    },
  } // prettier-ignore
}

/** Tests that hold Postgres to answer at once are not about what comes before. */
async function patiently<T>({ databaseUrl }: Config, work: (db: Database) => Promise<T>): Promise<T> {
  const db = openDatabase({
    url: databaseUrl ?? '',
    poolSize: 1,
    connectTimeoutMs: 60_000,
    silenceMs: 60_000,
    applicationName: 'test-set-up',
  })
  move(prismas, db.lentPools)
  try {
    return await work(db)
  } finally {
    move(db.lentPools, prismas)
    await db.close()
  }
}

async function seedUpstream(
  services: Pick<Services, 'db' | 'encryption'>,
  upstream: FakeUpstream,
  wireFormat: WireFormat,
  allowByok: boolean,
) {
  const { type, useResponsesApi } = TYPE_OF[wireFormat]
  const provider = await joinTransaction(services.db, (db) =>
    createProvider(db, services.encryption, {
      name: 'fake', type, baseUrl: upstream.baseUrl(wireFormat), enabled: true, allowByok, attribution: true,
      keys: [new Secret(CENTRAL_KEY)],
    }),
  ) // prettier-ignore
  const modelConfig = await createModelConfig(services.db, {
    providerId: provider.id, model: 'fake-1', displayName: 'Fake', enabled: true, isDefault: true, contextWindow: null,
    maxOutputTokens: null, options: useResponsesApi === undefined ? {} : { useResponsesApi },
    prices: { input: 1_000_000, output: 2_000_000, cacheRead: 500_000, cacheWrite: null },
  }) // prettier-ignore
  return { provider, modelConfig }
}
