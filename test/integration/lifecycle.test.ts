/** What is begun and not finished: processes that cannot have all they need, workers that are stopped on their way. */
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import path from 'node:path'
import { Redis } from 'ioredis'
import { toTurnError } from '../../src/protocol/errors.ts'
import { openServices } from '../../src/services.ts'
import { createLogger } from '../../src/telemetry/logger.ts'
import { createTurnWorker } from '../../src/turn-worker.ts'
import { loadConfig } from '../../src/config/index.ts'
import { migrate } from '../../src/db/migrate.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { startProcess } from '../support/process.ts'
import { startRedis } from '../support/redis.ts'
import { startTurnmill, testEnvironment, type Turnmill } from '../support/turnmill.ts'

test('a Redis that evicts keys is refused, and nothing stays connected to it', async () => {
  const redis = await startRedis({ args: ['--maxmemory-policy', 'allkeys-lru'] })
  const database = await createTestDatabase()
  try {
    const config = loadConfig(testEnvironment(database.url, { backend: 'redis', redisUrl: redis.url }))
    const logger = createLogger({ level: 'silent', role: 'test' })
    await expect(openServices(config, logger)).rejects.toThrow(
      'Redis has maxmemory-policy allkeys-lru, expected noeviction',
    )
    const client = new Redis(redis.url)
    const connected = async (): Promise<number> =>
      String(await client.client('LIST'))
        .trim()
        .split('\n').length
    while ((await connected()) > 1);
    client.disconnect()
  } finally {
    await database.drop()
    await redis.stop()
  }
})

test('a port that is taken is told with the setting that names it', async () => {
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  const port = String((taken.address() as AddressInfo).port)
  const database = await createTestDatabase()
  const start = (entry: string, environment: Record<string, string>) =>
    startProcess(entry, { ...testEnvironment(database.url, {}), ...environment })
  const failure = (setting: string): string =>
    `turnmill could not start: listen EADDRINUSE: address already in use 127.0.0.1:${port}; stop what listens there, or choose another with ${setting}`
  try {
    const api = start('src/main.ts', { PORT: port })
    await api.said(failure('PORT'))
    expect(await api.stop()).toBe(1)
    const worker = start('workers/turns.ts', { TURNMILL_METRICS_PORT: port })
    await worker.said(failure('TURNMILL_METRICS_PORT'))
    expect(await worker.stop()).toBe(1)
  } finally {
    taken.close()
    await database.drop()
  }
})

describe('a start without Postgres', () => {
  let database: TestDatabase
  beforeAll(async () => {
    database = await createTestDatabase()
  })
  afterAll(() => database.drop())

  const elsewhere = (change: (url: URL) => void): string => {
    const url = new URL(database.url)
    change(url)
    return url.href
  }
  const reasons: [string, (url: URL) => void, RegExp][] = [
    ['another port', (url) => (url.port = '1'), /connect ECONNREFUSED 127\.0\.0\.1:1/],
    ['another database', (url) => (url.pathname = '/nowhere'), /database "nowhere" does not exist/],
    ['another password', (url) => (url.password = 'never-shown'), /password authentication failed/],
    ['another host', (url) => (url.hostname = 'nowhere.invalid'), /nowhere\.invalid/],
  ]

  test.each(reasons)('says so, and never the password: %s', async (_, change, reason) => {
    const url = elsewhere(change)
    const open = () =>
      openServices(loadConfig(testEnvironment(url, {})), createLogger({ level: 'silent', role: 'test' }))
    for (const start of [() => migrate(url), open]) {
      const message = await start().then(
        () => 'started',
        (error: unknown) => (error as Error).message,
      )
      expect(message).toMatch(/^Postgres cannot be reached: .+; check DATABASE_URL$/)
      expect(message).toMatch(reason)
      expect(message).not.toMatch(/never-shown|:[^@ ]+@/)
    }
  })
})

test('a Chromium that is not there keeps a worker from starting', async () => {
  const turnmill = await startTurnmill({
    workers: 0,
    environment: { TURNMILL_CHROMIUM_PATH: '/nowhere/chromium' },
  })
  try {
    await expect(createTurnWorker(turnmill.services).start()).rejects.toThrow(
      /^TURNMILL_CHROMIUM_PATH is "\/nowhere\/chromium", expected .*ENOENT/,
    )
    const directory = { ...turnmill.config, chromiumPath: '/usr' }
    await expect(createTurnWorker({ ...turnmill.services, config: directory }).start()).rejects.toThrow(
      'TURNMILL_CHROMIUM_PATH is "/usr", expected a file that can be executed: it is none',
    )
  } finally {
    await turnmill.stop()
  }
})

describe('a worker that is stopped', () => {
  let turnmill: Turnmill
  beforeAll(async () => {
    const environment = { TURNMILL_TOOLS_MODULE: path.resolve('test/fixtures/slow-tools.ts') }
    turnmill = await startTurnmill({ workers: 0, environment })
  })
  afterAll(() => turnmill.stop())

  test('while its tools are loaded takes no job, and runs turns once it is started anew', async () => {
    const worker = createTurnWorker(turnmill.services)
    const started = worker.start().then(
      () => 'started',
      (error: unknown) => toTurnError(error).code,
    )
    await worker.stop()
    expect(await started).toBe('worker_stopped')
    const { client } = await turnmill.addUser()
    const { chat, turn } = await client.create('hi')
    await worker.start()
    expect(await client.ended(chat.id, turn.id)).toMatchObject({ state: 'completed' })
    await worker.stop()

    // Where it waits for its next attempt, as a worker that was never stopped does.
    turnmill.upstream.script((request) =>
      request.text === 'again' && request.number < 3 ? { type: 'status', status: 503 } : { type: 'answer' },
    )
    const again = await client.create('again')
    await worker.start()
    expect(await client.ended(again.chat.id, again.turn.id)).toMatchObject({ state: 'completed', epoch: 1 })
    await worker.stop()
  })
})
