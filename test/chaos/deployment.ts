/** How the fleet is set up: settings at a scale, users with keys, and a provider with two models. */
import { newToken } from '../../src/keys/index.ts'
import { TEST_SECRETS } from '../support/turnmill.ts'

/** Settings in ms that shrink and grow together; the product's defaults. */
const SCALED = {
  TURNMILL_LEASE_MS: 10_000,
  TURNMILL_LEASE_RENEWAL_MS: 3000,
  TURNMILL_LOCK_MS: 10_000,
  TURNMILL_STALLED_CHECK_MS: 5000,
  TURNMILL_RECONCILER_PERIOD_MS: 2000,
  TURNMILL_LOST_AFTER_MS: 5000,
  TURNMILL_DRAIN_MS: 20_000,
  TURNMILL_RETRY_FIRST_MS: 1000,
  TURNMILL_BACKOFF_ABOVE_MS: 10_000,
  TURNMILL_WATCH_POLL_MS: 2000,
} as const

export const scaled = (name: keyof typeof SCALED, scale: number): number => Math.round(SCALED[name] * scale)

/**
 * The provider's silence is to be over soon, whatever the scale; some turns are to use up their attempts; and there are
 * fewer places in a fleet that lacks a worker than turns that may run, so that the queue holds something to lose.
 */
const FIXED = {
  TURNMILL_WORKER_CONCURRENCY: '20',
  TURNMILL_RETRY_MAXIMUM_MS: '2000',
  TURNMILL_RETRY_ATTEMPTS: '5',
  TURNMILL_FIRST_PART_TIMEOUT_MS: '2000',
  TURNMILL_SILENCE_TIMEOUT_MS: '1500',
  TURNMILL_ATTEMPT_TIMEOUT_MS: '20000',
  TURNMILL_DATABASE_POOL_SIZE: '10',
  TURNMILL_ALLOW_PRIVATE_PROVIDERS: 'true',
  // The provider's plan is for turns.
  TURNMILL_AUTO_TITLES: 'false',
  PORT: '0',
  LOG_LEVEL: process.env['STORM_LOG_LEVEL'] ?? 'info',
}

export interface Addresses {
  databaseUrl: string
  redisUrl: string | null
}

export const QUEUE_PREFIX = 'storm'

/** Of a process of this name, which Postgres is told as well. */
export function environmentOf(
  name: string,
  { databaseUrl, redisUrl }: Addresses,
  { scale, adminToken }: { scale: number; adminToken: string },
): Record<string, string> {
  const periods = Object.keys(SCALED).map((key) => [key, String(scaled(key as keyof typeof SCALED, scale))])
  return {
    DATABASE_URL: `${databaseUrl}?application_name=${name}`,
    ...(redisUrl === null ? {} : { REDIS_URL: redisUrl, TURNMILL_QUEUE_PREFIX: QUEUE_PREFIX }),
    TURNMILL_BOOTSTRAP_API_KEY: adminToken,
    ...TEST_SECRETS,
    ...(Object.fromEntries(periods) as Record<string, string>),
    ...FIXED,
  }
}

export const newAdminToken = (): string => newToken().reveal()

export interface Population {
  /** The tokens of each user's keys. */
  tokens: string[][]
  modelConfigIds: string[]
}

/** Over HTTP, as an operator would. */
export async function populate(
  address: string,
  { adminToken, providerUrl, users }: { adminToken: string; providerUrl: string; users: number },
): Promise<Population> {
  const post = async <T>(path: string, body: object): Promise<T> => {
    const headers = { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' }
    const response = await fetch(address + path, { method: 'POST', headers, body: JSON.stringify(body) })
    if (!response.ok) throw new Error(`POST ${path} answered ${response.status}: ${await response.text()}`)
    return (await response.json()) as T
  }
  const addModel = async (name: 'openai' | 'anthropic', baseUrl: string): Promise<string> => {
    const provider = { name, type: name, baseUrl, attribution: true, keys: ['storm-provider-key'] }
    const { id: providerId } = await post<{ id: string }>('/v1/providers', provider)
    const isDefault = name === 'openai'
    return (await post<{ id: string }>('/v1/model-configs', { providerId, model: `${name}-1`, isDefault })).id
  }
  const addUser = async (name: string): Promise<string[]> => {
    const { id: userId } = await post<{ id: string }>('/v1/users', { name })
    const key = { name: 'storm', userId, scopes: ['chats:read', 'chats:write'] }
    return [
      await post<{ token: string }>('/v1/api-keys', key),
      await post<{ token: string }>('/v1/api-keys', key),
    ].map(({ token }) => token)
  }
  const modelConfigIds = [
    await addModel('openai', `${providerUrl}/v1`),
    await addModel('anthropic', providerUrl),
  ]
  const tokens: string[][] = []
  for (let user = 1; user <= users; user++) tokens.push(await addUser(`user ${user}`))
  return { tokens, modelConfigIds }
}
