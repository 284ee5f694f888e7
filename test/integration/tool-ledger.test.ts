/** What becomes of calls whose turn is stopped, lost or refused while they run (C1, C2 of `answer-calls.ts`). */
import { setTimeout as sleep } from 'node:timers/promises'
import { toTurnError, TurnmillError } from '../../src/protocol/errors.ts'
import type { ScriptedCall } from '../support/fake-upstream.ts'
import { toolsIn } from '../support/sent-tools.ts'
import {
  goAndAhead,
  call,
  createToolBench,
  ledgerOf,
  toolResult,
  type BenchCall,
} from '../support/tool-bench.ts'
import { takeAway } from '../support/leases.ts'
import { PNG } from '../support/tools.ts'
import { BACKENDS, startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

const bench = createToolBench()

const UNKNOWN = 'The outcome of this call is unknown: it was cut off while it ran.'
const UNKNOWN_AFTER_CRASH =
  'The outcome of this call is unknown: it was cut off while it ran, and may have had its effect or not.'
const CANCELLED = 'This call was cancelled before it ran.'

const scriptCalls = (turnmill: Turnmill, ...calls: readonly ScriptedCall[]): void =>
  turnmill.upstream.script((request) =>
    request.number === 1 ? { type: 'answer', toolCalls: calls } : { type: 'answer', text: 'All done.' },
  )

/** Resolves with the code of what a call was aborted with. */
const abortOf = async ({ signal }: BenchCall): Promise<string> => {
  if (!signal.aborted)
    await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
  return toTurnError(signal.reason).code
}

const resultsOf = async ({ client }: TestUser, chatId: string) =>
  (await client.messages(chatId)).flatMap(({ role, parts }) => (role === 'tool' ? parts : []))

/** Resolves once the ledger says so of the first call. */
async function firstCallIs(turnmill: Turnmill, turnId: string, state: string): Promise<void> {
  for (;;) {
    const [first] = (await ledgerOf(turnmill, turnId)) as { state: string }[]
    if (first?.state === state) return
    await sleep(20)
  }
}

describe.each(BACKENDS)('a stop on the %s backend', (backend) => {
  let turnmill: Turnmill
  let user: TestUser
  beforeAll(async () => {
    // Renewals are ten seconds away: only the notification can be faster.
    turnmill = await startTurnmill({
      backend,
      tools: bench.tools,
      environment: { TURNMILL_LEASE_MS: '20000', TURNMILL_LEASE_RENEWAL_MS: '10000' },
    })
  })
  afterAll(() => turnmill.stop())
  beforeEach(async () => {
    turnmill.upstream.reset()
    bench.reset()
    user = await turnmill.addUser()
  })

  const interrupt = (chatId: string) => user.client.request('POST', `/v1/chats/${chatId}/interrupt`)

  const goesOn = async (chatId: string): Promise<void> => {
    await user.client.send(chatId, 'next')
    await expect(user.client.settled(chatId)).resolves.toMatchObject({ status: 'idle', lastError: null })
    expect(turnmill.upstream.requests.at(-1)?.text).toBe('next')
  }

  test('while a tool runs aborts its signal at once, keeps what has ended, and the chat goes on', async () => {
    scriptCalls(turnmill, call('a', 'charge'), call('b', 'held'))
    const { chat, turn } = await user.client.create('go')
    const held = await bench.waitForCall(2)
    await firstCallIs(turnmill, turn.id, 'done')
    const before = performance.now()
    await interrupt(chat.id)
    expect(await abortOf(held)).toBe('turn_interrupted')
    expect(performance.now() - before).toBeLessThan(5000)
    await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'interrupted' })
    expect(await resultsOf(user, chat.id)).toEqual([
      toolResult('a', 'charge', 'charged'),
      toolResult('b', 'held', UNKNOWN, true),
    ])
    expect(await ledgerOf(turnmill, turn.id)).toMatchObject([{ state: 'done' }, { state: 'unknown' }])
    await goesOn(chat.id)
    expect(toolsIn(turnmill.upstream.requests.at(-1)!).results).toMatchObject([
      { id: 'a', text: 'charged' },
      { id: 'b', text: UNKNOWN },
    ])
    expect(bench.calls).toHaveLength(2)
  })

  test('while a tool runs keeps the images of another one that has ended', async () => {
    scriptCalls(turnmill, call('a', 'picture'), call('b', 'held'))
    const { chat, turn } = await user.client.create('go')
    await bench.waitForCall(2)
    await firstCallIs(turnmill, turn.id, 'done')
    await interrupt(chat.id)
    await user.client.ended(chat.id, turn.id)
    const image = { type: 'image', fileId: expect.any(String), mediaType: 'image/png' }
    expect(await resultsOf(user, chat.id)).toEqual([
      { ...toolResult('a', 'picture', 'a picture'), images: [image] },
      toolResult('b', 'held', UNKNOWN, true),
    ])
    await goesOn(chat.id)
    expect(JSON.stringify(turnmill.upstream.requests.at(-1)?.body)).toContain(PNG.toString('base64'))
  })

  test('between the commit of a step and its tools lets none of them run', async () => {
    scriptCalls(turnmill, call('a', 'charge'), call('b', 'echo', { text: 'b' }))
    const { chat, turn } = await goAndAhead(turnmill, user, 'startCalls', ({ chat }) => interrupt(chat.id))
    await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'interrupted' })
    expect(await resultsOf(user, chat.id)).toEqual([
      toolResult('a', 'charge', CANCELLED, true),
      toolResult('b', 'echo', CANCELLED, true),
    ])
    expect(bench.calls).toEqual([])
    await goesOn(chat.id)
  })

  /** What was asked for is there once, and none of it has run. */
  async function expectCancelled({
    chat,
    turn,
  }: Awaited<ReturnType<TestUser['client']['create']>>): Promise<void> {
    await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({
      state: 'interrupted',
      usage: { inputTokens: 12, outputTokens: 7 },
    })
    expect(await resultsOf(user, chat.id)).toEqual([toolResult('a', 'charge', CANCELLED, true)])
    expect(bench.calls).toEqual([])
    await goesOn(chat.id)
  }

  test('before the commit of a step keeps what was asked for, and lets none of it run', async () => {
    scriptCalls(turnmill, call('a', 'charge'))
    await expectCancelled(await goAndAhead(turnmill, user, 'commitStep', ({ chat }) => interrupt(chat.id)))
  })

  test('after a commit of a step that nobody was told of keeps it once, and lets none of its calls run', async () => {
    scriptCalls(turnmill, call('a', 'charge'))
    const { chats } = turnmill.services
    const { commitStep } = chats
    const created = Promise.withResolvers<string>()
    chats.commitStep = async (...values) => {
      chats.commitStep = commitStep
      await commitStep(...values)
      await interrupt(await created.promise)
      throw new TurnmillError('database_unavailable', 'the connection broke')
    }
    const started = await user.client.create('go')
    created.resolve(started.chat.id)
    await expectCancelled(started)
  })

  test('after the tools and before the commit of their results keeps their results', async () => {
    scriptCalls(turnmill, call('a', 'charge'), call('b', 'echo', { text: 'b' }))
    const { chat, turn } = await goAndAhead(turnmill, user, 'commitResults', ({ chat }) => interrupt(chat.id))
    await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'interrupted' })
    expect(await resultsOf(user, chat.id)).toEqual([
      toolResult('a', 'charge', 'charged'),
      toolResult('b', 'echo', { said: 'b' }),
    ])
    await goesOn(chat.id)
  })

  test('after the only tool and before the commit of its result keeps it', async () => {
    scriptCalls(turnmill, call('a', 'charge'))
    const { chat, turn } = await goAndAhead(turnmill, user, 'commitResults', ({ chat }) => interrupt(chat.id))
    await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'interrupted' })
    expect(await resultsOf(user, chat.id)).toEqual([toolResult('a', 'charge', 'charged')])
    expect(await ledgerOf(turnmill, turn.id)).toMatchObject([{ callId: 'a', state: 'done' }])
    await goesOn(chat.id)
  })

  test('by an edit aborts the tool, whose result is dropped', async () => {
    scriptCalls(turnmill, call('a', 'held'))
    const { chat, message, turn } = await user.client.create('go')
    const held = await bench.waitForCall(1)
    const edited = await user.client.edit(chat.id, message.id, 'rather this')
    await expect(user.client.ended(chat.id, edited.turn.id)).resolves.toMatchObject({ state: 'completed' })
    expect(await abortOf(held)).toBe('turn_fenced')
    expect(await ledgerOf(turnmill, turn.id)).toMatchObject([{ state: 'unknown' }])
    expect(await resultsOf(user, chat.id)).toEqual([])
  })
})

