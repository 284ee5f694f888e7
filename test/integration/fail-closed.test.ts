import { setTimeout as sleep } from 'node:timers/promises'
import type { Job } from 'bullmq'
import type { JobQueue } from '../../src/queue/backend.ts'
import { TURNS_QUEUE, type TurnJob } from '../../src/queue/index.ts'
import { newId } from '../../src/protocol/ids.ts'
import { BACKENDS, startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'
import { takeJob } from '../support/take-job.ts'

/** What the provider SDKs would send by themselves, were it left to them. */
const AMBIENT = {
  OPENAI_API_KEY: 'sk-ambient-openai',
  ANTHROPIC_AUTH_TOKEN: 'ambient-anthropic',
  ANTHROPIC_API_KEY: 'sk-ambient-anthropic',
}

/** P2: no provider call without attribution (I6). */
describe.each(BACKENDS)('with gateway routing, on the %s backend', (backend) => {
  let turnmill: Turnmill
  let user: TestUser
  let reader: Omit<TestUser, 'userId'>
  let queue: JobQueue<TurnJob>

  beforeEach(async () => {
    Object.assign(process.env, AMBIENT)
    turnmill = await startTurnmill({ backend, workers: 0 })
    user = await turnmill.addUser()
    reader = await turnmill.addKey(user.userId)
    queue = turnmill.services.backend.queue<TurnJob>(TURNS_QUEUE)
  })
  afterEach(async () => {
    for (const name of Object.keys(AMBIENT)) Reflect.deleteProperty(process.env, name)
    await queue.close()
    await turnmill.stop()
  })

  /** The job as the queue keeps it, once it has failed. */
  async function failedJob(jobId: string): Promise<Job> {
    for (;;) {
      const job = await queue.getJob(jobId)
      if (job?.failedReason !== undefined) return job
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  const jobIdOf = async (turnId: string): Promise<string> =>
    (await turnmill.services.db.prisma.turn.findUniqueOrThrow({ where: { id: turnId } })).jobId ?? ''

  test('a turn without a key ID makes no request and fails as missing_key, and so does its job', async () => {
    const { chat, turn } = await user.client.create('hi')
    await turnmill.services.db.prisma.apiKey.delete({ where: { id: user.apiKeyId } })
    turnmill.addWorker()
    const ended = await reader.client.ended(chat.id, turn.id)
    expect(ended).toMatchObject({
      state: 'failed',
      apiKeyId: null,
      error: { code: 'missing_key', recovery: 'stop' },
    })
    expect((await failedJob(await jobIdOf(turn.id))).failedReason).toBe(`missing_key: turn ${turn.id}`)
    expect(turnmill.upstream.requests).toHaveLength(0)
    const chatNow = (await reader.client.request('GET', `/v1/chats/${chat.id}`)).body
    expect(chatNow).toMatchObject({ status: 'failed', lastError: { code: 'missing_key' } })
  })

  test('a job that carries another key’s ID fails, and the turn runs under its own', async () => {
    const victim = await turnmill.addUser()
    const { chat, turn } = await user.client.create('hi')
    const jobId = await jobIdOf(turn.id)
    await takeJob(queue, jobId)
    const forged: TurnJob = {
      version: 1,
      turnId: turn.id,
      chatId: chat.id,
      apiKeyId: victim.apiKeyId,
      trigger: 'create',
    }
    await turnmill.services.queue.enqueue('forged-1', forged)
    turnmill.addWorker()
    expect((await failedJob('forged-1')).failedReason).toBe(`job_key_mismatch: turn ${turn.id}`)
    expect(turnmill.upstream.requests).toHaveLength(0)
    expect((await user.client.turns(chat.id))[0]).toMatchObject({ state: 'pending', epoch: 0 })

    turnmill.services.reconciler.start()
    await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'completed' })
    expect(turnmill.upstream.requests.map((request) => request.headers['x-turnmill-key-id'])).toEqual([
      user.apiKeyId,
    ])
  })

  test.each([
    ['no key where the row has one', (job: TurnJob) => ({ ...job, apiKeyId: null })],
    ['another chat', (job: TurnJob) => ({ ...job, chatId: newId() })],
    ['a key that is no id', (job: TurnJob) => ({ ...job, apiKeyId: { $ne: null } as never })],
  ])('a job with %s fails as job_key_mismatch', async (_, forge) => {
    const { chat, turn } = await user.client.create('hi')
    await takeJob(queue, await jobIdOf(turn.id))
    const honest: TurnJob = {
      version: 1,
      turnId: turn.id,
      chatId: chat.id,
      apiKeyId: user.apiKeyId,
      trigger: 'create',
    }
    await turnmill.services.queue.enqueue('forged-2', forge(honest))
    turnmill.addWorker()
    expect((await failedJob('forged-2')).failedReason).toBe(`job_key_mismatch: turn ${turn.id}`)
    expect(turnmill.upstream.requests).toHaveLength(0)
  })

  test('a job of an unknown version is read for its turn alone', async () => {
    const { chat, turn } = await user.client.create('hi')
    await takeJob(queue, await jobIdOf(turn.id))
    await turnmill.services.queue.enqueue('future-1', { version: 9, turnId: turn.id, key: 'x' } as never)
    turnmill.addWorker()
    await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({
      state: 'completed',
      apiKeyId: user.apiKeyId,
    })
  })

  test.each([
    ['of no turn', 'gone', { version: 1, turnId: newId(), chatId: newId(), apiKeyId: null, trigger: 'send' }],
    ['of no shape', 'nameless', { hello: 'world' }],
    ['that is an array', 'nameless', []],
  ])('a job %s ends without effect, and is counted as %s', async (_, outcome, data) => {
    turnmill.addWorker()
    await turnmill.services.queue.enqueue('odd-1', data as never)
    const { chat, turn } = await user.client.create('after it')
    await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'completed' })
    const counted = async (): Promise<unknown> =>
      (await turnmill.services.metrics.jobs.get()).values.find(({ labels }) => labels.outcome === outcome)
    while ((await counted()) === undefined) await sleep(20)
    expect(await counted()).toEqual({ labels: { outcome, queue: 'turns' }, value: 1 })
  })

  test('a key that was revoked while its turn was queued makes no call', async () => {
    const { chat, turn } = await user.client.create('hi')
    await user.client.request('DELETE', `/v1/api-keys/${user.apiKeyId}`)
    turnmill.addWorker()
    await expect(reader.client.ended(chat.id, turn.id)).resolves.toMatchObject({
      state: 'failed',
      error: { code: 'key_revoked' },
    })
    expect(turnmill.upstream.requests).toHaveLength(0)
  })

  test('a key that is revoked while its turn runs stops the call', async () => {
    turnmill.upstream.script({ type: 'silence', after: 'headers' })
    const { chat, turn } = await user.client.create('hi')
    turnmill.addWorker()
    const request = await turnmill.upstream.waitForRequest(1)
    await user.client.request('DELETE', `/v1/api-keys/${user.apiKeyId}`)
    await expect(request.closed).resolves.toMatchObject({ early: true })
    await expect(reader.client.ended(chat.id, turn.id)).resolves.toMatchObject({
      state: 'failed',
      error: { code: 'key_revoked' },
    })
  })

  test('a suspended owner’s turn makes no call', async () => {
    const { turn } = await user.client.create('hi')
    await turnmill.services.db.prisma.user.update({
      where: { id: user.userId },
      data: { status: 'suspended' },
    })
    turnmill.addWorker()
    await failedJob(await jobIdOf(turn.id))
    const row = await turnmill.services.db.prisma.turn.findUniqueOrThrow({ where: { id: turn.id } })
    expect(row).toMatchObject({ state: 'failed', error: { code: 'key_revoked' } })
    expect(turnmill.upstream.requests).toHaveLength(0)
  })
})
