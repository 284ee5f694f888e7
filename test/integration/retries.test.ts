import { newId } from '../../src/protocol/ids.ts'
import { textOf } from '../../src/protocol/messages.ts'
import { NO_USAGE } from '../../src/protocol/usage.ts'
import type { ChatView, TurnView } from '../../src/protocol/views.ts'
import type { ChatEvent } from '../../src/streams/index.ts'
import { settledUsage } from '../support/chat-usage.ts'
import type { Started, Watch } from '../support/client.ts'
import { hold, type AnswerBehaviour, type Behaviour, type Gate } from '../support/fake-upstream.ts'
import { endLease } from '../support/leases.ts'
import { holdCommit, isText, textShown, untilTextEndsWith } from '../support/shown.ts'
import { BACKENDS, startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

type RetryEvent = ChatEvent & { type: 'retry' }

const isRetry = (event: ChatEvent): event is RetryEvent => event.type === 'retry'
const isReset = (event: ChatEvent): boolean => event.type === 'reset' && event.scope === 'preview'
const eventsOf = (watch: Watch): ChatEvent[] => watch.events.map(({ event }) => event)

/** Reads until the chat has settled, and gives all that was told. */
async function toldUntilSettled(watch: Watch): Promise<ChatEvent[]> {
  await watch.until((event) => event.type === 'status' && event.activeTurnId === null)
  watch.close()
  return eventsOf(watch)
}

/** Holds an answer behind its last delta, until somebody has seen some of it. */
const untilShown = (gate: Gate): Partial<AnswerBehaviour> => ({ gate, gateAt: Infinity })

const overloaded = (retryAfter: string): Behaviour => ({
  type: 'status',
  status: 429,
  headers: { 'retry-after': retryAfter },
})

describe.each(BACKENDS)('a failed attempt on the %s backend', (backend) => {
  let turnmill: Turnmill
  let user: TestUser
  beforeAll(async () => {
    turnmill = await startTurnmill({
      backend,
      wireFormat: 'anthropic-messages',
      environment: {
        TURNMILL_RETRY_FIRST_MS: '200',
        TURNMILL_BACKOFF_ABOVE_MS: '3000',
        TURNMILL_SILENCE_TIMEOUT_MS: '3000',
      },
    })
  })
  afterAll(() => turnmill.stop())
  beforeEach(async () => {
    turnmill.upstream.reset()
    user = await turnmill.addUser()
  })

  /** Fails the first attempt at `hi` in this way and answers the second; gives when each came. */
  function failOnce(behaviour: Behaviour, second: Partial<AnswerBehaviour> = {}): number[] {
    const at: number[] = []
    turnmill.upstream.script(({ text }) => {
      if (text !== 'hi') return { type: 'answer' }
      return at.push(Date.now()) === 1 ? behaviour : { type: 'answer', ...second }
    })
    return at
  }

  async function rowOf(chatId: string, turnId: string): Promise<TurnView> {
    const found = (await user.client.turns(chatId)).find(({ id }) => id === turnId)
    if (found === undefined) throw new Error(`turn ${turnId} is not listed`)
    return found
  }

  /** Sends `hi` to a chat that is watched already. */
  async function sendWatched() {
    const { chat } = await user.client.create('before')
    await user.client.settled(chat.id)
    const watch = user.client.watch(chat.id)
    await watch.until((event) => event.type === 'queue')
    watch.events.length = 0
    const { turn } = (await user.client.send(chat.id, 'hi')) as Started
    return { chat, turn, watch }
  }

  async function runToEnd() {
    const { chat, turn, watch } = await sendWatched()
    const events = await toldUntilSettled(watch)
    return { events, row: await rowOf(chat.id, turn.id), messages: await user.client.messages(chat.id) }
  }

  /** Holds the second answer until the watcher was told of the retry: a state that is over is not told. */
  async function runPastRetry(behaviour: Behaviour) {
    const gate = hold()
    const at = failOnce(behaviour, { gate, gateAt: 0 })
    const { chat, turn, watch } = await sendWatched()
    await watch.until(isRetry)
    gate.release()
    return { at, events: await toldUntilSettled(watch), row: await rowOf(chat.id, turn.id) }
  }

  test('waits as long as the provider asked for (P1)', async () => {
    const { at, events, row } = await runPastRetry(overloaded('1'))
    expect(row).toMatchObject({ state: 'completed', epoch: 1, retry: null })
    expect(Number(at[1]) - Number(at[0])).toBeGreaterThanOrEqual(990)
    expect(events.filter(isRetry)).toEqual([
      expect.objectContaining({
        turnId: row.id,
        number: 2,
        step: 1,
        attempts: 1,
        error: expect.objectContaining({ code: 'provider_overloaded', recovery: 'retry' }),
      }),
    ])
  })

  test.each(['-1', 'abc', 'Wed, 21 Oct 2015 07:28:00 GMT'])(
    'waits the default time where the provider asked for %j (P1)',
    async (retryAfter) => {
      const { at, events, row } = await runPastRetry(overloaded(retryAfter))
      expect(row).toMatchObject({ state: 'completed', epoch: 1 })
      expect(events.filter(isRetry)).toHaveLength(1)
      expect(Number(at[1]) - Number(at[0])).toBeGreaterThanOrEqual(99)
    },
  )

  test('is not tried again where the provider asked for a day (P1)', async () => {
    const at = failOnce(overloaded('86400'))
    const { row } = await runToEnd()
    expect(row).toMatchObject({
      state: 'failed',
      retry: null,
      error: { code: 'rate_limited', recovery: 'stop' },
    })
    expect(at).toHaveLength(1)
  })

  test.each<[string, AnswerBehaviour]>([
    ['cut within an event', { type: 'answer', ending: 'cut' }],
    ['broken by an event that is no JSON', { type: 'answer', ending: 'malformed' }],
    ['without its ending', { type: 'answer', ending: 'missing' }],
    ['that reports an error', { type: 'answer', ending: 'error', error: { type: 'overloaded_error' } }],
    ['that falls silent', { type: 'answer', ending: 'silence' }],
  ])('%s leaves no text behind: one reset, text once, one message (P3, P6, I2, I9)', async (_, behaviour) => {
    const [first, second] = [hold(), hold()]
    failOnce({ ...behaviour, ...untilShown(first) }, { gate: second, gateAt: 0 })
    const { chat, turn, watch } = await sendWatched()
    await watch.until(isText)
    first.release()
    await watch.until(isRetry)
    const commit = holdCommit(turnmill.services.chats)
    second.release()
    await untilTextEndsWith(watch, 'echo: hi')
    commit.release()
    const events = await toldUntilSettled(watch)
    expect(await rowOf(chat.id, turn.id)).toMatchObject({ state: 'completed', epoch: 1 })
    const messages = await user.client.messages(chat.id)
    expect(messages.map(({ role, parts }) => [role, textOf(parts)])).toEqual([
      ['user', 'before'],
      ['assistant', 'echo: before'],
      ['user', 'hi'],
      ['assistant', 'echo: hi'],
    ])
    expect(events.filter(isReset)).toHaveLength(1)
    expect(events.filter(isRetry)).toHaveLength(1)
    expect(events.findIndex(isReset)).toBeLessThan(events.findIndex(isRetry))
    expect(textShown(events.slice(events.findIndex(isRetry)))).toBe('echo: hi')
  })

  test('counts what it used, and its key is asked for every time (I6, I11, K4)', async () => {
    failOnce({ type: 'answer', ending: 'cut', usage: { input: 1000, output: 7 } })
    const { row, messages } = await runToEnd()
    const answer = messages.at(-1)
    expect(answer?.usage).toMatchObject({ inputTokens: 12, outputTokens: 7, estimated: false })
    // Anthropic reports the input with its first event; two tokens passed before it broke off.
    expect(row.usage).toMatchObject({ inputTokens: 1012, outputTokens: 9, estimated: true })
    expect(row.costMicros).toBe(Number(answer?.costMicros) + 1004)
    const keys = turnmill.upstream.requests.map(({ headers }) => headers['x-turnmill-key-id'])
    expect(keys).toEqual([user.apiKeyId, user.apiKeyId, user.apiKeyId])
  })

  test('by a provider that cannot be reached is tried again until it can (P3)', async () => {
    const path = `/v1/providers/${turnmill.provider.id}`
    await turnmill.admin.client.request('PATCH', path, { baseUrl: 'http://127.0.0.1:9' })
    const { chat, turn } = await user.client.create('anybody there')
    const watch = user.client.watch(chat.id)
    await watch.until((event) => isRetry(event) && event.error.code === 'provider_unreachable')
    const baseUrl = turnmill.upstream.baseUrl('anthropic-messages')
    await turnmill.admin.client.request('PATCH', path, { baseUrl })
    watch.close()
    await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'completed' })
  })
})

