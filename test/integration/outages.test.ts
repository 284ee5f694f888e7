/** What Q4 and Q7 to Q10 of the acceptance list break: the queue, workers, and the moment of a commit. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { hold } from '../support/fake-upstream.ts'
import { startProcess, type Process } from '../support/process.ts'
import { startRedis } from '../support/redis.ts'
import {
  BACKENDS,
  LEASES_RUN_OUT,
  startTurnmill,
  testEnvironment,
  type BackendKind,
  type Turnmill,
} from '../support/turnmill.ts'

/** A worker process beside a Turnmill of this process that runs none. */
async function startWorker(
  turnmill: Turnmill,
  backend: BackendKind,
  environment: Record<string, string> = {},
): Promise<Process> {
  const { config } = turnmill
  const options = { backend, environment, ...(config.redisUrl === null ? {} : { redisUrl: config.redisUrl }) }
  const worker = startProcess('workers/turns.ts', {
    ...testEnvironment(config.databaseUrl ?? '', options),
    ...(config.redisUrl === null ? {} : { TURNMILL_QUEUE_PREFIX: config.queuePrefix }),
  })
  await worker.said('working')
  return worker
}

const countAnswers = (turnmill: Turnmill, turnId?: string): Promise<number> =>
  turnmill.services.db.prisma.message.count({
    where: { role: 'assistant', ...(turnId === undefined ? {} : { turnId }) },
  })

describe('FLUSHALL with 1,000 turns pending (Q4)', () => {
  test('loses none: all finish, once each', async () => {
    const redis = await startRedis()
    const environment = {
      TURNMILL_RUNNING_ROOT_TURNS: '1000',
      TURNMILL_PENDING_TURNS: '2000',
    }
    const turnmill = await startTurnmill({ redisUrl: redis.url, workers: 0, environment })
    try {
      const { client, userId } = await turnmill.addUser()
      for (let batch = 0; batch < 20; batch++)
        await Promise.all(Array.from({ length: 50 }, (_, index) => client.create(`c${batch}.${index}`)))
      const connection = new Redis(redis.url)
      await connection.flushall()
      connection.disconnect()
      turnmill.addWorker()
      turnmill.services.reconciler.start()
      const left = () =>
        turnmill.services.db.prisma.turn.count({ where: { userId, state: { not: 'completed' } } })
      while ((await left()) > 0) await sleep(100)
      expect(await countAnswers(turnmill)).toBe(1000)
      expect(turnmill.upstream.requests).toHaveLength(1000)
    } finally {
      await turnmill.stop()
      await redis.stop()
    }
  }, 300_000)
})

