/** Titles and status labels: the runs of the `auxiliary` queue, from what makes one to its end. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { AuxiliaryRunModel } from '../../src/db/generated/models.ts'
import { TurnmillError, type ErrorCode } from '../../src/protocol/errors.ts'
import { RUN_STATES, type AuxiliaryRunView, type ChatView, type RunState } from '../../src/protocol/views.ts'
import { AUXILIARY_QUEUE, type AuxiliaryJob } from '../../src/queue/index.ts'
import {
  RUN_MOVES,
  RUN_TRANSITION_MEANINGS,
  type RunClaim,
  type RunTransition,
} from '../../src/auxiliary/index.ts'
import type { TestClient } from '../support/client.ts'
import { hold, type Behaviour, type UpstreamRequest } from '../support/fake-upstream.ts'
import { startProcess } from '../support/process.ts'
import {
  BACKENDS,
  LEASES_RUN_OUT,
  startTurnmill,
  testEnvironment,
  TEST_SECRETS,
  type TestUser,
  type Turnmill,
  type TurnmillOptions,
} from '../support/turnmill.ts'
import { takeJob } from '../support/take-job.ts'

const NO_TITLES = { TURNMILL_AUTO_TITLES: 'false' }
const LABELS = { ...NO_TITLES, TURNMILL_STATUS_LABELS: 'true' }

const purposeOf = ({ headers }: UpstreamRequest): unknown => headers['x-turnmill-purpose']
const isFor = (purpose: string) => (request: UpstreamRequest) => purposeOf(request) === purpose

describe.each(BACKENDS)('on the %s backend', (backend) => {
  let turnmill: Turnmill
  let user: TestUser
  const shared = new Map<string, Turnmill>()
  const warnings: unknown[] = []
  const stopped: Promise<void>[] = []
  afterAll(async () => {
    await Promise.all([...[...shared.values()].map((one) => one.stop()), ...stopped])
  })

  /** Titles are on, and both kinds of workers run, unless a test says otherwise. */
  async function start(environment: Record<string, string> = {}): Promise<void> {
    const key = JSON.stringify(environment)
    turnmill = shared.get(key) ?? (await startTurnmill(optionsWith(environment, { auxiliaryWorkers: 1 })))
    shared.set(key, turnmill)
    turnmill.upstream.reset()
    user = await turnmill.addUser()
  }

  /** The same without a worker for the queue, for this test alone, which adds one. */
  async function startIdle(environment: Record<string, string> = {}): Promise<void> {
    turnmill = await startTurnmill(optionsWith(environment))
    user = await turnmill.addUser()
    idle = turnmill
  }
  let idle: Turnmill | undefined
  afterEach(() => {
    // Takes its time, in which the next test may begin.
    if (idle !== undefined) stopped.push(idle.stop())
    idle = undefined
  })

  const optionsWith = (environment: Record<string, string>, options: TurnmillOptions = {}) => ({
    backend,
    onLog: (line: string) => line.includes('an auxiliary run has failed') && warnings.push(JSON.parse(line)),
    ...options,
    environment: { TURNMILL_AUTO_TITLES: 'true', TURNMILL_BULL_BOARD_ENABLED: 'true', ...environment },
  })

  /** How the provider answers calls of one purpose; others are answered as ever. */
  const script = (purpose: string, behaviour: Behaviour | ((request: UpstreamRequest) => Behaviour)): void =>
    turnmill.upstream.script((request) => {
      if (purposeOf(request) !== purpose) return { type: 'answer' }
      return typeof behaviour === 'function' ? behaviour(request) : behaviour
    })

  const callsFor = (purpose: string): UpstreamRequest[] => turnmill.upstream.requests.filter(isFor(purpose))

  async function callFor(purpose: string): Promise<UpstreamRequest> {
    for (let number = 1; ; number++) {
      const request = await turnmill.upstream.waitForRequest(number)
      if (isFor(purpose)(request)) return request
    }
  }

  const read = async (chatId: string, client: TestClient = user.client): Promise<ChatView> =>
    (await client.request<ChatView>('GET', `/v1/chats/${chatId}`)).body

  const runsOf = (chatId: string): Promise<AuxiliaryRunModel[]> =>
    turnmill.services.db.prisma.auxiliaryRun.findMany({ where: { chatId }, orderBy: { id: 'asc' } })

  /** Resolves with the newest run of the chat once it is as it is looked for. */
  async function runWhere(
    chatId: string,
    matches: (run: AuxiliaryRunModel) => boolean,
  ): Promise<AuxiliaryRunModel> {
    for (;;) {
      const run = (await runsOf(chatId)).at(-1)
      if (run !== undefined && matches(run)) return run
      await sleep(20)
    }
  }
  const ended = (chatId: string) => runWhere(chatId, (run) => run.finishedAt !== null)

  /** A chat whose first turn has been answered. */
  async function answered(content = 'How does a mill turn?', client: TestClient = user.client) {
    const started = await client.create(content)
    await client.ended(started.chat.id, started.turn.id)
    return { chatId: started.chat.id, turnId: started.turn.id, messageId: started.message.id }
  }

  /** The state of a job, once it is one of these. */
  async function jobState(jobId: string, ...states: string[]): Promise<{ state: string; reason: unknown }> {
    const queue = turnmill.services.backend.queue<AuxiliaryJob>(AUXILIARY_QUEUE)
    try {
      for (;;) {
        const state = await queue.getJobState(jobId)
        if (states.includes(state)) return { state, reason: (await queue.getJob(jobId))?.failedReason }
        await sleep(20)
      }
    } finally {
      await queue.close()
    }
  }

  const errorOf = ({ error }: AuxiliaryRunModel): ErrorCode | undefined =>
    (error as { code?: ErrorCode } | null)?.code

  describe('a chat that nobody has named', () => {
    test('is called by its first message, and after its first answer by a model, once, under the turn’s key', async () => {
      await start()
      script('title', { type: 'answer', text: '**"Mill wheels"**\nand more' })
      const { chat, turn } = await user.client.create('How does\na mill turn?')
      expect(chat.title).toBe('How does a mill turn?')
      const watch = user.client.watch(chat.id)
      await watch.until((event) => event.type === 'status' && event.title === 'Mill wheels')
      watch.close()
      expect(await read(chat.id)).toMatchObject({ title: 'Mill wheels', status: 'idle' })

      const other = await turnmill.addKey(user.userId)
      await other.client.send(chat.id, 'And why?')
      await user.client.settled(chat.id)
      expect(turnmill.upstream.requests.map(purposeOf)).toEqual(['chat', 'title', 'chat'])
      const [call] = callsFor('title')
      expect(call?.headers).toMatchObject({
        'x-turnmill-key-id': user.apiKeyId,
        'x-turnmill-chat-id': chat.id,
        'x-turnmill-turn-id': turn.id,
      })
      expect(call?.text).toBe(
        '<user>\nHow does\na mill turn?\n</user>\n<assistant>\necho: How does\na mill turn?\n</assistant>',
      )
      expect(call?.body).not.toHaveProperty('tools')

      const [run, ...more] = await runsOf(chat.id)
      expect(more).toEqual([])
      expect(run).toMatchObject({
        turnId: turn.id,
        apiKeyId: user.apiKeyId,
        purpose: 'title',
        state: 'completed',
        epoch: 1,
        takeovers: 0,
        usage: { inputTokens: 12, outputTokens: 7 },
        costMicros: 26n,
        error: null,
      })
      await expect(
        turnmill.services.db.prisma.interception.findMany({ where: { chatId: chat.id, purpose: 'title' } }),
      ).resolves.toMatchObject([
        { apiKeyId: user.apiKeyId, chatId: chat.id, turnId: turn.id, step: null, epoch: null },
      ])
    })

    test('keeps the name that its owner gives it, whenever that is', async () => {
      await start()
      const gate = hold()
      script('title', { type: 'answer', text: 'By a model', gate, gateAt: 0 })
      const named = await user.client.request<{ chat: ChatView; turn: { id: string } }>('POST', '/v1/chats', {
        content: 'hi',
        title: 'Mine',
      })
      await user.client.ended(named.body.chat.id, named.body.turn.id)
      expect(await runsOf(named.body.chat.id)).toEqual([])

      const { chatId } = await answered()
      await callFor('title')
      await user.client.request('PATCH', `/v1/chats/${chatId}`, { title: 'Mine too' })
      gate.release()
      expect(await ended(chatId)).toMatchObject({ state: 'completed' })
      expect((await read(chatId)).title).toBe('Mine too')
      await user.client.request('PATCH', `/v1/chats/${chatId}`, { title: null })
      expect((await read(chatId)).title).toBe('How does a mill turn?')
    })

    test('is not asked about where its owner has named it before the job ran', async () => {
      await startIdle()
      const { chatId } = await answered()
      await user.client.request('PATCH', `/v1/chats/${chatId}`, { title: 'Mine' })
      turnmill.addAuxiliaryWorker()
      expect(await ended(chatId)).toMatchObject({ state: 'completed', usage: null })
      expect(callsFor('title')).toEqual([])
    })

    test('keeps the beginning of its message where the model says nothing, and follows an edit of it', async () => {
      await start()
      script('title', { type: 'answer', chunks: ['""', '\n**'] })
      const { chatId, messageId } = await answered()
      expect(await ended(chatId)).toMatchObject({ state: 'completed' })
      expect((await read(chatId)).title).toBe('How does a mill turn?')
      await user.client.edit(chatId, messageId, 'How does a wheel turn?')
      await user.client.settled(chatId)
      expect((await read(chatId)).title).toBe('How does a wheel turn?')
      expect(callsFor('title')).toHaveLength(1)
    })

    test('is named after its first answer, though its first turn failed', async () => {
      await start()
      script('chat', { type: 'status', status: 400 })
      const { chat, turn } = await user.client.create('hi')
      await user.client.ended(chat.id, turn.id)
      expect(await runsOf(chat.id)).toEqual([])
      script('title', { type: 'answer', text: 'At last' })
      await user.client.request('POST', `/v1/chats/${chat.id}/retry`)
      await ended(chat.id)
      expect((await read(chat.id)).title).toBe('At last')
    })

    test('is left alone where titles are switched off', async () => {
      await start(NO_TITLES)
      const { chatId } = await answered()
      expect(await runsOf(chatId)).toEqual([])
      expect((await read(chatId)).title).toBe('How does a mill turn?')
    })
  })

  describe('a title that is asked for', () => {
    const ask = (client: TestClient, chatId: string, headers: Record<string, string> = {}) =>
      client.request<{ run: AuxiliaryRunView; code?: string }>(
        'POST',
        `/v1/chats/${chatId}/title`,
        undefined,
        headers,
      )

    test('is made under the caller’s key, and takes the place of any other', async () => {
      await start(NO_TITLES)
      script('title', { type: 'answer', text: 'Asked for' })
      const { chatId } = await answered()
      await user.client.request('PATCH', `/v1/chats/${chatId}`, { title: 'Mine' })
      const caller = await turnmill.addKey(user.userId)
      const asked = await ask(caller.client, chatId)
      expect(asked).toMatchObject({
        status: 202,
        body: { run: { chatId, purpose: 'title', state: 'pending', apiKeyId: caller.apiKeyId } },
      })
      expect(await ended(chatId)).toMatchObject({ id: asked.body.run.id, turnId: null, state: 'completed' })
      expect((await read(chatId)).title).toBe('Asked for')
      const [call] = callsFor('title')
      expect(call?.headers).toMatchObject({ 'x-turnmill-key-id': caller.apiKeyId })
      expect(call?.headers).not.toHaveProperty('x-turnmill-turn-id')
    })

    test('that cannot be had is told of beside the one that is there, until it is named or asked for anew', async () => {
      await start(NO_TITLES)
      const { chatId } = await answered()
      const failing = async (): Promise<void> => {
        script('title', { type: 'status', status: 400 })
        const { body } = await ask(user.client, chatId)
        await runWhere(chatId, ({ id, state }) => id === body.run.id && state === 'failed')
        expect((await read(chatId)).titleError).toMatchObject({ code: 'provider_rejected', recovery: 'stop' })
      }
      await failing()
      await user.client.request('PATCH', `/v1/chats/${chatId}`, { labels: ['mill'] })
      expect((await read(chatId)).titleError).not.toBeNull()
      await user.client.request('PATCH', `/v1/chats/${chatId}`, { title: 'Mine' })
      expect(await read(chatId)).toMatchObject({ title: 'Mine', titleError: null })
      await failing()
      expect((await read(chatId)).title).toBe('Mine')
      const gate = hold()
      script('title', { type: 'answer', text: 'Asked for', gate, gateAt: 0 })
      await ask(user.client, chatId)
      expect((await read(chatId)).titleError).toBeNull()
      gate.release()
      await runWhere(chatId, ({ state }) => state === 'completed')
      expect(await read(chatId)).toMatchObject({ title: 'Asked for', titleError: null })
    })

    test('is one run where it is asked for twice before it has begun, or under one Idempotency-Key', async () => {
      await startIdle(NO_TITLES)
      const { chatId } = await answered()
      const caller = await turnmill.addKey(user.userId)
      const first = await ask(user.client, chatId)
      expect((await ask(user.client, chatId)).body).toEqual(first.body)
      const keyed = await ask(caller.client, chatId, { 'idempotency-key': 'once' })
      expect((await ask(caller.client, chatId, { 'idempotency-key': 'once' })).body).toEqual(keyed.body)
      expect(await runsOf(chatId)).toHaveLength(2)
      turnmill.addAuxiliaryWorker()
      for (const { body } of [first, keyed])
        expect(await jobState(`aux-${body.run.id}-1`, 'completed', 'failed')).toMatchObject({
          state: 'completed',
        })
      expect(
        callsFor('title')
          .map(({ headers }) => headers['x-turnmill-key-id'])
          .sort(),
      ).toEqual([user.apiKeyId, caller.apiKeyId].sort())
    })

    test('may be asked for while the chat is busy, and not once it is archived, nor by others', async () => {
      await start(NO_TITLES)
      const gate = hold()
      script('chat', { type: 'answer', gate, gateAt: 0 })
      const { chat, turn } = await user.client.create('How does a mill turn?')
      await callFor('chat')
      expect((await ask(user.client, chat.id)).status).toBe(202)
      await ended(chat.id)
      expect(callsFor('title')[0]?.text).toBe('<user>\nHow does a mill turn?\n</user>')
      expect(await read(chat.id)).toMatchObject({ status: 'running' })
      gate.release()
      await user.client.ended(chat.id, turn.id)

      const stranger = await turnmill.addUser()
      expect(await ask(stranger.client, chat.id)).toMatchObject({ status: 404, body: { code: 'not_found' } })
      const reader = await turnmill.addKey(user.userId, ['chats:read'])
      expect(await ask(reader.client, chat.id)).toMatchObject({ status: 403 })
      await user.client.request('PATCH', `/v1/chats/${chat.id}`, { archived: true })
      expect(await ask(user.client, chat.id)).toMatchObject({ status: 409, body: { code: 'chat_archived' } })
    })
  })

  describe('fails closed', () => {
    test('where its key was deleted: no call, and the fallback title stays', async () => {
      await startIdle()
      const reader = await turnmill.addKey(user.userId)
      const { chatId } = await answered()
      await turnmill.services.db.prisma.apiKey.delete({ where: { id: user.apiKeyId } })
      turnmill.addAuxiliaryWorker()
      const run = await ended(chatId)
      expect([run.state, errorOf(run)]).toEqual(['failed', 'missing_key'])
      expect(callsFor('title')).toEqual([])
      expect(await read(chatId, reader.client)).toMatchObject({
        title: 'How does a mill turn?',
        status: 'idle',
        lastError: null,
      })
      // What the payload says does not help.
      expect(await jobState(`aux-${run.id}-1`, 'failed')).toMatchObject({
        reason: `missing_key: run ${run.id}`,
      })
    })

    test('where its key is revoked before or during the call', async () => {
      await startIdle()
      const reader = await turnmill.addKey(user.userId)
      const other = await turnmill.addKey(user.userId)
      const before = await answered()
      const during = await answered('hi', other.client)
      await user.client.request('DELETE', `/v1/api-keys/${user.apiKeyId}`)
      script('title', { type: 'silence', after: 'headers' })
      turnmill.addAuxiliaryWorker()
      const [early, call] = await Promise.all([ended(before.chatId), callFor('title')])
      expect([errorOf(early), call.headers['x-turnmill-key-id']]).toEqual(['key_revoked', other.apiKeyId])
      await reader.client.request('DELETE', `/v1/api-keys/${other.apiKeyId}`)
      await expect(call.closed).resolves.toMatchObject({ early: true })
      expect(errorOf(await ended(during.chatId))).toBe('key_revoked')
      expect(callsFor('title')).toHaveLength(1)
    })

    test('where its job names another key or chat: the run is untouched, and gets a job of its own', async () => {
      await startIdle()
      const { chatId } = await answered()
      const other = await turnmill.addKey(user.userId)
      const [run] = await runsOf(chatId)
      const runId = run?.id ?? ''
      const { auxiliaryQueue, backend: queues, reconciler } = turnmill.services
      const queue = queues.queue<AuxiliaryJob>(AUXILIARY_QUEUE)
      await takeJob(queue, `aux-${runId}-1`)
      await queue.close()
      const forged: AuxiliaryJob = { version: 1, runId, chatId, apiKeyId: other.apiKeyId, purpose: 'title' }
      await auxiliaryQueue.enqueue('forged-1', forged)
      turnmill.addAuxiliaryWorker()
      expect((await jobState('forged-1', 'failed')).reason).toBe(`job_key_mismatch: run ${runId}`)
      expect(await runsOf(chatId)).toMatchObject([{ state: 'pending', epoch: 0 }])
      reconciler.start()
      expect(await ended(chatId)).toMatchObject({ state: 'completed', enqueues: 2 })
      expect(callsFor('title').map(({ headers }) => headers['x-turnmill-key-id'])).toEqual([user.apiKeyId])
    })

    test('but not in direct mode, which needs no key', async () => {
      await startIdle({ TURNMILL_CHAT_AI_GATEWAY_ROUTING_ENABLED: 'false' })
      const { chatId } = await answered()
      await turnmill.services.db.prisma.apiKey.delete({ where: { id: user.apiKeyId } })
      turnmill.addAuxiliaryWorker()
      expect(await ended(chatId)).toMatchObject({ state: 'completed', apiKeyId: null })
      expect(callsFor('title')).toHaveLength(1)
    })
  })

  describe('survives', () => {
    test('a provider that is overloaded for a while: the failed attempts count too', async () => {
      await start()
      let calls = 0
      script('title', () =>
        ++calls < 3 ? { type: 'status', status: 503 } : { type: 'answer', text: 'Third' },
      )
      const { chatId } = await answered()
      await ended(chatId)
      expect((await read(chatId)).title).toBe('Third')
      expect(callsFor('title')).toHaveLength(3)
    })

    test('a provider that stays so: it fails by itself, and an operator’s retry runs it once more', async () => {
      await start()
      script('title', {
        type: 'answer',
        chunks: ['half'],
        ending: 'error',
        error: { type: 'overloaded_error' },
      })
      const { chatId } = await answered()
      const watch = user.client.watch(chatId)
      const run = await ended(chatId)
      expect([run.state, callsFor('title').length]).toEqual(['failed', 3])
      const titleError = { code: errorOf(run), message: expect.any(String), recovery: 'retry' }
      expect(await read(chatId)).toMatchObject({
        title: 'How does a mill turn?',
        titleError,
        status: 'idle',
        lastError: null,
      })
      await watch.until((event) => event.type === 'status' && event.titleError !== null)
      const jobId = `aux-${run.id}-1`
      expect((await jobState(jobId, 'failed')).reason).toBe(`${errorOf(run)}: run ${run.id}`)
      expect(warnings).toContainEqual(
        expect.objectContaining({ runId: run.id, chatId, purpose: 'title', code: errorOf(run) }),
      )

      script('title', { type: 'answer', text: 'Once more' })
      const path = `/admin/queues/api/queues/${AUXILIARY_QUEUE}/${jobId}`
      const shown = await turnmill.admin.client.request('GET', path)
      expect(shown.body).toMatchObject({
        job: {
          id: jobId,
          name: 'auxiliary',
          data: { version: 1, runId: run.id, chatId, apiKeyId: user.apiKeyId, purpose: 'title' },
        },
      })
      expect((await turnmill.admin.client.request('PUT', `${path}/retry`)).status).toBe(204)
      expect(await runWhere(chatId, ({ state }) => state === 'completed')).toMatchObject({
        id: run.id,
        enqueues: 2,
        epoch: 2,
        error: null,
      })
      expect(await read(chatId)).toMatchObject({ title: 'Once more', titleError: null })
      await watch.until((event) => event.type === 'status' && event.titleError === null && event.title === 'Once more') // prettier-ignore
      watch.close()
      expect(await jobState(jobId, 'completed', 'failed')).toMatchObject({ state: 'completed' })
    })

    test('the loss of the whole queue', async () => {
      await startIdle()
      const { chatId } = await answered()
      const queue = turnmill.services.backend.queue(AUXILIARY_QUEUE)
      await queue.obliterate({ force: true })
      await queue.close()
      turnmill.addAuxiliaryWorker()
      turnmill.services.reconciler.start()
      expect(await ended(chatId)).toMatchObject({ state: 'completed', enqueues: 2, epoch: 1 })
      expect(callsFor('title')).toHaveLength(1)
    })

    test('a job that still waits is left alone by the reconciler', async () => {
      await startIdle({ TURNMILL_LOST_AFTER_MS: '1' })
      const { chatId } = await answered()
      await turnmill.services.reconciler.pass()
      await turnmill.services.reconciler.pass()
      expect(await runsOf(chatId)).toMatchObject([{ enqueues: 1 }])
    })

    test('a worker that is killed amid its call; what a zombie of it writes changes nothing', async () => {
      await startIdle(LEASES_RUN_OUT)
      const { config, services } = turnmill
      let calls = 0
      script('title', () =>
        ++calls === 1 ? { type: 'silence', after: 'headers' } : { type: 'answer', text: 'Taken over' },
      )
      const doomed = startProcess('workers/auxiliary.ts', {
        ...testEnvironment(config.databaseUrl ?? '', { backend, environment: LEASES_RUN_OUT }),
        ...(config.redisUrl === null ? {} : { TURNMILL_QUEUE_PREFIX: config.queuePrefix }),
        ...TEST_SECRETS,
        // The reconciler is this process's.
        TURNMILL_RECONCILER_PERIOD_MS: '3600000',
      })
      await doomed.said('working')
      const { chatId } = await answered()
      await callFor('title')
      const [held] = await runsOf(chatId)
      await doomed.stop('SIGKILL')
      turnmill.addAuxiliaryWorker()
      services.reconciler.start()
      const run = await ended(chatId)
      expect(run).toMatchObject({ state: 'completed', epoch: 2, takeovers: 1 })
      expect((await read(chatId)).title).toBe('Taken over')
      expect(callsFor('title')).toHaveLength(2)

      const zombie = { runId: run.id, chatId, epoch: held?.epoch ?? 0 } as RunClaim
      const nothing = { usage: null, costMicros: null }
      const { auxiliaryRuns } = services
      for (const late of [
        auxiliaryRuns.complete(zombie, 'Late', nothing),
        auxiliaryRuns.release(zombie, nothing),
      ])
        await expect(late).rejects.toMatchObject({ code: 'turn_fenced' })
      expect((await read(chatId)).title).toBe('Taken over')
    }, 60_000)

    test('a worker that is told to stop: the run goes on elsewhere, and no takeover is counted', async () => {
      await startIdle({ TURNMILL_DRAIN_MS: '100' })
      let calls = 0
      script('title', () =>
        ++calls === 1 ? { type: 'silence', after: 'headers' } : { type: 'answer', text: 'Elsewhere' },
      )
      const first = turnmill.addAuxiliaryWorker()
      const { chatId } = await answered()
      const call = await callFor('title')
      await first.stop()
      await expect(call.closed).resolves.toMatchObject({ early: true })
      turnmill.addAuxiliaryWorker()
      expect(await ended(chatId)).toMatchObject({ state: 'completed', epoch: 2, takeovers: 0, enqueues: 2 })
      expect((await read(chatId)).title).toBe('Elsewhere')
    })

    test('for a week after its end, and no longer', async () => {
      await start()
      const [old, recent] = [await answered(), await answered()]
      for (const { chatId } of [old, recent]) await ended(chatId)
      const day = 24 * 3600 * 1000
      for (const [{ chatId }, age] of [
        [old, 8],
        [recent, 6],
      ] as const)
        // prettier-ignore
        await turnmill.services.db.prisma.auxiliaryRun.updateMany({
          where: { chatId },
          data: { finishedAt: new Date(Date.now() - age * day) },
        })
      await turnmill.services.reconciler.pass()
      expect([await runsOf(old.chatId), (await runsOf(recent.chatId)).length]).toEqual([[], 1])
    })
  })

  describe('a status label', () => {
    test('is shown while its turn is at work, and made under the turn’s key', async () => {
      await start(LABELS)
      const gate = hold()
      turnmill.upstream.script((request) =>
        purposeOf(request) === 'quickgen'
          ? { type: 'answer', text: 'Explaining how mills turn.' }
          : { type: 'answer', gate, gateAt: 0 },
      )
      const { chat, turn } = await user.client.create('How does a mill turn?')
      const watch = user.client.watch(chat.id)
      const label = 'Explaining how mills turn'
      await watch.until((event) => event.type === 'status' && event.statusLabel === label)
      watch.close()
      expect(await read(chat.id)).toMatchObject({ status: 'running', statusLabel: label })
      gate.release()
      await user.client.ended(chat.id, turn.id)
      expect(await read(chat.id)).toMatchObject({ status: 'idle', statusLabel: null })
      expect(callsFor('quickgen').map(({ headers }) => headers)).toMatchObject([
        { 'x-turnmill-key-id': user.apiKeyId, 'x-turnmill-turn-id': turn.id },
      ])
    })

    test('of an earlier turn is not shown for the next one, and one that comes too late is not written', async () => {
      await start(LABELS)
      const [first, late, second] = [hold(), hold(), hold()]
      turnmill.upstream.script((request) => {
        if (purposeOf(request) === 'quickgen')
          return request.text.includes('first')
            ? { type: 'answer', text: 'First label' }
            : { type: 'answer', text: 'Late label', gate: late, gateAt: 0 }
        return { type: 'answer', gate: request.text === 'first' ? first : second, gateAt: 0 }
      })
      const { chat, turn } = await user.client.create('first')
      await ended(chat.id)
      first.release()
      await user.client.ended(chat.id, turn.id)
      await user.client.send(chat.id, 'second')
      await runWhere(chat.id, (run) => run.turnId !== turn.id && run.state === 'running')
      expect(await read(chat.id)).toMatchObject({ status: 'running', statusLabel: null })
      second.release()
      await user.client.settled(chat.id)
      late.release()
      await ended(chat.id)
      const row = await turnmill.services.db.prisma.chat.findUniqueOrThrow({ where: { id: chat.id } })
      expect(row.statusLabel).toBeNull()
    })
  })
})