/** An hour's sleep, in the worker itself: whatever ends it is not the time. */
const LONG_SLEEP = {
  TURNMILL_RETRY_FIRST_MS: '3600000',
  TURNMILL_RETRY_MAXIMUM_MS: '3600000',
  TURNMILL_BACKOFF_ABOVE_MS: '7200000',
}

/** The renewal is too far away to notice a stop. */
const RARE_RENEWALS = { TURNMILL_LEASE_MS: '60000', TURNMILL_LEASE_RENEWAL_MS: '30000' }

describe.each(BACKENDS)('a turn asleep before a retry on the %s backend', (backend) => {
  let turnmill: Turnmill
  let user: TestUser
  afterEach(() => turnmill.stop())

  /** A chat whose first attempt has shown some text and failed. */
  async function sleepingChat(environment: Record<string, string> = {}) {
    turnmill = await startTurnmill({ backend, environment: { ...LONG_SLEEP, ...environment } })
    user = await turnmill.addUser()
    const gate = hold()
    turnmill.upstream.script(({ number }) =>
      number === 1 ? { type: 'answer', ending: 'cut', ...untilShown(gate) } : { type: 'answer' },
    )
    const started = await user.client.create('first')
    const watch = user.client.watch(started.chat.id)
    await watch.until(isText)
    gate.release()
    await watch.until(isRetry)
    return { ...started, watch }
  }

  test('shows no stale text, also to whoever comes meanwhile (I9)', async () => {
    const { chat, watch } = await sleepingChat()
    const told = eventsOf(watch).map(({ type }) => type)
    expect(told.slice(-2)).toEqual(['reset', 'retry'])
    watch.close()
    const late = user.client.watch(chat.id)
    await late.until(isRetry)
    expect((await user.client.turns(chat.id))[0]).toMatchObject({ state: 'running', retry: { attempts: 1 } })
    await user.client.request('POST', `/v1/chats/${chat.id}/interrupt`)
    const toldLate = (await toldUntilSettled(late)).map(({ type }) => type)
    expect(toldLate.filter((type) => type === 'retry')).toHaveLength(1)
    expect(toldLate).not.toContain('part')
    expect(toldLate).not.toContain('reset')
  })

  test('is stopped at once with nothing partial, and the next queued message runs (P5)', async () => {
    const { chat, turn, watch } = await sleepingChat(RARE_RENEWALS)
    await user.client.send(chat.id, 'second')
    const before = performance.now()
    await user.client.request('POST', `/v1/chats/${chat.id}/interrupt`)
    await watch.until((event) => event.type === 'turn' && event.state === 'interrupted')
    expect(performance.now() - before).toBeLessThan(5000)
    watch.close()
    await user.client.settled(chat.id)
    const messages = await user.client.messages(chat.id)
    expect(messages.map(({ role, parts }) => [role, textOf(parts)])).toEqual([
      ['user', 'first'],
      ['user', 'second'],
      ['assistant', 'echo: second'],
    ])
    expect(turnmill.upstream.requests.map(({ text }) => text)).toEqual(['first', 'second'])
    const turns = await user.client.turns(chat.id)
    expect(turns.find(({ id }) => id === turn.id)).toMatchObject({ state: 'interrupted', retry: null, error: null }) // prettier-ignore
  })

  test('fails within a renewal once its key is revoked, without another request (K3)', async () => {
    const { chat, turn, watch } = await sleepingChat()
    watch.close()
    const reader = await turnmill.addKey(user.userId)
    const where = { id: user.apiKeyId }
    await turnmill.services.db.prisma.apiKey.update({ where, data: { revokedAt: new Date() } })
    await expect(reader.client.ended(chat.id, turn.id)).resolves.toMatchObject({
      state: 'failed',
      error: { code: 'key_revoked' },
    })
    expect(turnmill.upstream.requests).toHaveLength(1)
  })
})

