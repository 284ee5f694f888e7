import { setTimeout as sleep } from 'node:timers/promises'
import type { Claim } from '../../src/chats/index.ts'
import { defineTool } from '../../src/tools/index.ts'
import { TurnmillError } from '../../src/protocol/errors.ts'
import { textOf } from '../../src/protocol/messages.ts'
import type { WireFormat } from '../../src/protocol/routes.ts'
import type { ChatView, MessageView, TurnView } from '../../src/protocol/views.ts'
import type { TestClient } from '../support/client.ts'
import { hold, type Behaviour, type UpstreamRequest } from '../support/fake-upstream.ts'
import {
  asksForSummary,
  counted,
  factsIn,
  summaryOf,
  tokensOf,
  tooLong,
  withWindow,
} from '../support/small-window.ts'
import { takeAway } from '../support/leases.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

const WINDOW = 2000

async function setWindow({ admin, modelConfig }: Turnmill, fields: object): Promise<void> {
  const changed = await admin.client.request('PATCH', `/v1/model-configs/${modelConfig.id}`, fields)
  expect(changed.status).toBe(200)
}

const compact = (client: TestClient, chatId: string) =>
  client.request<{ turn: TurnView }>('POST', `/v1/chats/${chatId}/compact`)

const clear = (client: TestClient, chatId: string) =>
  client.request<ChatView>('POST', `/v1/chats/${chatId}/clear`)

/** Sends a message and waits for the end of its turn. */
async function say(client: TestClient, chatId: string, content: string): Promise<TurnView> {
  const sent = await client.send(chatId, content)
  if (!('turn' in sent)) throw new Error('the message was queued, expected a turn')
  return client.ended(chatId, sent.turn.id)
}

async function create(client: TestClient, content: string): Promise<{ chat: ChatView; turn: TurnView }> {
  const { chat, turn } = await client.create(content)
  return { chat, turn: await client.ended(chat.id, turn.id) }
}

async function compactAndWait(client: TestClient, chatId: string): Promise<TurnView> {
  const { status, body } = await compact(client, chatId)
  expect(status).toBe(202)
  return client.ended(chatId, body.turn.id)
}

async function retryAndWait(client: TestClient, chatId: string): Promise<TurnView> {
  const { body } = await client.request<{ turn: TurnView }>('POST', `/v1/chats/${chatId}/retry`)
  return client.ended(chatId, body.turn.id)
}

const isSummary = ({ boundary }: MessageView): boolean => boundary === 'compaction'
const summaries = (requests: readonly UpstreamRequest[]): UpstreamRequest[] => requests.filter(asksForSummary)
const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0)
const bodyOf = (request: UpstreamRequest | undefined): string => JSON.stringify(request?.body)