describe('a step whose commit is carried out and not answered', () => {
  test('is committed once, its calls run once, and the turn goes on', async () => {
    bench.reset()
    const turnmill = await startTurnmill({ tools: bench.tools })
    try {
      scriptCalls(turnmill, call('a', 'charge'), call('b', 'echo', { text: 'b' }))
      const user = await turnmill.addUser()
      const { chats } = turnmill.services
      const { commitStep } = chats
      chats.commitStep = async (...values) => {
        chats.commitStep = commitStep
        await commitStep(...values)
        throw new TurnmillError('database_unavailable', 'the connection broke')
      }
      const { chat, turn } = await user.client.create('go')
      // Of two calls of the model, each is counted once.
      await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({
        state: 'completed',
        error: null,
        usage: { inputTokens: 24, outputTokens: 14 },
      })
      expect(await resultsOf(user, chat.id)).toEqual([
        toolResult('a', 'charge', 'charged'),
        toolResult('b', 'echo', { said: 'b' }),
      ])
      expect([bench.count('charge'), bench.count('echo')]).toEqual([1, 1])
    } finally {
      await turnmill.stop()
    }
  })
})

describe('a key that is revoked while a tool runs', () => {
  test('ends the turn and aborts the tool; the chat goes on under another key', async () => {
    const turnmill = await startTurnmill({ tools: bench.tools })
    try {
      bench.reset()
      const user = await turnmill.addUser()
      const other = await turnmill.addKey(user.userId)
      scriptCalls(turnmill, call('a', 'held'))
      const { chat, turn } = await user.client.create('go')
      const held = await bench.waitForCall(1)
      const revoked = await other.client.request('DELETE', `/v1/api-keys/${user.apiKeyId}`)
      expect(revoked.status).toBeLessThan(300)
      expect(await abortOf(held)).toBe('key_revoked')
      await expect(other.client.ended(chat.id, turn.id)).resolves.toMatchObject({
        state: 'failed',
        error: { code: 'key_revoked' },
      })
      await other.client.send(chat.id, 'next')
      await expect(other.client.settled(chat.id)).resolves.toMatchObject({ status: 'idle', lastError: null })
      expect(toolsIn(turnmill.upstream.requests.at(-1)!).results).toMatchObject([{ id: 'a', text: UNKNOWN }])
      expect(turnmill.upstream.requests).toHaveLength(2)
    } finally {
      await turnmill.stop()
    }
  })
})