describe.each(BACKENDS)('the attempts of a turn on the %s backend', (backend) => {
  let turnmill: Turnmill
  let user: TestUser
  const start = async (environment: Record<string, string>): Promise<void> => {
    turnmill = await startTurnmill({ backend, workers: 0, reconcile: true, environment })
    user = await turnmill.addUser()
    turnmill.upstream.script({ type: 'status', status: 503 })
  }
  afterEach(() => turnmill.stop())

  const startedParts = async (chatId: string): Promise<string[]> => {
    const logged = await turnmill.services.parts.read(chatId)
    return logged.map(({ epoch, attempt }) => `${epoch}.${attempt}`)
  }

  test('are counted on after a takeover, and so is what they spent', async () => {
    await start({ TURNMILL_RETRY_ATTEMPTS: '4' })
    const { chats } = turnmill.services
    const { chat, turn } = await user.client.create('hi')
    // A worker that claims, fails twice and is never heard of again.
    const claim = await chats.claim({ turnId: turn.id, jobId: 'x', attemptsMade: 0, compare: null })
    if (typeof claim === 'string') throw new Error(`the claim was refused: ${claim}`)
    expect(claim.retry).toBeNull()
    const usage = { ...NO_USAGE, inputTokens: 5 }
    const spent = { id: newId(), usage, costMicros: 5 }
    const error = { code: 'provider_timeout', message: 'too slow', recovery: 'retry' } as const
    const retry = { step: 1, attempts: 2, error, retryAt: new Date().toISOString() }
    await chats.noteRetry(claim, retry, spent)
    // The answer of the first try may have been lost.
    await chats.noteRetry(claim, retry, spent)
    expect((await user.client.turns(chat.id))[0]).toMatchObject({ retry, usage, costMicros: 5 })

    turnmill.upstream.script(({ number }) =>
      number === 1 ? { type: 'status', status: 503 } : { type: 'answer', ending: 'missing' },
    )
    await endLease(turnmill, turn.id)
    turnmill.addWorker()
    const ended = await user.client.ended(chat.id, turn.id)
    expect(ended).toMatchObject({
      state: 'failed',
      epoch: 2,
      retry: null,
      error: { code: 'provider_stream_broken' },
    })
    const { calls } = await settledUsage(user, chat.id)
    expect(ended.usage).toMatchObject({ inputTokens: 5 + calls.inputTokens })
    expect(ended.costMicros).toBe(5 + calls.costMicros)
    expect(turnmill.upstream.requests).toHaveLength(2)
    expect(new Set(await startedParts(chat.id))).toEqual(new Set(['2.4']))
  })

  test('keep what a call had spent when its worker was told to stop', async () => {
    await start({})
    const { chats } = turnmill.services
    const { chat, turn } = await user.client.create('hi')
    const claim = await chats.claim({ turnId: turn.id, jobId: 'x', attemptsMade: 0, compare: null })
    if (typeof claim === 'string') throw new Error(`the claim was refused: ${claim}`)
    const usage = { ...NO_USAGE, inputTokens: 5, outputTokens: 1 }
    await chats.release(claim, { usage, costMicros: 7 })
    turnmill.upstream.script({ type: 'answer' })
    turnmill.addWorker()
    await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({
      state: 'completed',
      epoch: 2,
      usage: { inputTokens: 5 + 12, outputTokens: 1 + 7 },
      costMicros: 7 + 26,
    })
  })

  test('are counted on by another worker, once one was told to stop asleep', async () => {
    await start({
      TURNMILL_RETRY_ATTEMPTS: '3',
      TURNMILL_RETRY_FIRST_MS: '2000',
      TURNMILL_BACKOFF_ABOVE_MS: '60000',
      TURNMILL_DRAIN_MS: '50',
    })
    const at: number[] = []
    turnmill.upstream.script(() => {
      at.push(Date.now())
      return { type: 'status', status: 503 }
    })
    const worker = turnmill.addWorker()
    const { chat, turn } = await user.client.create('hi')
    const watch = user.client.watch(chat.id)
    await watch.until(isRetry)
    await worker.stop()
    turnmill.addWorker()
    await watch.until((event) => isRetry(event) && event.attempts === 2)
    const told = eventsOf(watch).filter(isRetry)
    watch.close()
    expect(told.map(({ attempts }) => attempts)).toEqual([1, 2])
    // The second worker slept the rest of the wait; timers may be a little early.
    expect(at[1]).toBeGreaterThanOrEqual(Date.parse(told[0]?.retryAt ?? '') - 5)
    await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'failed', epoch: 2 })
    expect(turnmill.upstream.requests).toHaveLength(3)
    const row = await turnmill.services.db.prisma.turn.findUniqueOrThrow({ where: { id: turn.id } })
    expect(row.takeovers).toBe(0)
  })
})

