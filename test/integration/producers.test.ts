import type { TurnView } from '../../src/protocol/views.ts'
import { hold } from '../support/fake-upstream.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

let turnmill: Turnmill
let user: TestUser
beforeAll(async () => {
  turnmill = await startTurnmill({ backend: 'redis' })
})
afterAll(() => turnmill.stop())
beforeEach(async () => {
  turnmill.upstream.reset()
  user = await turnmill.addUser()
})

/** A chat whose first turn is held before its first part. */
async function busyChat(content = 'first') {
  const gate = hold()
  turnmill.upstream.script((request) =>
    request.text === content ? { type: 'answer', gate, gateAt: 0 } : { type: 'answer' },
  )
  const started = await user.client.create(content)
  await turnmill.upstream.waitForRequest(1)
  return { ...started, gate }
}

const textsOf = async (chatId: string): Promise<string[]> =>
  (await user.client.messages(chatId)).map((message) =>
    message.parts[0]?.type === 'text' ? message.parts[0].text : '',
  )

describe('send', () => {
  test('to a busy chat queues, and every queued message is answered in order (I4)', async () => {
    const { chat, gate } = await busyChat()
    for (const content of ['second', 'third', 'fourth']) await user.client.send(chat.id, content)
    const queue = await user.client.request<{ items: { parts: unknown }[] }>(
      'GET',
      `/v1/chats/${chat.id}/queue`,
    )
    expect(queue.body.items.map((item) => item.parts)).toEqual(
      ['second', 'third', 'fourth'].map((text) => [{ type: 'text', text }]),
    )
    gate.release()
    await user.client.settled(chat.id)
    expect(await textsOf(chat.id)).toEqual([
      'first',
      'echo: first',
      'second',
      'echo: second',
      'third',
      'echo: third',
      'fourth',
      'echo: fourth',
    ])
    const turns = await user.client.turns(chat.id)
    expect(turns.map((turn) => [turn.number, turn.trigger, turn.state])).toEqual([
      [4, 'promote', 'completed'], [3, 'promote', 'completed'], [2, 'promote', 'completed'], [1, 'create', 'completed'],
    ]) // prettier-ignore
  })

  test('to a busy chat with whenBusy reject is refused and writes nothing', async () => {
    const { chat, gate } = await busyChat()
    const answer = await user.client.request('POST', `/v1/chats/${chat.id}/messages`, {
      content: 'no',
      whenBusy: 'reject',
    })
    expect(answer).toMatchObject({ status: 409, body: { code: 'chat_busy' } })
    gate.release()
    await user.client.settled(chat.id)
    expect(await textsOf(chat.id)).toEqual(['first', 'echo: first'])
  })

  test('fifty at once to one chat: one runs, twenty queue, the rest are refused, and all 21 are answered', async () => {
    const { chat, turn } = await user.client.create('opening')
    await user.client.ended(chat.id, turn.id)
    const gate = hold()
    turnmill.upstream.script({ type: 'answer', gate, gateAt: 0 })
    const path = `/v1/chats/${chat.id}/messages`
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, index) =>
        user.client.request<{ turn?: TurnView; code?: string }>('POST', path, { content: `m${index}` }),
      ),
    )
    expect(answers.filter(({ status, body }) => status === 202 && body.turn !== undefined)).toHaveLength(1)
    expect(answers.filter(({ status, body }) => status === 202 && body.turn === undefined)).toHaveLength(20)
    expect(answers.filter(({ status, body }) => status === 409 && body.code === 'queue_full')).toHaveLength(
      29,
    )
    gate.release()
    const settled = await user.client.settled(chat.id)
    expect(settled.status).toBe('idle')
    const messages = await user.client.messages(chat.id)
    expect(messages.filter((message) => message.role === 'assistant')).toHaveLength(22)
    const [, ...queued] = await turnmill.services.db.prisma.queuedMessage.findMany({
      where: { chatId: chat.id },
      orderBy: { id: 'asc' },
    })
    expect(queued.every((message) => message.state === 'promoted')).toBe(true)
    const order = await turnmill.services.db.prisma.message.findMany({
      where: { chatId: chat.id, queuedMessageId: { not: null } },
      orderBy: { id: 'asc' },
    })
    expect(order.map((message) => message.queuedMessageId)).toEqual(
      order.map((message) => message.queuedMessageId).toSorted((a, b) => Number(a) - Number(b)),
    )
  })

  test('to a failed chat runs, and a queue that waited there goes first', async () => {
    const gate = hold()
    turnmill.upstream.script((request) =>
      request.text === 'first'
        ? { type: 'answer', gate, gateAt: 0, ending: 'error', error: { code: 'invalid_prompt' } }
        : { type: 'answer' },
    )
    const { chat, turn } = await user.client.create('first')
    await turnmill.upstream.waitForRequest(1)
    await user.client.send(chat.id, 'second')
    gate.release()
    await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'failed' })
    expect(await user.client.request('GET', `/v1/chats/${chat.id}`)).toMatchObject({
      body: { status: 'failed', activeTurnId: null },
    })
    await user.client.send(chat.id, 'third')
    await user.client.settled(chat.id)
    expect(await textsOf(chat.id)).toEqual(['first', 'second', 'echo: second', 'third', 'echo: third'])
    expect(await user.client.request('GET', `/v1/chats/${chat.id}`)).toMatchObject({
      body: { status: 'idle', lastError: null },
    })
  })
})