describe.each(BACKENDS)('a turn that is taken over on the %s backend', (backend) => {
  let turnmill: Turnmill
  let user: TestUser
  beforeAll(async () => {
    turnmill = await startTurnmill({ backend, workers: 2, tools: bench.tools, reconcile: true })
  })
  afterAll(() => turnmill.stop())
  beforeEach(async () => {
    turnmill.upstream.reset()
    bench.reset()
    user = await turnmill.addUser()
  })

  const completesFromTheThird = async (chatId: string, turnId: string): Promise<void> =>
    expect(await user.client.ended(chatId, turnId)).toMatchObject({ state: 'completed', epoch: 3 })

  test('runs nothing again that has ended, says of what is not idempotent that its outcome is unknown, and runs the rest', async () => {
    scriptCalls(turnmill, call('a', 'charge'), call('b', 'held'), call('c', 'lookup'))
    const { chat, turn } = await user.client.create('go')
    const [, held, lookup] = [
      await bench.waitForCall(1),
      await bench.waitForCall(2),
      await bench.waitForCall(3),
    ]
    await firstCallIs(turnmill, turn.id, 'done')
    await takeAway(turnmill, turn.id)
    expect(await abortOf(held)).toBe('turn_fenced')
    expect(await abortOf(lookup)).toBe('turn_fenced')
    expect(await bench.waitForCall(4)).toMatchObject({ tool: 'lookup', id: 'c' })
    bench.gate.release()
    await completesFromTheThird(chat.id, turn.id)
    expect(await resultsOf(user, chat.id)).toEqual([
      toolResult('a', 'charge', 'charged'),
      toolResult('b', 'held', UNKNOWN_AFTER_CRASH, true),
      toolResult('c', 'lookup', 'let go'),
    ])
    expect(await ledgerOf(turnmill, turn.id)).toMatchObject([
      { callId: 'a', state: 'done' },
      { callId: 'b', state: 'unknown' },
      { callId: 'c', state: 'done' },
    ])
    expect(bench.calls.map(({ tool }) => tool)).toEqual(['charge', 'held', 'lookup', 'lookup'])
    expect(toolsIn(turnmill.upstream.requests[1]!).results).toMatchObject([
      { id: 'a', text: 'charged' },
      { id: 'b', text: UNKNOWN_AFTER_CRASH },
      { id: 'c', text: 'let go' },
    ])
    expect(turnmill.upstream.requests).toHaveLength(2)
  })

  test('between the commit of a step and its tools runs them all, once', async () => {
    scriptCalls(turnmill, call('a', 'charge'), call('b', 'echo', { text: 'b' }))
    const { chat, turn } = await goAndAhead(turnmill, user, 'startCalls', ({ turn }) =>
      takeAway(turnmill, turn.id),
    )
    await completesFromTheThird(chat.id, turn.id)
    expect(await resultsOf(user, chat.id)).toEqual([
      toolResult('a', 'charge', 'charged'),
      toolResult('b', 'echo', { said: 'b' }),
    ])
    expect(bench.calls.map(({ tool }) => tool).toSorted()).toEqual(['charge', 'echo'])
  })

  test('after its tools and before the commit of their results commits what was kept', async () => {
    scriptCalls(turnmill, call('a', 'charge'), call('b', 'echo', { text: 'b' }))
    const { chat, turn } = await goAndAhead(turnmill, user, 'commitResults', ({ turn }) =>
      takeAway(turnmill, turn.id),
    )
    await completesFromTheThird(chat.id, turn.id)
    expect(await resultsOf(user, chat.id)).toEqual([
      toolResult('a', 'charge', 'charged'),
      toolResult('b', 'echo', { said: 'b' }),
    ])
    expect(bench.calls.map(({ tool }) => tool).toSorted()).toEqual(['charge', 'echo'])
  })
})

