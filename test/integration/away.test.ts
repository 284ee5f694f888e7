/** Redis or Postgres away during a send (Q2, Q3), with the periods of a deployment. */
import { execFile } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { startEmbeddedPostgres, type EmbeddedPostgres } from '../../src/db/embedded.ts'
import { migrate } from '../../src/db/migrate.ts'
import { TURNS_QUEUE } from '../../src/queue/index.ts'
import type { TestClient } from '../support/client.ts'
import { startRedis, type TestRedis } from '../support/redis.ts'
import { startProcess, type Process } from '../support/process.ts'
import { makeScratch } from '../support/scratch.ts'
import {
  BACKENDS,
  startTurnmill,
  testEnvironment,
  type BackendKind,
  type Turnmill,
} from '../support/turnmill.ts'

/** As by default: what is measured here is what a deployment sees. */
const DEFAULTS = {
  TURNMILL_LEASE_MS: '10000',
  TURNMILL_LEASE_RENEWAL_MS: '3000',
  TURNMILL_LOCK_MS: '10000',
  TURNMILL_STALLED_CHECK_MS: '5000',
  TURNMILL_RECONCILER_PERIOD_MS: '2000',
  TURNMILL_LOST_AFTER_MS: '5000',
  TURNMILL_DATABASE_CONNECT_TIMEOUT_MS: '3000',
  TURNMILL_RUNNING_ROOT_TURNS: '50',
}

/** Where a Postgres that says nothing is what is tried; elsewhere a machine that is busy may keep it from answering. */
const SILENCE = { ...DEFAULTS, TURNMILL_DATABASE_SILENCE_MS: '700' }

async function timed<T>(work: () => Promise<T>): Promise<{ ms: number; result: T }> {
  const startedAt = performance.now()
  const result = await work()
  return { ms: performance.now() - startedAt, result }
}

/** Of several, so that one moment in which the machine was busy decides nothing. */
const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0

describe('a send while Redis is away (Q2)', () => {
  interface Outage {
    begin(redis: TestRedis): Promise<void>
    end(redis: TestRedis): Promise<TestRedis>
  }

  const outages: Record<string, Outage> = {
    gone: {
      begin: (redis) => redis.stop(),
      end: (redis) => startRedis({ port: redis.port }),
    },
    frozen: {
      begin: async ({ pid }) => void process.kill(pid, 'SIGSTOP'),
      end: async (redis) => {
        process.kill(redis.pid, 'SIGCONT')
        return redis
      },
    },
  }

  test.each(Object.keys(outages))(
    '(%s) is answered within 250 ms, and starts within 3 s of its return',
    async (name) => {
      const outage = outages[name]!
      let redis = await startRedis()
      const turnmill = await startTurnmill({ redisUrl: redis.url, reconcile: true, environment: DEFAULTS })
      try {
        // Who is there already: a machine that is busy may not make another one within the limit of the outage.
        const { client } = turnmill.admin
        const first = await client.create('before')
        await client.ended(first.chat.id, first.turn.id)
        await outage.begin(redis)
        const sends = []
        for (let number = 0; number < 5; number++)
          sends.push(await timed(() => client.create(`during ${number}`)))
        expect(median(sends.map(({ ms }) => ms))).toBeLessThan(250)
        if (name === 'gone')
          expect(await client.request('GET', '/readyz')).toMatchObject({
            status: 200,
            body: { postgres: 'up', queue: 'down' },
          })
        redis = await outage.end(redis)
        const { ms } = await timed(() => turnmill.upstream.waitForRequest(1 + sends.length))
        expect(ms).toBeLessThan(3000)
        for (const { result } of sends)
          await expect(client.ended(result.chat.id, result.turn.id)).resolves.toMatchObject({
            state: 'completed',
          })
        expect(turnmill.upstream.requests).toHaveLength(1 + sends.length)
      } finally {
        await turnmill.stop()
        await redis.stop()
      }
    },
  )
})

let dataDir: string
let postgres: EmbeddedPostgres
let turnmill: Turnmill

async function startOnOwnPostgres(
  backend: BackendKind,
  workers: number,
  environment: Record<string, string>,
): Promise<void> {
  dataDir = await makeScratch('turnmill-away-')
  postgres = await startEmbeddedPostgres({ dataDir, flags: ['-c', 'fsync=off'] })
  await migrate(postgres.url)
  turnmill = await startTurnmill({
    backend,
    databaseUrl: postgres.url,
    workers,
    reconcile: true,
    environment,
  })
}

async function stopAll(): Promise<void> {
  await turnmill.stop()
  await postgres.stop()
  await rm(dataDir, { recursive: true, force: true })
}

