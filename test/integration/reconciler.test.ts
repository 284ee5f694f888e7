import { TURNS_QUEUE, type TurnJob } from '../../src/queue/index.ts'
import { watchEnqueueing } from '../support/enqueueing.ts'
import { takeJob } from '../support/take-job.ts'
import { endLease } from '../support/leases.ts'
import { BACKENDS, startTurnmill } from '../support/turnmill.ts'

describe.each(BACKENDS)('the reconciler on the %s backend', (backend) => {
  test('enqueues anew what the queue has lost, and everything finishes once', async () => {
    const turnmill = await startTurnmill({
      backend,
      workers: 0,
      environment: { TURNMILL_RUNNING_ROOT_TURNS: '50' },
    })
    try {
      const enqueued = watchEnqueueing(turnmill)
      const { client } = await turnmill.addUser()
      const started = await Promise.all(Array.from({ length: 20 }, (_, index) => client.create(`c${index}`)))
      // A request does not wait for its job for long, and one that came late would not be lost.
      await enqueued()
      const queue = turnmill.services.backend.queue<TurnJob>(TURNS_QUEUE)
      await queue.obliterate({ force: true })
      await queue.close()
      turnmill.addWorker()
      turnmill.services.reconciler.start()
      for (const { chat, turn } of started)
        await expect(client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'completed' })
      const rows = await turnmill.services.db.prisma.turn.findMany({})
      expect(rows.map((row) => row.enqueues)).toEqual(rows.map(() => 2))
      expect(await turnmill.services.db.prisma.message.count({ where: { role: 'assistant' } })).toBe(20)
    } finally {
      await turnmill.stop()
    }
  })

  test('leaves a turn alone whose job still waits', async () => {
    const turnmill = await startTurnmill({
      backend,
      workers: 0,
      environment: { TURNMILL_LOST_AFTER_MS: '1' },
    })
    try {
      const { client } = await turnmill.addUser()
      const enqueued = watchEnqueueing(turnmill)
      const { turn } = await client.create('hi')
      await enqueued()
      await turnmill.services.reconciler.pass()
      await turnmill.services.reconciler.pass()
      const row = await turnmill.services.db.prisma.turn.findUniqueOrThrow({ where: { id: turn.id } })
      expect(row).toMatchObject({ enqueues: 1, jobId: `turn-${turn.id}-1` })
    } finally {
      await turnmill.stop()
    }
  })

  test('gives a turn whose worker is gone to another one', async () => {
    const turnmill = await startTurnmill({ backend, workers: 0, reconcile: true })
    try {
      const { client, apiKeyId } = await turnmill.addUser()
      const { chat, turn } = await client.create('hi')
      // A worker that claims and is never heard of again.
      await turnmill.services.chats.claim({
        turnId: turn.id,
        jobId: 'x',
        attemptsMade: 0,
        compare: { chatId: chat.id, apiKeyId },
      })
      await endLease(turnmill, turn.id)
      const queue = turnmill.services.backend.queue<TurnJob>(TURNS_QUEUE)
      await takeJob(queue, `turn-${turn.id}-1`)
      await queue.close()
      turnmill.addWorker()
      await expect(client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'completed', epoch: 2 })
      expect(turnmill.upstream.requests).toHaveLength(1)
    } finally {
      await turnmill.stop()
    }
  })

  test('fails a turn that was taken over too often', async () => {
    const turnmill = await startTurnmill({
      backend,
      workers: 0,
      environment: { TURNMILL_MAX_TAKEOVERS: '2' },
    })
    try {
      const { client } = await turnmill.addUser()
      const { chat, turn } = await client.create('hi')
      await turnmill.services.db.prisma.turn.update({ where: { id: turn.id }, data: { takeovers: 3 } })
      turnmill.addWorker()
      await expect(client.ended(chat.id, turn.id)).resolves.toMatchObject({
        state: 'failed',
        error: { code: 'worker_lost' },
      })
      expect(turnmill.upstream.requests).toHaveLength(0)
    } finally {
      await turnmill.stop()
    }
  })
})