describe.each<WireFormat>(['openai-responses', 'openai-chat', 'anthropic-messages'])(
  'a long conversation over %s',
  (wireFormat) => {
    let turnmill: Turnmill
    let user: TestUser
    beforeAll(async () => {
      turnmill = await startTurnmill({ wireFormat })
      await setWindow(turnmill, { contextWindow: WINDOW })
      user = await turnmill.addUser()
    })
    afterAll(() => turnmill.stop())

    test('is compacted and goes on for 50 turns in a small context window', async () => {
      const { client, apiKeyId } = user
      const { upstream } = turnmill
      upstream.script(
        withWindow(WINDOW, (request) =>
          counted(request, `answer to ${request.text.slice(0, 20)} ${'a'.repeat(200)}`),
        ),
      )
      const contentOf = (number: number): string =>
        `message ${number} ${number <= 5 ? `fact-${number}` : ''} ${'q'.repeat(200)}`
      const { chat, turn: first } = await create(client, contentOf(1))
      const watch = client.watch(chat.id)
      const watched = watch.until(
        (event) => event.type === 'message' && textOf(event.message.parts).startsWith('answer to message 50'),
      )
      const turns = [first]
      for (let number = 2; number <= 50; number++) turns.push(await say(client, chat.id, contentOf(number)))

      expect(turns.map(({ state }) => state)).toEqual(turns.map(() => 'completed'))
      // Each request fits, so none was refused, and none was made twice.
      const asked = summaries(upstream.requests)
      expect(Math.max(...upstream.requests.map(tokensOf))).toBeLessThanOrEqual(WINDOW)
      expect(asked.length).toBeGreaterThan(1)
      expect(asked.length).toBeLessThan(20)
      expect(upstream.requests).toHaveLength(50 + asked.length)
      expect(factsIn(upstream.requests.at(-1))).toEqual(['fact-1', 'fact-2', 'fact-3', 'fact-4', 'fact-5'])

      const messages = await client.messages(chat.id)
      const rows = messages.filter(isSummary)
      expect(rows).toHaveLength(asked.length)
      for (const row of rows) {
        expect(row).toMatchObject({ role: 'system', apiKeyId, modelConfigId: turnmill.modelConfig.id })
        expect(textOf(row.parts)).toMatch(/^Summary of the conversation so far:\n\nTo be remembered: fact-1/)
      }
      // All that was said is still listed, what lies before the last summary as compressed.
      expect(messages.filter(({ role }) => role === 'user').map(({ parts }) => textOf(parts))).toEqual(
        Array.from({ length: 50 }, (_, index) => contentOf(index + 1)),
      )
      const shown = messages.filter(({ compressed }) => !compressed)
      expect(shown.filter(isSummary)).toEqual([rows.at(-1)])
      expect(shown.length).toBeLessThan(25)
      expect(messages[0]?.compressed).toBe(true)

      // Each turn has what its calls have used, summaries included.
      expect(sum(turns.map(({ usage }) => usage?.inputTokens ?? 0))).toBe(
        sum(upstream.requests.map(tokensOf)),
      )
      for (const row of rows) {
        const turn = turns.find(({ id }) => id === row.turnId)
        const answer = messages.find(({ turnId, role }) => turnId === row.turnId && role === 'assistant')
        expect(turn?.costMicros).toBe((row.costMicros ?? 0) + (answer?.costMicros ?? 0))
        expect(row.costMicros).toBeGreaterThan(0)
      }

      // A watcher has seen each message once more when it was compressed, and no end but completed ones.
      await watched
      watch.close()
      const seen = new Map<string, MessageView>()
      for (const { event } of watch.events) if (event.type === 'message') seen.set(event.message.id, event.message) // prettier-ignore
      expect([...seen.values()].sort((one, other) => Number(one.id) - Number(other.id))).toEqual(messages)
      expect(watch.events.filter(({ event }) => event.type === 'reset' || event.type === 'retry')).toEqual([])
    })
  },
)

