/** What is begun and not finished: processes that cannot have all they need, workers that are stopped on their way. */
import path from 'node:path'
import { Redis } from 'ioredis'
import { toTurnError } from '../../src/protocol/errors.ts'
import { openServices } from '../../src/services.ts'
import { createLogger } from '../../src/telemetry/logger.ts'
import { createTurnWorker } from '../../src/turn-worker.ts'
import { loadConfig } from '../../src/config/index.ts'
import { createTestDatabase } from '../support/database.ts'
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