describe('a run', () => {
  let turnmill: Turnmill
  let user: TestUser
  beforeAll(async () => {
    turnmill = await startTurnmill({ workers: 0 })
    user = await turnmill.addUser()
  })
  afterAll(() => turnmill.stop())

  const nothing = { usage: null, costMicros: null }
  const failure = new TurnmillError('provider_rejected', 'refused')

  /** A run that was led into a state, and the claim with which it was. */
  async function reach(state: RunState): Promise<{ runId: string; claim: RunClaim }> {
    const { auxiliaryRuns } = turnmill.services
    const { chat } = await user.client.create('hi')
    const { body } = await user.client.request<{ run: AuxiliaryRunView }>(
      'POST',
      `/v1/chats/${chat.id}/title`,
    )
    const runId = body.run.id
    const pending = { runId, chatId: chat.id, epoch: 0, purpose: 'title', turnId: null } as RunClaim
    if (state === 'pending') return { runId, claim: pending }
    const claim = await auxiliaryRuns.claim({
      runId,
      jobId: `aux-${runId}-1`,
      attemptsMade: 0,
      compare: null,
    })
    if (typeof claim === 'string') throw new Error(claim)
    if (state === 'completed') await auxiliaryRuns.complete(claim, 'Named', nothing)
    if (state === 'failed') await auxiliaryRuns.fail(claim, failure, nothing)
    // As if its worker had not been heard of for long.
    else if (state === 'running')
      await turnmill.services.db.prisma.auxiliaryRun.update({
        where: { id: runId },
        data: { leaseUntil: new Date(0) },
      })
    return { runId, claim }
  }

  /** Tries a transition; whether it was refused, the row tells. */
  async function apply(transition: RunTransition, runId: string, claim: RunClaim): Promise<void> {
    const { auxiliaryRuns } = turnmill.services
    const job = { runId, jobId: `aux-${runId}-1`, attemptsMade: 1, compare: null }
    const moves: Record<RunTransition, () => Promise<unknown>> = {
      claim: () => auxiliaryRuns.claim(job),
      complete: () => auxiliaryRuns.complete(claim, 'Anew', nothing),
      fail: () => auxiliaryRuns.fail(claim, failure, nothing),
      release: () => auxiliaryRuns.release(claim, nothing),
      reopen: () => auxiliaryRuns.reopen(job),
    }
    await moves[transition]().catch((error: unknown) => expect(error).toMatchObject({ code: 'turn_fenced' }))
  }

  const cells = RUN_STATES.flatMap((from) =>
    (Object.keys(RUN_TRANSITION_MEANINGS) as RunTransition[]).map((transition) => ({
      from,
      transition,
      to: RUN_MOVES[from][transition],
      landing: RUN_MOVES[from][transition] ?? 'the same, refused',
    })),
  )
  test.each(cells)('by $transition from $from lands in $landing', async ({ from, transition, to }) => {
    const { runId, claim } = await reach(from)
    const read = () => turnmill.services.db.prisma.auxiliaryRun.findUniqueOrThrow({ where: { id: runId } })
    const before = await read()
    await apply(transition, runId, claim)
    const after = await read()
    if (to === undefined) expect(after).toEqual(before)
    else expect(after).toMatchObject({ state: to, epoch: before.epoch + (transition === 'claim' ? 1 : 0) })
  })
})