describe('a worker that is told to stop while a tool runs', () => {
  test('gives the turn back, and the next one does not run it again', async () => {
    const turnmill = await startTurnmill({
      workers: 0,
      tools: bench.tools,
      // A busy machine may not take the turn from a worker that lives.
      environment: {
        TURNMILL_DRAIN_MS: '100',
        TURNMILL_LEASE_MS: '20000',
        TURNMILL_LEASE_RENEWAL_MS: '10000',
      },
    })
    try {
      bench.reset()
      const user = await turnmill.addUser()
      scriptCalls(turnmill, call('a', 'charge'), call('b', 'held'))
      const worker = turnmill.addWorker()
      const { chat, turn } = await user.client.create('go')
      const held = await bench.waitForCall(2)
      await firstCallIs(turnmill, turn.id, 'done')
      await worker.stop()
      expect(await abortOf(held)).toBe('worker_stopped')
      turnmill.addWorker()
      await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({
        state: 'completed',
        epoch: 2,
      })
      expect(await resultsOf(user, chat.id)).toEqual([
        toolResult('a', 'charge', 'charged'),
        toolResult('b', 'held', UNKNOWN_AFTER_CRASH, true),
      ])
      expect(bench.calls).toHaveLength(2)
    } finally {
      await turnmill.stop()
    }
  })
})