/** Stops the server and all its sessions, as a machine does that froze, and lets them go on. */
async function whileFrozen(work: () => Promise<void>): Promise<void> {
  const { stdout } = await promisify(execFile)('pgrep', ['-P', String(postgres.pid)])
  const pids = [postgres.pid, ...stdout.trim().split('\n').map(Number)]
  for (const pid of pids) process.kill(pid, 'SIGSTOP')
  try {
    await work()
  } finally {
    for (const pid of pids) process.kill(pid, 'SIGCONT')
  }
}

describe('a send while Postgres is away (Q3)', () => {
  let client: TestClient
  let chatId: string

  beforeEach(async () => {
    await startOnOwnPostgres('redis', 1, SILENCE)
    client = turnmill.admin.client
    const { chat, turn } = await client.create('before')
    await client.ended(chat.id, turn.id)
    chatId = chat.id
  }, 60_000)
  afterEach(stopAll, 60_000)

  const countJobs = async (): Promise<number> => {
    const queue = turnmill.services.backend.queue(TURNS_QUEUE)
    const count = await queue.getJobCountByTypes('waiting', 'active', 'delayed', 'prioritized')
    await queue.close()
    return count
  }

  const send = () =>
    timed(() => client.request('POST', `/v1/chats/${chatId}/messages`, { content: 'during the outage' }))

  async function expectRefusals(): Promise<void> {
    const sends = [await send(), ...(await Promise.all([send(), send(), send()])), await send()]
    for (const { result } of sends) {
      expect(result).toMatchObject({ status: 503, body: { code: 'database_unavailable' } })
      expect(result.headers.get('retry-after')).toBe('1')
    }
    expect(median(sends.map(({ ms }) => ms))).toBeLessThan(1000)
    // The first one finds it out.
    expect(Math.max(...sends.map(({ ms }) => ms))).toBeLessThan(10_000)
    expect(await countJobs()).toBe(0)
    expect(await client.request('GET', '/readyz')).toMatchObject({ status: 503, body: { postgres: 'down' } })
  }

  async function expectRecovery(): Promise<void> {
    for (;;) {
      const { status } = await client.request('GET', '/readyz')
      if (status === 200) break
      await sleep(50)
    }
    const { chat, turn } = await client.create('after')
    expect(await client.ended(chat.id, turn.id)).toMatchObject({ state: 'completed' })
  }

  test('that was stopped is refused within 1 s, and it goes on once it is back', async () => {
    const { port } = new URL(postgres.url)
    await postgres.stop()
    await expectRefusals()
    postgres = await startEmbeddedPostgres({ dataDir, port: Number(port), flags: ['-c', 'fsync=off'] })
    await expectRecovery()
  }, 60_000)

  test('that answers nothing is refused within 1 s, and it goes on once it answers', async () => {
    await whileFrozen(expectRefusals)
    await expectRecovery()
  }, 60_000)
})

describe.each(BACKENDS)('a worker of the %s queue while Postgres is away (Q10)', (backend) => {
  beforeEach(() => startOnOwnPostgres(backend, 0, DEFAULTS), 60_000)
  afterEach(stopAll, 60_000)

  // A machine that is busy may keep Postgres from answering for a while.
  const environment = { ...DEFAULTS, TURNMILL_DATABASE_SILENCE_MS: '2000', TURNMILL_DRAIN_MS: '1000' }

  /** One that could not start, for Postgres was too busy for it, is started again, as whoever runs it does. */
  async function startWorker(): Promise<Process> {
    for (;;) {
      const worker = startProcess('workers/turns.ts', {
        ...testEnvironment(postgres.url, { backend, environment }),
        TURNMILL_QUEUE_PREFIX: turnmill.config.queuePrefix,
      })
      const working = await worker.said('working').then(
        () => true,
        () => false,
      )
      if (working) return worker
    }
  }

  test('ends in order when it is told to, whatever it has under way', async () => {
    const worker = await startWorker()
    turnmill.upstream.script({ type: 'silence', after: 'headers' })
    const turns = 8
    for (let number = 0; number < turns; number++) await turnmill.admin.client.create('wait')
    await turnmill.upstream.waitForRequest(turns)
    await whileFrozen(async () => {
      const { ms, result: code } = await timed(() => worker.stop())
      // The drain, and 5 s: 25 s by default. The rest is for a machine that is busy.
      expect(ms).toBeLessThan(12_000)
      // By itself, rather than cut off at its last moment.
      expect(code).toBe(0)
    })
  }, 60_000)
})