describe.each(BACKENDS)('a long wait on the %s backend', (backend) => {
  let turnmill: Turnmill
  let user: TestUser
  beforeEach(async () => {
    turnmill = await startTurnmill({
      backend,
      reconcile: true,
      environment: { TURNMILL_RUNNING_ROOT_TURNS: '1', TURNMILL_BACKOFF_ABOVE_MS: '500' },
    })
    user = await turnmill.addUser()
  })
  afterEach(() => turnmill.stop())

  /** A turn that the provider wants to wait, given back by its worker. */
  async function backedOff(retryAfter: string) {
    turnmill.upstream.script(({ number }) => (number === 1 ? overloaded(retryAfter) : { type: 'answer' }))
    const started = await user.client.create('later')
    const watch = user.client.watch(started.chat.id)
    await watch.until(isRetry)
    const row = await turnmill.services.db.prisma.turn.findUniqueOrThrow({ where: { id: started.turn.id } })
    return { ...started, watch, row }
  }

  test('gives the slot up to another turn of the user, and is over by itself (P1)', async () => {
    const { chat, turn, row, watch } = await backedOff('8')
    expect(row).toMatchObject({ state: 'pending', admittedAt: null, leaseUntil: null, epoch: 1 })
    expect(row.notBefore?.getTime()).toBeGreaterThan(Date.now())
    const other = await user.client.create('now')
    await expect(user.client.ended(other.chat.id, other.turn.id)).resolves.toMatchObject({
      state: 'completed',
    })
    expect((await user.client.turns(chat.id))[0]).toMatchObject({ state: 'pending', retry: { attempts: 1 } })
    const [last] = (await toldUntilSettled(watch)).filter(({ type }) => type === 'turn')
    expect(last).toMatchObject({ turnId: turn.id, state: 'completed' })
    const done = await turnmill.services.db.prisma.turn.findUniqueOrThrow({ where: { id: turn.id } })
    expect(done).toMatchObject({ epoch: 2, takeovers: 0 })
    expect(Number(done.claimedAt)).toBeGreaterThanOrEqual(Number(row.notBefore))
    expect(turnmill.upstream.requests.map(({ text }) => text)).toEqual(['later', 'now', 'later'])
  })

  test('is ended by a stop at once (P5)', async () => {
    const { chat, turn, watch } = await backedOff('300')
    watch.close()
    const { body } = await user.client.request<ChatView>('POST', `/v1/chats/${chat.id}/interrupt`)
    expect(body).toMatchObject({ status: 'idle', activeTurnId: null })
    await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({
      state: 'interrupted',
      retry: null,
    })
    expect(turnmill.upstream.requests).toHaveLength(1)
  })
})
