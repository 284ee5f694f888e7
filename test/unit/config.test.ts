import { inspect } from 'node:util'
import { newToken } from '../../src/keys/index.ts'
import { createEncryption } from '../../src/models/index.ts'
import {
  demand,
  demandAll,
  dropAmbientCredentials,
  loadConfig,
  SETTINGS,
  unknownSettings,
} from '../../src/config/index.ts'

const BYTES = Buffer.alloc(32, 5).toString('base64')

describe('the configuration', () => {
  test('has a default for everything that does not have to be set', () => {
    const config = loadConfig({})
    expect(config).toMatchObject({
      port: 3000,
      gatewayRouting: true,
      leaseMs: 10_000,
      queueLimit: 20,
      runningRootTurns: 5,
      workerConcurrency: 100,
      databaseUrl: null,
    })
  })

  test('names every bad value at once, with what was expected', () => {
    const bad = {
      PORT: 'eighty',
      DATABASE_URL: 'mysql://x',
      TURNMILL_LEASE_MS: '-1',
      TURNMILL_CHAT_AI_GATEWAY_ROUTING_ENABLED: 'maybe',
      LOG_LEVEL: 'loud',
      TURNMILL_BOOTSTRAP_API_KEY: 'foo',
      TURNMILL_ENCRYPTION_KEYS: 'abc',
    }
    expect(() => loadConfig(bad)).toThrow(
      /PORT is "eighty", expected a whole number from 0 to 65535(.|\n)*LOG_LEVEL(.|\n)*GATEWAY_ROUTING(.|\n)*TURNMILL_LEASE_MS/,
    )
    for (const name of Object.keys(bad)) expect(() => loadConfig(bad)).toThrow(name)
  })

  test.each([
    ['TURNMILL_BOOTSTRAP_API_KEY', 'tm_never-shown', '`tm_<32 hex digits>_<43 characters of base64url>`'],
    [
      'TURNMILL_ENCRYPTION_KEYS',
      'k1:never-shown',
      '`<id>:<32 bytes in base64>`, several separated by commas',
    ],
    ['TURNMILL_ENCRYPTION_KEYS', `k1:${BYTES},k2`, '`<id>:<32 bytes in base64>`'],
    ['TURNMILL_ENCRYPTION_KEYS', ',', '`<id>:<32 bytes in base64>`'],
  ])('checks the form of %s and does not repeat it: %s', (name, value, expected) => {
    const load = (): unknown => loadConfig({ [name]: value })
    expect(load).toThrow(`${name} expected ${expected}`)
    expect(load).not.toThrow('never-shown')
  })

  test('takes secrets of the right form', () => {
    const config = loadConfig({
      TURNMILL_BOOTSTRAP_API_KEY: newToken().reveal(),
      TURNMILL_ENCRYPTION_KEYS: `k2:${BYTES}, k1:${BYTES}`,
    })
    expect(() => createEncryption(demand(config, 'encryptionKeys', ''))).not.toThrow()
  })

  test.each([
    [{ PORT: 'eighty' }, 'PORT is "eighty", expected a whole number from 0 to 65535, such as 3000'],
    [
      { DATABASE_URL: 'localhost' },
      'DATABASE_URL expected a URL that begins with postgres:// or postgresql://, such as postgres://user:password@localhost:5432/turnmill',
    ],
    [
      { REDIS_URL: 'localhost' },
      'REDIS_URL expected a URL that begins with redis:// or rediss://, such as redis://localhost:6379',
    ],
    [{ TURNMILL_LEASE_MS: '1s' }, 'TURNMILL_LEASE_MS is "1s", expected a whole number from 1 to 86400000 (ms), such as 10000'], // prettier-ignore
  ])('shows a value that would do in place of %j', (environment, message) => {
    expect(() => loadConfig(environment)).toThrow(message)
  })

  test('shows a value that would do where one is demanded', () => {
    expect(() => demand(loadConfig({}), 'databaseUrl', 'expected the URL of a Postgres database')).toThrow(
      'DATABASE_URL is not set, expected the URL of a Postgres database, such as postgres://user:password@localhost:5432/turnmill',
    )
  })

  test('names all that is demanded and not set', () => {
    expect(() =>
      demandAll(loadConfig({}), { databaseUrl: 'expected a URL', apiKeyPepper: 'expected bytes' }),
    ).toThrow(
      /DATABASE_URL is not set, expected a URL.*\n.*TURNMILL_API_KEY_PEPPER is not set, expected bytes/,
    )
  })

  test('finds names that look like settings and are none', () => {
    const environment = { TURNMILL_LEASE: '1', TURNMILL_LEASE_MS: '2000', TURNMILL_TEST_SEED: '1', HOME: '/' }
    expect(unknownSettings(environment)).toEqual(['TURNMILL_LEASE'])
  })

  test('takes an empty value for an absent one', () => {
    expect(loadConfig({ PORT: '', DATABASE_URL: '' })).toMatchObject({ port: 3000, databaseUrl: null })
  })

  test('refuses a renewal that a lease cannot wait for', () => {
    expect(() => loadConfig({ TURNMILL_LEASE_MS: '1000', TURNMILL_LEASE_RENEWAL_MS: '900' })).toThrow(
      /at most half/,
    )
  })

  test('prints no secret', () => {
    const config = loadConfig({
      OPENAI_API_KEY: 'sk-secret',
      TURNMILL_API_KEY_PEPPER: Buffer.alloc(32, 'pepper-secret').toString('base64'),
    })
    expect(inspect(config) + JSON.stringify(config)).not.toMatch(/sk-secret|pepper-secret/)
  })

  test('is described, each setting by its own name and one sentence', () => {
    const rows = Object.values(SETTINGS)
    expect(new Set(rows.map((row) => row.name)).size).toBe(rows.length)
    for (const row of rows) expect(row.sentence).toMatch(/^[A-Z“`].*\.$/)
  })
})

test('what the provider SDKs would read by themselves is dropped', () => {
  const environment = {
    OPENAI_API_KEY: 'a',
    OPENAI_CUSTOM_HEADERS: 'b',
    ANTHROPIC_AUTH_TOKEN: 'c',
    PATH: '/bin',
  }
  expect(dropAmbientCredentials(environment).toSorted()).toEqual([
    'ANTHROPIC_AUTH_TOKEN',
    'OPENAI_API_KEY',
    'OPENAI_CUSTOM_HEADERS',
  ])
  expect(environment).toEqual({ PATH: '/bin' })
})