describe.each(BACKENDS)('on the %s backend', (backend) => {
  test('a turn whose worker is lost five times completes on the sixth (Q7)', async () => {
    const environment = { TURNMILL_LEASE_MS: '400', TURNMILL_LEASE_RENEWAL_MS: '100' }
    const turnmill = await startTurnmill({ backend, workers: 0, reconcile: true, environment })
    try {
      const { client } = await turnmill.addUser()
      const { chat, turn } = await client.create('hi')
      for (let lost = 0; lost < 5;) {
        const claim = await turnmill.services.chats.claim({
          turnId: turn.id,
          jobId: 'x',
          attemptsMade: 0,
          compare: null,
        })
        if (typeof claim === 'string') await sleep(50)
        else lost += 1
      }
      turnmill.addWorker()
      const { state, epoch } = await client.ended(chat.id, turn.id)
      expect(state).toBe('completed')
      // A machine that is busy may keep a worker from its lease of 400 ms once more.
      expect(epoch).toBeGreaterThanOrEqual(6)
      expect(await countAnswers(turnmill, turn.id)).toBe(1)
    } finally {
      await turnmill.stop()
    }
  })

  test('a frozen worker loses its turn: its call is aborted, its commit fenced, its parts dropped (Q8)', async () => {
    const environment = LEASES_RUN_OUT
    const turnmill = await startTurnmill({ backend, workers: 0, reconcile: true, environment })
    const frozen = await startWorker(turnmill, backend, environment)
    const gate = hold()
    turnmill.upstream.script((request) =>
      request.number === 1
        ? { type: 'answer', chunks: ['of the ', 'zombie'], gate, gateAt: 1 }
        : { type: 'answer', text: 'of the living' },
    )
    try {
      const { client } = await turnmill.addUser()
      const { chat, turn } = await client.create('hi')
      const watch = client.watch(chat.id)
      const first = await turnmill.upstream.waitForRequest(1)
      await watch.until((event) => event.type === 'part' && event.part.type === 'text-delta')
      process.kill(frozen.pid, 'SIGSTOP')
      turnmill.addWorker()
      await watch.until((event) => event.type === 'turn')
      process.kill(frozen.pid, 'SIGCONT')
      await expect(first.closed).resolves.toMatchObject({ early: true })
      gate.release()
      await frozen.said('the turn is no longer held by this worker', { turnId: turn.id })

      expect(await client.turns(chat.id)).toMatchObject([{ id: turn.id, state: 'completed', epoch: 2 }])
      const messages = await client.messages(chat.id)
      expect(messages.map(({ parts }) => parts)).toEqual([
        [{ type: 'text', text: 'hi' }],
        [{ type: 'text', text: 'of the living' }],
      ])
      watch.close()
      const shown = watch.events.map(({ event }) => event)
      const after = shown.slice(shown.findIndex((event) => event.type === 'reset'))
      expect(JSON.stringify(after)).not.toContain('zombie')
    } finally {
      await frozen.stop()
      await turnmill.stop()
    }
  })

  test('a drained worker gives its long turns back, and they run elsewhere within 2 s (Q10)', async () => {
    // Nothing but the giving back explains that it runs elsewhere: neither a lease nor the reconciler is that fast.
    const environment = { TURNMILL_LEASE_MS: '60000', TURNMILL_LOST_AFTER_MS: '60000' }
    const turnmill = await startTurnmill({ backend, workers: 0, reconcile: true, environment })
    const drained = await startWorker(turnmill, backend, { ...environment, TURNMILL_DRAIN_MS: '300' })
    turnmill.upstream.script((request) =>
      request.number === 1 ? { type: 'silence', after: 'headers' } : { type: 'answer' },
    )
    try {
      const { client } = await turnmill.addUser()
      const { chat, turn } = await client.create('hi')
      await turnmill.upstream.waitForRequest(1)
      turnmill.addWorker()
      const code = await drained.stop('SIGTERM')
      expect(code).toBe(0)
      expect(await client.ended(chat.id, turn.id)).toMatchObject({ state: 'completed', epoch: 2 })
      const row = await turnmill.services.db.prisma.turn.findUniqueOrThrow({ where: { id: turn.id } })
      expect(row.takeovers).toBe(0)
      // Given back, and with it enqueued, by the one; claimed by the other.
      expect(Number(row.claimedAt) - Number(row.enqueuedAt)).toBeLessThan(2000)
    } finally {
      await drained.stop()
      await turnmill.stop()
    }
  })
})

describe('a Redis that goes away', () => {
  test('over the moment of completion costs nothing: one commit (Q9)', async () => {
    const redis = await startRedis()
    const turnmill = await startTurnmill({ redisUrl: redis.url, reconcile: true })
    let revived: Awaited<ReturnType<typeof startRedis>> | undefined
    const gate = hold()
    turnmill.upstream.script({ type: 'answer', text: 'done', gate, gateAt: 1 })
    try {
      const { client } = await turnmill.addUser()
      const { chat, turn } = await client.create('hi')
      await turnmill.upstream.waitForRequest(1)
      await redis.stop()
      gate.release()
      const completed = () =>
        turnmill.services.db.prisma.turn.count({ where: { id: turn.id, state: 'completed' } })
      while ((await completed()) === 0) await sleep(20)
      revived = await startRedis({ port: redis.port })
      const next = await client.send(chat.id, 'again')
      if ('turn' in next) await client.ended(chat.id, next.turn.id)
      expect(await countAnswers(turnmill, turn.id)).toBe(1)
      expect(turnmill.upstream.requests).toHaveLength(2)
    } finally {
      await turnmill.stop()
      await revived?.stop()
    }
  })

  test('does not keep a worker from ending when it is told to (Q10)', async () => {
    const redis = await startRedis()
    const turnmill = await startTurnmill({ redisUrl: redis.url, workers: 0 })
    const worker = await startWorker(turnmill, 'redis', { TURNMILL_DRAIN_MS: '300' })
    turnmill.upstream.script({ type: 'silence', after: 'headers' })
    try {
      const { client } = await turnmill.addUser()
      const { turn } = await client.create('hi')
      await turnmill.upstream.waitForRequest(1)
      await redis.stop()
      const before = performance.now()
      await worker.stop('SIGTERM')
      // The drain, what the queue is given to say goodbye, and the margin of the exit.
      expect(performance.now() - before).toBeLessThan(300 + 3000 + 4000 + 3000)
      const row = await turnmill.services.db.prisma.turn.findUniqueOrThrow({ where: { id: turn.id } })
      expect(row).toMatchObject({ state: 'pending', takeovers: 0 })
    } finally {
      await worker.stop('SIGKILL')
      await turnmill.stop()
    }
  })
})
