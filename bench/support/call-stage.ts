import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { demand, loadConfig } from '../../src/config/index.ts'
import { openDatabase, type Database } from '../../src/db/index.ts'
import { migrate } from '../../src/db/migrate.ts'
import { createBudget } from '../../src/gateway/index.ts'
import { createApiKey } from '../../src/keys/index.ts'
import {
  createEncryption,
  createModelConfig,
  createProvider,
  type Encryption,
} from '../../src/models/index.ts'
import { newId } from '../../src/protocol/ids.ts'
import { Secret } from '../../src/protocol/secret.ts'
import type { Cleanup } from './cleanup.ts'
import { createDatabase, type Server } from './ground.ts'

export const PROVIDER = 'bench'
export const MODEL = 'bench-1'
/** As long as those of OpenAI's projects. */
export const PROVIDER_KEY = `sk-proj-${'bench'.repeat(31)}`

/** One key that may call one priced model, under a budget of its own, of its owner and of the deployment. */
export interface CallStage {
  databaseUrl: string
  db: Database
  encryption: Encryption
  userId: string
  apiKeyId: string
  /** Of that key, for callers over HTTP. */
  token: Secret
  provider: { id: string; baseUrl: string }
  modelConfigId: string
  /** For a process of Turnmill on this database. */
  env: Readonly<Record<string, string>>
}

export interface CallStageOptions {
  postgres: Server
  /** Of the database. */
  name: string
  providerUrl: string
  budgets: boolean
}

/** Never reached: what is measured is that they are held, not what they refuse. */
const LIMIT_MICROS = 1e15

export async function openCallStage(cleanup: Cleanup, options: CallStageOptions): Promise<CallStage> {
  const { postgres, name, providerUrl, budgets } = options
  const databaseUrl = await createDatabase(postgres, name)
  await migrate(databaseUrl)
  const env = environment(databaseUrl)
  const config = loadConfig(env)
  const db = openDatabase({
    url: databaseUrl,
    poolSize: config.databasePoolSize,
    connectTimeoutMs: config.databaseConnectTimeoutMs,
    silenceMs: config.databaseSilenceMs,
    applicationName: name,
  })
  cleanup.add(() => db.close())
  const encryption = createEncryption(demand(config, 'encryptionKeys', ''))
  const provider = await createProvider(db, encryption, {
    name: PROVIDER,
    type: 'openai',
    baseUrl: providerUrl,
    enabled: true,
    allowByok: false,
    attribution: false,
    keys: [new Secret(PROVIDER_KEY)],
  })
  const userId = newId()
  await db.prisma.user.create({ data: { id: userId, name: 'bench', role: 'member' } })
  const scopes = ['gateway:use'] as const
  const key = { userId, name: 'bench', scopes, expiresAt: null }
  const { apiKey, token } = await createApiKey(db, demand(config, 'apiKeyPepper', ''), key)
  const stage = { databaseUrl, db, encryption, userId, apiKeyId: apiKey.id, token, provider, env }
  if (budgets) await limit(stage)
  return { ...stage, modelConfigId: await addModel(stage) }
}

const environment = (databaseUrl: string): Record<string, string> => ({
  DATABASE_URL: databaseUrl,
  PORT: '0',
  LOG_LEVEL: 'info',
  TURNMILL_API_KEY_PEPPER: randomBytes(32).toString('base64'),
  TURNMILL_ALLOW_PRIVATE_PROVIDERS: 'true',
  TURNMILL_ENCRYPTION_KEYS: `bench:${randomBytes(32).toString('base64')}`,
  TURNMILL_DRAIN_MS: '2000',
})

async function addModel({ db, provider }: Pick<CallStage, 'db' | 'provider'>): Promise<string> {
  const { id } = await createModelConfig(db, {
    providerId: provider.id,
    model: MODEL,
    displayName: MODEL,
    enabled: true,
    isDefault: true,
    contextWindow: 128_000,
    maxOutputTokens: 4096,
    // What every gateway speaks, and what its peers are made for.
    options: { useResponsesApi: false },
    prices: { input: 2_500_000, output: 10_000_000, cacheRead: 1_250_000, cacheWrite: 0 },
  })
  return id
}

async function limit({ db, userId, apiKeyId }: Pick<CallStage, 'db' | 'userId' | 'apiKeyId'>): Promise<void> {
  const limitMicros = LIMIT_MICROS
  await createBudget(db, { subject: 'key', subjectId: apiKeyId, period: 'day', limitMicros })
  await createBudget(db, { subject: 'user', subjectId: userId, period: 'month', limitMicros })
  await createBudget(db, { subject: 'deployment', subjectId: null, period: 'total', limitMicros })
}

/** What the gateway wrote down of its calls. */
export interface Recorded {
  calls: number
  /** Settled with the usage that the provider reported, a cost, and no error. */
  complete: number
}

/** Looks at the books of a gateway, from outside. */
export class BookReader {
  readonly #client: pg.Client

  private constructor(client: pg.Client) {
    this.#client = client
  }

  static async open(cleanup: Cleanup, { databaseUrl }: Pick<CallStage, 'databaseUrl'>): Promise<BookReader> {
    const client = new pg.Client({ connectionString: databaseUrl })
    client.on('error', () => undefined)
    await client.connect()
    cleanup.add(() => client.end())
    return new BookReader(client)
  }

  /** Resolves when every call is settled. */
  async settled(): Promise<void> {
    const unsettled = '/* bench */ select 1 from interceptions where settled_at is null limit 1'
    while ((await this.#client.query(unsettled)).rows.length > 0);
  }

  /** @param outputTokens what each call used. */
  async read(outputTokens: number): Promise<Recorded> {
    const { rows } = await this.#client.query<Recorded>(
      `/* bench */ select count(*)::int as calls, count(*) filter (where status = 200 and error_code is null and not estimated
        and cost_micros > 0 and output_tokens = $1)::int as complete
      from interceptions left join token_usages on interception_id = id`,
      [outputTokens],
    )
    return rows[0] ?? { calls: 0, complete: 0 }
  }
}