describe('edit', () => {
  test('while its turn runs supersedes the turn, its queue and all later messages; the old worker commits nothing', async () => {
    const { chat, message, turn, gate } = await busyChat()
    await user.client.send(chat.id, 'queued')
    const watch = user.client.watch(chat.id)
    await watch.until((event) => event.type === 'queue')
    const edited = await user.client.edit(chat.id, message.id, 'first, edited')
    await watch.until((event) => event.type === 'reset' && event.scope === 'history')
    await watch.until((event) => event.type === 'turn' && event.turnId === edited.turn.id)
    watch.close()
    gate.release()
    expect(await textsOf(chat.id)).toEqual(['first, edited', 'echo: first, edited'])
    const turns = await user.client.turns(chat.id)
    expect(turns.map((row) => [row.number, row.state])).toEqual([[2, 'completed'], [1, 'superseded']]) // prettier-ignore
    expect(turns[1]?.id).toBe(turn.id)
    const queued = await turnmill.services.db.prisma.queuedMessage.findMany({ where: { chatId: chat.id } })
    expect(queued.map((row) => row.state)).toEqual(['superseded'])
  })

  test('of an earlier message removes what came after it', async () => {
    const { chat, message, turn } = await user.client.create('one')
    await user.client.ended(chat.id, turn.id)
    await user.client.send(chat.id, 'two')
    await user.client.settled(chat.id)
    await user.client.edit(chat.id, message.id, 'one again')
    await user.client.settled(chat.id)
    expect(await textsOf(chat.id)).toEqual(['one again', 'echo: one again'])
  })

  test('of an answer, of a removed message and of no message is refused', async () => {
    const { chat, message, turn } = await user.client.create('one')
    await user.client.ended(chat.id, turn.id)
    const [, answer] = await user.client.messages(chat.id)
    const path = `/v1/chats/${chat.id}/messages`
    expect(await user.client.request('PATCH', `${path}/${answer?.id}`, { content: 'x' })).toMatchObject({
      status: 409,
      body: { code: 'message_not_editable' },
    })
    await user.client.edit(chat.id, message.id, 'two')
    await user.client.settled(chat.id)
    expect(await user.client.request('PATCH', `${path}/${message.id}`, { content: 'x' })).toMatchObject({
      status: 409,
      body: { code: 'message_not_editable' },
    })
    expect(await user.client.request('PATCH', `${path}/999999999`, { content: 'x' })).toMatchObject({
      status: 404,
    })
  })
})

describe('admission', () => {
  test('runs five turns of a user at once, keeps the rest pending, and finishes all', async () => {
    const gate = hold()
    turnmill.upstream.script({ type: 'answer', gate, gateAt: 0 })
    const started = await Promise.all(
      Array.from({ length: 12 }, (_, index) => user.client.create(`c${index}`)),
    )
    await turnmill.upstream.waitForRequest(5)
    const states = await turnmill.services.db.prisma.turn.findMany({ where: { userId: user.userId } })
    expect(states.filter((turn) => turn.admittedAt !== null)).toHaveLength(5)
    expect(states.filter((turn) => turn.jobId !== null)).toHaveLength(5)

    const other = await turnmill.addUser()
    await other.client.create('somebody else')
    await turnmill.upstream.waitForRequest(6)
    gate.release()
    for (const { chat, turn } of started)
      await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'completed' })
    expect(turnmill.upstream.requests).toHaveLength(13)
  })

  test('refuses a user with too many pending turns', async () => {
    const crowded = await startTurnmill({ workers: 0, environment: { TURNMILL_PENDING_TURNS: '3' } })
    try {
      const { client } = await crowded.addUser()
      for (let count = 0; count < 3; count++) await client.create('hi')
      const refused = await client.request('POST', '/v1/chats', { content: 'hi' })
      expect(refused).toMatchObject({ status: 429, body: { code: 'too_many_pending_turns' } })
      expect(refused.headers.get('retry-after')).toBe('5')
    } finally {
      await crowded.stop()
    }
  })
})

describe('versions', () => {
  test('advance once per transaction, and stamp what it changed', async () => {
    const { chat, message, turn } = await user.client.create('one')
    expect(chat).toMatchObject({ snapshotVersion: 1, historyVersion: 1, queueVersion: 1 })
    expect([message.revision, turn.revision]).toEqual([1, 1])
    await user.client.ended(chat.id, turn.id)
    const after = (await user.client.request<typeof chat>('GET', `/v1/chats/${chat.id}`)).body
    expect(after).toMatchObject({ snapshotVersion: 3, historyVersion: 1, queueVersion: 1 })
    const [, answer] = await user.client.messages(chat.id)
    expect(answer?.revision).toBe(3)
    await user.client.edit(chat.id, message.id, 'two')
    const edited = await user.client.settled(chat.id)
    expect(edited).toMatchObject({ snapshotVersion: 6, historyVersion: 2, queueVersion: 1 })
  })
})