describe('compaction', () => {
  let turnmill: Turnmill
  let client: TestClient
  const outputs: string[] = []
  /** Lines of the log that tell of a turn without the summary that was due. */
  const uncompacted: string[] = []
  beforeAll(async () => {
    const dig = defineTool({
      name: 'dig',
      description: 'Digs.',
      inputSchema: { type: 'object' },
      execute: () => `fact-dug-${outputs.push('')} ${'d'.repeat(1500)}`,
    })
    turnmill = await startTurnmill({
      backend: 'redis',
      tools: [dig],
      environment: { TURNMILL_RETRY_ATTEMPTS: '3' },
      onLog: (line) => line.includes('goes on uncompacted') && uncompacted.push(line),
    })
  })
  afterAll(() => turnmill.stop())
  beforeEach(async () => {
    outputs.length = 0
    turnmill.upstream.reset()
    await setWindow(turnmill, { contextWindow: null, compactionThreshold: null })
    client = (await turnmill.addUser()).client
  })

  const requests = () => turnmill.upstream.requests
  const script = (behaviour: Behaviour | ((request: UpstreamRequest) => Behaviour)) =>
    turnmill.upstream.script(behaviour)

  /** Refuses everything but summaries and what already has one. */
  const refuseUnsummed = (request: UpstreamRequest): Behaviour => {
    if (asksForSummary(request)) return summaryOf(request)
    return bodyOf(request).includes('Summary of the conversation') ? { type: 'answer' } : tooLong(request)
  }

  test('within a turn of many steps keeps what its user said word for word, and goes on', async () => {
    await setWindow(turnmill, { contextWindow: 3000 })
    const question = `dig for it, word for word: fact-asked ${'?'.repeat(300)}`
    const { chat } = await create(client, 'before: fact-early')
    script(
      withWindow(3000, (request) =>
        outputs.length < 12
          ? {
              type: 'answer',
              text: `step ${outputs.length}`,
              // The same id each time, as some providers count.
              toolCalls: [{ id: 'call_0', name: 'dig', args: ['{}'] }],
              usage: { input: tokensOf(request), output: 20 },
            }
          : counted(request, 'dug'),
      ),
    )
    const asked = await say(client, chat.id, question)
    expect(asked).toMatchObject({ state: 'completed', error: null })
    expect(outputs).toHaveLength(12)
    const own = requests()
      .slice(1)
      .filter((request) => !asksForSummary(request))
    expect(own).toHaveLength(13)
    for (const request of own) expect(bodyOf(request)).toContain(question)
    expect(summaries(requests()).length).toBeGreaterThan(1)
    expect(factsIn(own.at(-1))).toEqual(
      expect.arrayContaining(['fact-early', 'fact-asked', 'fact-dug-1', 'fact-dug-12']),
    )
    const calls = (await client.messages(chat.id))
      .filter(({ turnId }) => turnId === asked.id)
      .flatMap(({ parts }) => parts.flatMap((part) => (part.type === 'tool-call' ? part.toolCallId : [])))
    expect(new Set(calls).size).toBe(12)
  })

  test('leaves each call an id of its own, whatever its provider gives', async () => {
    const ids = ['a-3', 'b', 'a', 'a', 'a-3']
    const { chat } = await create(client, 'before')
    let compacted = false
    script((request) => {
      if (asksForSummary(request)) return summaryOf(request)
      const id = ids[outputs.length]
      if (id === undefined) return { type: 'answer' }
      if (id === 'a' && !compacted) {
        compacted = true
        return tooLong(request)
      }
      return { type: 'answer', toolCalls: [{ id, name: 'dig', args: ['{}'] }] }
    })
    const turn = await say(client, chat.id, 'dig')
    expect(turn).toMatchObject({ state: 'completed', error: null })
    expect(outputs).toHaveLength(5)
    const { prisma } = turnmill.services.db
    const calls = await prisma.toolCall.findMany({ where: { turnId: turn.id }, orderBy: { step: 'asc' } })
    expect(new Set(calls.map(({ callId }) => callId)).size).toBe(5)
    expect(calls.slice(0, 2).map(({ callId }) => callId)).toEqual(['a-3', 'b'])
  })

  test('keeps the message of a turn that is retried after some of its steps', async () => {
    const { chat } = await create(client, 'before')
    script(({ number }) =>
      number === 2
        ? { type: 'answer', toolCalls: [{ id: 'c', name: 'dig', args: ['{}'] }] }
        : { type: 'status', status: 400 },
    )
    expect(await say(client, chat.id, 'the very words of the user')).toMatchObject({ state: 'failed' })
    script(refuseUnsummed)
    expect(await retryAndWait(client, chat.id)).toMatchObject({ state: 'completed' })
    const [asked] = summaries(requests())
    expect(bodyOf(asked)).not.toContain('the very words of the user')
    expect(bodyOf(requests().at(-1))).toContain('the very words of the user')
  })

  test('leaves what nobody has answered word for word', async () => {
    const { chat } = await create(client, 'answered')
    script({ type: 'status', status: 400 })
    expect(await say(client, chat.id, 'unanswered, word for word')).toMatchObject({ state: 'failed' })
    script((request) => (asksForSummary(request) ? summaryOf(request) : { type: 'answer' }))
    const compacted = await compactAndWait(client, chat.id)
    expect(compacted).toMatchObject({ state: 'completed', trigger: 'compact' })
    const [asked] = summaries(requests())
    expect(bodyOf(asked)).toContain('answered')
    expect(bodyOf(asked)).not.toContain('unanswered')
    expect(await say(client, chat.id, 'and this')).toMatchObject({ state: 'completed' })
    const last = requests().at(-1)?.body['input'] as { role: string; content: unknown }[]
    expect(last.map(({ role }) => role)).toEqual(['system', 'user', 'user'])
    expect(last.slice(1).map(({ content }) => JSON.stringify(content))).toEqual([
      expect.stringContaining('unanswered, word for word'),
      expect.stringContaining('and this'),
    ])
  })

  const tooLarge = { type: 'status', status: 413, error: { message: 'too large' } } as const
  test.each<[string, (request: UpstreamRequest) => Behaviour]>([
    ['the length', tooLong],
    ['the size', () => tooLarge],
  ])('follows a refusal of %s once, and the step is tried again', async (_, refusal) => {
    const { chat } = await create(client, 'first: fact-first')
    script((request) => {
      const answer = refuseUnsummed(request)
      return answer.type === 'status' ? refusal(request) : answer
    })
    expect(await say(client, chat.id, 'second')).toMatchObject({ state: 'completed', retry: null })
    expect(requests()).toHaveLength(4)
    expect(factsIn(requests()[3])).toEqual(['fact-first'])
  })

  test('follows a refusal in the middle of an answer, of which nothing is left in the next attempt (I9)', async () => {
    const { chat } = await create(client, 'first: fact-first')
    const gate = hold()
    script((request) => {
      if (asksForSummary(request)) return summaryOf(request)
      if (bodyOf(request).includes('Summary of the conversation'))
        return { type: 'answer', chunks: ['a', 'n', 'e', 'w', '.'], gate, gateAt: 4 }
      return { type: 'answer', chunks: ['gone'], ending: 'error', error: { code: 'context_length_exceeded' } }
    })
    const watch = client.watch(chat.id)
    let shown = ''
    const look = watch.until(({ type, ...event }) => {
      if (type === 'reset') shown = ''
      if ('part' in event && event.part.type === 'text-delta') shown += event.part.text
      return shown.endsWith('w')
    })
    const sent = await client.send(chat.id, 'second')
    await look
    expect(shown).toBe('anew')
    gate.release()
    watch.close()
    const turnId = 'turn' in sent ? sent.turn.id : ''
    expect(await client.ended(chat.id, turnId)).toMatchObject({ state: 'completed' })
    // No call has the place of another one in the books.
    const books = await turnmill.services.db.prisma.interception.findMany({
      where: { turnId },
      orderBy: { startedAt: 'asc' },
    })
    expect(books.map(({ purpose, step, epoch, attempt }) => [purpose, step, epoch, attempt])).toEqual([
      ['chat', 1, 1, 1],
      ['compaction', 1, 1, 2],
      ['chat', 1, 1, 2],
    ])
  })

  test('that leaves too much, as the prompt is too long itself, is not asked for again in the turn', async () => {
    await setWindow(turnmill, { contextWindow: 8000 })
    script((request) => {
      if (asksForSummary(request)) return summaryOf(request)
      if (outputs.length >= 6) return counted(request, 'dug')
      const usage = { input: tokensOf(request), output: 20 }
      return { type: 'answer', toolCalls: [{ id: 'call_0', name: 'dig', args: ['{}'] }], usage }
    })
    const { body } = await client.request<{ chat: ChatView; turn: TurnView }>('POST', '/v1/chats', {
      content: 'go',
      systemPrompt: 's'.repeat(24_000),
    })
    expect(await client.ended(body.chat.id, body.turn.id)).toMatchObject({ state: 'completed' })
    expect(outputs).toHaveLength(6)
    expect(summaries(requests())).toHaveLength(1)
    expect(factsIn(requests().at(-1))).toEqual(expect.arrayContaining(['fact-dug-2', 'fact-dug-6']))
  })

  test('comes in time where the provider reports that nothing was used', async () => {
    await setWindow(turnmill, { contextWindow: 4000 })
    script((request) =>
      asksForSummary(request)
        ? summaryOf(request)
        : { type: 'answer', text: 'w'.repeat(4000), usage: { input: 0, output: 0 } },
    )
    const { chat } = await create(client, 'first')
    for (const content of ['second', 'third', 'fourth']) await say(client, chat.id, content)
    expect(summaries(requests())).toHaveLength(1)
  })

  test('that does not help fails the turn, and never loops', async () => {
    const { chat } = await create(client, 'first')
    script((request) => (asksForSummary(request) ? summaryOf(request) : tooLong(request)))
    const failed = await say(client, chat.id, 'second')
    expect(failed).toMatchObject({ state: 'failed', error: { code: 'context_too_long' } })
    expect(requests()).toHaveLength(4)
    // Nothing is left to be summed up.
    expect(await say(client, chat.id, 'third')).toMatchObject({ error: { code: 'context_too_long' } })
    expect(requests()).toHaveLength(5)
    script({ type: 'answer' })
    expect(await say(client, chat.id, 'fourth')).toMatchObject({ state: 'completed' })
  })

  test('is not tried for a first message that is too long', async () => {
    script(tooLong)
    const { turn } = await create(client, 'x'.repeat(1000))
    expect(turn).toMatchObject({ state: 'failed', error: { code: 'context_too_long' } })
    expect(requests()).toHaveLength(1)
  })

  test.each<[string, Behaviour, string, number]>([
    ['is overloaded', { type: 'status', status: 500 }, 'provider_overloaded', 3],
    ['refuses the request', { type: 'status', status: 400 }, 'provider_rejected', 1],
    ['says nothing', { type: 'answer', text: '  ' }, 'compaction_failed', 1],
    ['refuses in words', { type: 'answer', text: 'I cannot', finish: 'content_filter' }, 'compaction_failed', 1], // prettier-ignore
    ['is cut off', { type: 'answer', ending: 'cut' }, 'provider_stream_broken', 3],
  ])('by a model that %s fails, and the chat goes on', async (_, behaviour, code, tries) => {
    const { chat } = await create(client, 'first')
    script(behaviour)
    const failed = await compactAndWait(client, chat.id)
    expect(failed).toMatchObject({ state: 'failed', error: { code } })
    expect(requests()).toHaveLength(1 + tries)
    if (code === 'compaction_failed') expect(failed.costMicros).toBeGreaterThan(0)
    script((request) => (asksForSummary(request) ? summaryOf(request) : { type: 'answer' }))
    expect(await retryAndWait(client, chat.id)).toMatchObject({ state: 'completed', trigger: 'compact' })
    expect(await say(client, chat.id, 'second')).toMatchObject({ state: 'completed' })
    expect(bodyOf(requests().at(-1))).toContain('Summary of the conversation')
  })

  /** A chat that is over the threshold of its window from its second message on. */
  const createLong = async (): Promise<ChatView> => {
    await setWindow(turnmill, { contextWindow: 20_000 })
    script({ type: 'answer', text: 'ok', usage: { input: 15_000, output: 10 } })
    const { chat } = await create(client, 'first')
    turnmill.upstream.reset()
    return chat
  }

  const FULL = { input: 15_000, output: 10 }
  const USELESS: [string, Behaviour][] = [
    ['says nothing', { type: 'answer', text: ' ' }],
    ['refuses in words', { type: 'answer', text: 'I cannot', finish: 'content_filter' }],
    ['refuses the request', { type: 'status', status: 400 }],
    ['is overloaded', { type: 'status', status: 503 }],
    ['is cut off', { type: 'answer', ending: 'cut' }],
  ]

  test.each(USELESS)(
    'that is due is done without where its model %s, and asked for once a turn (H4)',
    async (_, useless) => {
      const chat = await createLong()
      script((request) => {
        if (asksForSummary(request)) return useless
        const calls = bodyOf(request).includes('dug-1') ? [] : [{ id: 'c', name: 'dig', args: ['{}'] }]
        return { type: 'answer', text: 'ok', toolCalls: calls, usage: FULL }
      })
      const second = await say(client, chat.id, 'second')
      expect(second).toMatchObject({ state: 'completed', error: null })
      expect(requests().map(asksForSummary)).toEqual([true, false, false])
      expect(uncompacted.filter((line) => line.includes(second.id))).toHaveLength(1)
      const { interception } = turnmill.services.db.prisma
      while ((await interception.count({ where: { turnId: second.id, settledAt: null } })) > 0)
        await sleep(20)
      // What the call for a summary has cost is the turn's all the same.
      const books = await interception.findMany({ where: { turnId: second.id } })
      expect(second.costMicros).toBe(sum(books.map(({ costMicros }) => Number(costMicros))))
      expect(await say(client, chat.id, 'third')).toMatchObject({ state: 'completed', error: null })
      expect(requests().map(asksForSummary).slice(3)).toEqual([true, false])
      script((request) => (asksForSummary(request) ? summaryOf(request) : { type: 'answer' }))
      expect(await say(client, chat.id, 'fourth')).toMatchObject({ state: 'completed' })
      expect(bodyOf(requests().at(-1))).toContain('Summary of the conversation')
    },
  )

  test.each(USELESS)(
    'that a refusal asks for is asked for once more where its model %s, and fails the turn alone (H4)',
    async (_, useless) => {
      const chat = await createLong()
      script((request) => (asksForSummary(request) ? useless : tooLong(request)))
      const failed = await say(client, chat.id, 'second')
      expect(failed.state).toBe('failed')
      const [due, refused, ...asked] = requests().map(asksForSummary)
      expect([due, refused]).toEqual([true, false])
      expect(asked).toEqual(asked.map(() => true))
      expect(asked.length).toBeLessThanOrEqual(3)
      turnmill.upstream.reset()
      script(refuseUnsummed)
      expect(await say(client, chat.id, 'third')).toMatchObject({ state: 'completed', error: null })
      expect(bodyOf(requests().at(-1))).toContain('second')
    },
  )

  test('whose history no model takes fails with what it is', async () => {
    const { chat } = await create(client, 'first')
    script(tooLong)
    expect(await compactAndWait(client, chat.id)).toMatchObject({ error: { code: 'compaction_failed' } })
    expect(requests()).toHaveLength(2)
    expect(await say(client, chat.id, 'second')).toMatchObject({ error: { code: 'compaction_failed' } })
    expect(requests()).toHaveLength(4)
  })

  test.each(['on request', 'within a turn'])(
    'of more than fits into a window that nobody has stated is asked for with less, %s',
    async (when) => {
      const { chat } = await create(client, `first: fact-first ${'x'.repeat(30_000)}`)
      for (const number of [2, 3, 4, 5])
        await say(client, chat.id, `${number}: fact-${number} ${'y'.repeat(8000)}`)
      turnmill.upstream.reset()
      script(withWindow(8000, (request) => counted(request, 'ok')))
      if (when === 'on request') await compactAndWait(client, chat.id)
      const turn = await say(client, chat.id, 'and now')
      expect(turn).toMatchObject({ state: 'completed', error: null })
      const asked = summaries(requests())
      expect(asked).toHaveLength(2)
      expect(tokensOf(asked[0]!)).toBeGreaterThan(8000)
      expect(factsIn(requests().at(-1))).toEqual(expect.arrayContaining(['fact-first', 'fact-5']))
    },
  )

  test('is refused to a busy chat and to an archived one', async () => {
    const gate = hold()
    script({ type: 'answer', gate })
    const { chat, turn } = await client.create('first')
    await turnmill.upstream.waitForRequest(1)
    expect(await compact(client, chat.id)).toMatchObject({ status: 409, body: { code: 'move_refused' } })
    gate.release()
    await client.ended(chat.id, turn.id)
    await client.request('PATCH', `/v1/chats/${chat.id}`, { archived: true })
    expect(await compact(client, chat.id)).toMatchObject({ status: 409, body: { code: 'chat_archived' } })
  })

  test('of a cleared history calls no model, nor does a second one', async () => {
    const { chat } = await create(client, 'first')
    expect((await clear(client, chat.id)).status).toBe(200)
    expect(await compactAndWait(client, chat.id)).toMatchObject({ state: 'completed', usage: null })
    expect(requests()).toHaveLength(1)
    await say(client, chat.id, 'second')
    script(summaryOf)
    await compactAndWait(client, chat.id)
    await compactAndWait(client, chat.id)
    expect(requests()).toHaveLength(3)
  })

  test('goes before the queue, which is promoted after it', async () => {
    const gate = hold()
    const { chat } = await create(client, 'first: fact-first')
    script((request) =>
      asksForSummary(request) ? { ...summaryOf(request), type: 'answer', gate } : { type: 'answer' },
    )
    const { body } = await compact(client, chat.id)
    await turnmill.upstream.waitForRequest(2)
    await client.send(chat.id, 'queued')
    gate.release()
    await turnmill.upstream.waitForRequest(3)
    expect(await client.settled(chat.id)).toMatchObject({ status: 'idle' })
    const turns = await client.turns(chat.id)
    expect(turns.map(({ trigger, state }) => [trigger, state])).toEqual([
      ['promote', 'completed'],
      ['compact', 'completed'],
      ['create', 'completed'],
    ])
    expect(turns[1]?.id).toBe(body.turn.id)
    expect(factsIn(requests()[2])).toEqual(['fact-first'])
  })

  test('is interrupted, at the provider too, and leaves the history as it was', async () => {
    const { chat } = await create(client, 'first')
    script({ type: 'silence', after: 'headers' })
    const { body } = await compact(client, chat.id)
    const asked = await turnmill.upstream.waitForRequest(2)
    await client.request('POST', `/v1/chats/${chat.id}/interrupt`)
    expect(await client.ended(chat.id, body.turn.id)).toMatchObject({ state: 'interrupted' })
    expect(await asked.closed).toMatchObject({ early: true })
    const messages = await client.messages(chat.id)
    expect(messages.map(({ compressed, boundary }) => [compressed, boundary])).toEqual([
      [false, null],
      [false, null],
    ])
    script({ type: 'answer' })
    expect(await say(client, chat.id, 'second')).toMatchObject({ state: 'completed' })
  })

  test('within a turn is interrupted as its step is', async () => {
    const { chat } = await create(client, 'first')
    script((request) => (asksForSummary(request) ? { type: 'silence', after: 'request' } : tooLong(request)))
    const sent = await client.send(chat.id, 'second')
    await turnmill.upstream.waitForRequest(3)
    await client.request('POST', `/v1/chats/${chat.id}/interrupt`)
    const turnId = 'turn' in sent ? sent.turn.id : ''
    expect(await client.ended(chat.id, turnId)).toMatchObject({ state: 'interrupted' })
    expect(requests()).toHaveLength(3)
  })

  test('is undone by an edit of what lies before it', async () => {
    const { chat } = await create(client, 'one: fact-one')
    await say(client, chat.id, 'two: fact-two')
    script((request) => (asksForSummary(request) ? summaryOf(request) : { type: 'answer', text: 'ok' }))
    await compactAndWait(client, chat.id)
    await say(client, chat.id, 'three: fact-three')
    const messages = await client.messages(chat.id)
    const two = messages.find(({ parts }) => textOf(parts).startsWith('two'))
    const edited = await client.edit(chat.id, two?.id ?? '', 'two anew')
    expect(await client.ended(chat.id, edited.turn.id)).toMatchObject({ state: 'completed' })
    const body = bodyOf(requests().at(-1))
    expect(body).not.toContain('Summary of the conversation')
    expect(factsIn(requests().at(-1))).toEqual(['fact-one'])
    expect(body).toContain('echo: one: fact-one')
    expect((await client.messages(chat.id)).filter(({ compressed }) => compressed)).toEqual([])
  })

  test('of a compaction is undone by an edit that lies between them, down to what the first had left in place', async () => {
    const { chat } = await create(client, 'one: fact-one')
    script({ type: 'status', status: 400 })
    await say(client, chat.id, 'unanswered: fact-kept')
    script((request) => (asksForSummary(request) ? summaryOf(request) : { type: 'answer', text: 'ok' }))
    await compactAndWait(client, chat.id)
    await say(client, chat.id, 'two: fact-two')
    await say(client, chat.id, 'three: fact-three')
    await compactAndWait(client, chat.id)
    await say(client, chat.id, 'four: fact-four')
    const three = (await client.messages(chat.id)).find(({ parts }) => textOf(parts).startsWith('three'))
    const edited = await client.edit(chat.id, three?.id ?? '', 'three anew')
    expect(await client.ended(chat.id, edited.turn.id)).toMatchObject({ state: 'completed' })
    const last = requests().at(-1)
    expect(factsIn(last)).toEqual(['fact-one', 'fact-kept', 'fact-two'])
    expect(bodyOf(last)).toContain('unanswered: fact-kept')
    expect(bodyOf(last)).toContain('To be remembered: fact-one.')
  })

  test('and clear follow one another, and each is undone by an edit before it', async () => {
    const { chat } = await create(client, 'one: fact-one')
    script((request) => (asksForSummary(request) ? summaryOf(request) : { type: 'answer', text: 'ok' }))
    await compactAndWait(client, chat.id)
    await say(client, chat.id, 'two: fact-two')
    await clear(client, chat.id)
    await say(client, chat.id, 'three: fact-three')
    expect(factsIn(requests().at(-1))).toEqual(['fact-three'])
    await compactAndWait(client, chat.id)
    expect(factsIn(requests().at(-1))).toEqual(['fact-three'])
    await say(client, chat.id, 'four')
    expect(factsIn(requests().at(-1))).toEqual(['fact-three'])
    const two = (await client.messages(chat.id)).find(({ parts }) => textOf(parts).startsWith('two'))
    const edited = await client.edit(chat.id, two?.id ?? '', 'two anew')
    await client.ended(chat.id, edited.turn.id)
    expect(factsIn(requests().at(-1))).toEqual(['fact-one'])
    expect(bodyOf(requests().at(-1))).toContain('two anew')
  })

  test.each([100_000, null])(
    'is done by the model of its purpose, whose window counts where it is smaller than %p',
    async (contextWindow) => {
      const { admin, provider } = turnmill
      await setWindow(turnmill, { contextWindow })
      const made = await admin.client.request<{ id: string }>('POST', '/v1/model-configs', {
      providerId: provider.id, model: 'small-1', displayName: 'Small', contextWindow: 20_000,
    }) // prettier-ignore
      expect(made.status).toBe(201)
      const put = (id: string) =>
        client.request('PUT', '/v1/me/model-overrides/compaction', { modelConfigId: id })
      script((request) =>
        asksForSummary(request)
          ? summaryOf(request)
          : { type: 'answer', text: 'ok', usage: { input: 15_000, output: 10 } },
      )
      const { chat } = await create(client, 'one')
      await say(client, chat.id, 'two')
      expect(summaries(requests())).toEqual([])
      expect((await put(made.body.id)).status).toBe(200)
      await say(client, chat.id, 'three')
      expect(requests().map(({ body }) => body['model'])).toEqual(['fake-1', 'fake-1', 'small-1', 'fake-1'])
    },
  )

  test.each(['compact', 'finishWithoutAnswer'] as const)(
    'is not done again once its worker is lost at %s, after the summary is written',
    async (write) => {
      const { chats, reconciler } = turnmill.services
      const { chat } = await create(client, 'first: fact-first')
      script(summaryOf)
      const before = chats[write] as (...values: unknown[]) => Promise<void>
      const lost = async (...values: unknown[]): Promise<void> => {
        chats[write] = before
        if (write === 'compact') await before(...values)
        await takeAway(turnmill, (values[0] as Claim).turnId)
        throw new TurnmillError('turn_fenced', 'the worker of this test is lost')
      }
      chats[write] = lost
      reconciler.start()
      expect(await compactAndWait(client, chat.id)).toMatchObject({ state: 'completed', epoch: 3 })
      expect(chats[write]).toBe(before)
      expect(requests()).toHaveLength(2)
      expect((await client.messages(chat.id)).filter(isSummary)).toHaveLength(1)
      await reconciler.stop()
    },
  )
})
