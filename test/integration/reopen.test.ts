/** Bull Board's retry of a failed turn, through Bull Board's own HTTP API. */
import type { JobQueue } from '../../src/queue/backend.ts'
import type { TurnJob } from '../../src/queue/index.ts'
import type { UpstreamRequest } from '../support/fake-upstream.ts'
import { BACKENDS, startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

describe.each(BACKENDS)('a failed turn on the %s backend', (backend) => {
  let turnmill: Turnmill
  let queue: JobQueue<TurnJob>
  let user: TestUser

  beforeAll(async () => {
    turnmill = await startTurnmill({ backend, environment: { TURNMILL_BULL_BOARD_ENABLED: 'true' } })
    queue = turnmill.services.backend.queue<TurnJob>('turns')
  })
  afterAll(async () => {
    await queue.close()
    await turnmill.stop()
  })
  beforeEach(async () => {
    turnmill.upstream.reset()
    user = await turnmill.addUser()
  })

  /** A chat whose turn its provider refused; from then on it answers. */
  async function startFailed() {
    turnmill.upstream.script({ type: 'status', status: 400 })
    const started = await user.client.create('first')
    expect(await user.client.ended(started.chat.id, started.turn.id)).toMatchObject({ state: 'failed' })
    turnmill.upstream.script({ type: 'answer' })
    const row = await turnmill.services.db.prisma.turn.findUniqueOrThrow({ where: { id: started.turn.id } })
    const jobId = row.jobId ?? ''
    await untilJob(jobId, 'failed')
    return { chatId: started.chat.id, turnId: started.turn.id, messageId: started.message.id, jobId }
  }

  async function untilJob(jobId: string, state: string) {
    for (;;) {
      const before = await queue.getJob(jobId)
      const reached = before !== undefined && (await before.getState()) === state
      // It may have reached the state after it was read.
      const job = reached ? await queue.getJob(jobId) : undefined
      if (job !== undefined) return job
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  const retry = (jobId: string) =>
    turnmill.admin.client.request('PUT', `/admin/queues/api/queues/turns/${jobId}/retry`)

  const keysOf = (requests: readonly UpstreamRequest[]) =>
    requests.map(({ headers }) => headers['x-turnmill-key-id'])

  test('runs once more at the operator’s retry, the very turn under its own key', async () => {
    const { chatId, turnId, jobId } = await startFailed()
    expect((await retry(jobId)).status).toBe(204)
    // Until the job has been delivered again, the chat is at rest as it failed.
    expect((await untilJob(jobId, 'completed')).returnvalue).toBe('reopened')
    expect(await user.client.settled(chatId)).toMatchObject({ status: 'idle', lastError: null })
    expect(await user.client.turns(chatId)).toMatchObject([
      { id: turnId, number: 1, state: 'completed', epoch: 2, apiKeyId: user.apiKeyId, error: null },
    ])
    expect(keysOf(turnmill.upstream.requests)).toEqual([user.apiKeyId, user.apiKeyId])
    expect((await user.client.messages(chatId)).map(({ role }) => role)).toEqual(['user', 'assistant'])
  })

  test('that fails again can be retried again, as the job it has then', async () => {
    const { chatId, turnId, jobId } = await startFailed()
    turnmill.upstream.script({ type: 'status', status: 400 })
    await retry(jobId)
    const again = `turn-${turnId}-2`
    await untilJob(again, 'failed')
    turnmill.upstream.script({ type: 'answer' })
    expect((await retry(again)).status).toBe(204)
    await untilJob(again, 'completed')
    expect(await user.client.settled(chatId)).toMatchObject({ status: 'idle' })
    expect(turnmill.upstream.requests).toHaveLength(3)
  })

  test.each([
    ['sent a message', (chatId: string) => user.client.send(chatId, 'second')],
    ['retried', (chatId: string) => user.client.request('POST', `/v1/chats/${chatId}/retry`)],
    ['archived', (chatId: string) => user.client.request('PATCH', `/v1/chats/${chatId}`, { archived: true })],
    ['cleared', (chatId: string) => user.client.request('POST', `/v1/chats/${chatId}/clear`)],
    ['deleted', (chatId: string) => user.client.request('DELETE', `/v1/chats/${chatId}`)],
  ])('whose chat was %s meanwhile stays as it is, and its job ends as superseded', async (what, touch) => {
    const { chatId, turnId, jobId } = await startFailed()
    await touch(chatId)
    if (what !== 'deleted') await user.client.settled(chatId)
    const before = turnmill.upstream.requests.length
    expect((await retry(jobId)).status).toBe(204)
    expect((await untilJob(jobId, 'completed')).returnvalue).toBe(what === 'deleted' ? 'gone' : 'superseded')
    const turn = await turnmill.services.db.prisma.turn.findUnique({ where: { id: turnId } })
    expect(turn?.state ?? 'gone').toBe(what === 'deleted' ? 'gone' : 'failed')
    expect(turnmill.upstream.requests).toHaveLength(before)
  })

  test.each([
    [
      'deleted',
      'missing_key',
      (apiKeyId: string) => turnmill.services.db.prisma.apiKey.delete({ where: { id: apiKeyId } }),
    ],
    [
      'revoked',
      'key_revoked',
      (apiKeyId: string) =>
        turnmill.services.db.prisma.apiKey.update({
          where: { id: apiKeyId },
          data: { revokedAt: new Date() },
        }),
    ],
  ] as const)(
    'whose key was %s fails closed as %s when it is retried, without a call',
    async (_, code, end) => {
      const { turnId, jobId } = await startFailed()
      const before = turnmill.upstream.requests.length
      await end(user.apiKeyId)
      expect((await retry(jobId)).status).toBe(204)
      await untilJob(`turn-${turnId}-2`, 'failed')
      const turn = await turnmill.services.db.prisma.turn.findUniqueOrThrow({ where: { id: turnId } })
      expect(turn).toMatchObject({ state: 'failed', error: { code } })
      expect(turnmill.upstream.requests).toHaveLength(before)
    },
  )

  test('is not reopened by a duplicate of its job, however often (Q11)', async () => {
    const { chatId, turnId, jobId } = await startFailed()
    const job = await queue.getJob(jobId)
    await Promise.all(
      [1, 2, 3].map((number) => queue.add('turn', job!.data, { jobId: `${jobId}9${number}` })),
    )
    for (const number of [1, 2, 3]) await untilJob(`${jobId}9${number}`, 'completed')
    expect(await user.client.turns(chatId)).toMatchObject([{ id: turnId, state: 'failed', epoch: 1 }])
    expect(turnmill.upstream.requests).toHaveLength(1)
  })

  test('is not reopened by the retry of a job that is not its own', async () => {
    const { turnId, jobId } = await startFailed()
    const job = await queue.getJob(jobId)
    const forged = await queue.add('turn', job!.data, { jobId: `turn-${turnId}-77` })
    await untilJob(forged.id ?? '', 'completed')
    await retry(forged.id ?? '')
    await untilJob(forged.id ?? '', 'completed')
    expect(turnmill.upstream.requests).toHaveLength(1)
  })
})
