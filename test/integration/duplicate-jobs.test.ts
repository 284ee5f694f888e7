import { setTimeout as sleep } from 'node:timers/promises'
import type { TurnJob } from '../../src/queue/index.ts'
import { hold } from '../support/fake-upstream.ts'
import { endLease } from '../support/leases.ts'
import { BACKENDS, startTurnmill, type Turnmill } from '../support/turnmill.ts'

/** A lease that a test ends is not renewed before it is looked at. */
const SELDOM_RENEWED = { TURNMILL_LEASE_MS: '20000', TURNMILL_LEASE_RENEWAL_MS: '10000' }

/** I2, I3: BullMQ runs a live job twice now and then, on both backends; the row decides who commits. */
describe.each(BACKENDS)('the same turn delivered more than once, on the %s backend', (backend) => {
  let turnmill: Turnmill
  beforeEach(async () => {
    turnmill = await startTurnmill({ backend, workers: 0, environment: SELDOM_RENEWED })
  })
  afterEach(() => turnmill.stop())

  test('to two workers at once is run by one and committed once (Q5)', async () => {
    const { client, apiKeyId } = await turnmill.addUser()
    const { chat, turn } = await client.create('hi')
    const job: TurnJob = { version: 1, turnId: turn.id, chatId: chat.id, apiKeyId, trigger: 'create' }
    await Promise.all(['a', 'b', 'c'].map((name) => turnmill.services.queue.enqueue(`again-${name}`, job)))
    turnmill.addWorker()
    turnmill.addWorker()
    await client.ended(chat.id, turn.id)
    await expectOneCommit(chat.id)
    expect(turnmill.upstream.requests).toHaveLength(1)
    // Four deliveries with the producer's own: one did the work, and each of the others is counted.
    const countJobs = async (...outcomes: string[]): Promise<number> => {
      const { values } = await turnmill.services.metrics.jobs.get()
      return values.reduce((sum, { labels, value }) => sum + (outcomes.includes(labels.outcome as string) ? value : 0), 0) // prettier-ignore
    }
    while ((await countJobs('completed', 'held', 'ended')) < 4) await sleep(20)
    expect(await countJobs('completed')).toBe(1)
  })

  test('to a second worker whose first one lost its lease: the first one’s commit is fenced', async () => {
    const { client, apiKeyId } = await turnmill.addUser()
    const gate = hold()
    turnmill.upstream.script((request) =>
      request.number === 1 ? { type: 'answer', gate, gateAt: 0 } : { type: 'answer' },
    )
    const { chat, turn } = await client.create('hi')
    turnmill.addWorker()
    await turnmill.upstream.waitForRequest(1)
    // As after a freeze: the lease ran out, and the turn is taken over while the first worker still runs it.
    await endLease(turnmill, turn.id)
    const taken = await turnmill.services.chats.claim({
      turnId: turn.id,
      jobId: 'x',
      attemptsMade: 0,
      compare: { chatId: chat.id, apiKeyId },
    })
    expect(taken).toMatchObject({ epoch: 2, takeovers: 1 })
    gate.release()
    const first = await turnmill.upstream.waitForRequest(1)
    await first.closed
    if (typeof taken === 'string') throw new Error(taken)
    const usage = {
      inputTokens: 1,
      outputTokens: 1,
      cacheReadTokens: 0,
      cacheWriteTokens: 0,
      reasoningTokens: 0,
      estimated: false,
    }
    const result = {
      step: 1,
      parts: [{ type: 'text' as const, text: 'mine' }],
      modelConfigId: turnmill.modelConfig.id,
      finishReason: 'stop',
      usage,
      costMicros: 0,
      firstPartMs: 1,
    }
    await turnmill.services.chats.finish(taken, result)
    await expect(turnmill.services.chats.finish(taken, result)).rejects.toMatchObject({ code: 'turn_fenced' })
    await expect(turnmill.services.chats.finish({ ...taken, epoch: 1 }, result)).rejects.toMatchObject({
      code: 'turn_fenced',
    })
    const messages = await client.messages(chat.id)
    expect(messages.map((message) => message.parts)).toEqual([
      [{ type: 'text', text: 'hi' }],
      [{ type: 'text', text: 'mine' }],
    ])
  })

  test('fifty times claims it once', async () => {
    const { client, apiKeyId } = await turnmill.addUser()
    const { chat, turn } = await client.create('hi')
    const request = { turnId: turn.id, jobId: 'x', attemptsMade: 0, compare: { chatId: chat.id, apiKeyId } }
    const claims = await Promise.all(Array.from({ length: 50 }, () => turnmill.services.chats.claim(request)))
    expect(claims.filter((claim) => typeof claim !== 'string')).toHaveLength(1)
    expect(new Set(claims.filter((claim) => typeof claim === 'string'))).toEqual(new Set(['held']))
  })

  async function expectOneCommit(chatId: string): Promise<void> {
    const answers = await turnmill.services.db.prisma.message.findMany({
      where: { chatId, role: 'assistant' },
    })
    expect(answers).toHaveLength(1)
  }
})
