import type { ChatView, RequiredAction, TurnView } from '../../src/protocol/views.ts'
import type { Started, TestClient } from '../support/client.ts'
import type { ScriptedCall } from '../support/fake-upstream.ts'
import { toolsIn } from '../support/sent-tools.ts'
import { call, createToolBench, ledgerOf, toolCall, toolResult } from '../support/tool-bench.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

const bench = createToolBench()

const CLIENT_TOOLS = [
  { name: 'locate', description: 'Where the user is.', inputSchema: { type: 'object' } },
  { name: 'pick', description: 'What the user picks.' },
]

type Created = Started & { chat: ChatView }

/** A problem document, RFC 9457. */
interface Refusal {
  code: string
  detail: string
}

const create = async (client: TestClient, content: string): Promise<Created> => {
  const { status, body } = await client.request<Created>('POST', '/v1/chats', {
    content,
    clientTools: CLIENT_TOOLS,
  })
  expect(status).toBe(201)
  return body
}

const submit = <T = { turn: TurnView }>(client: TestClient, chatId: string, results: readonly object[]) =>
  client.request<T>('POST', `/v1/chats/${chatId}/tool-results`, { results })

/** Resolves with what the chat asks its client for. */
async function asked(client: TestClient, chatId: string): Promise<RequiredAction> {
  const watch = client.watch(chatId)
  const events = await watch.until((event) => event.type === 'action_required')
  watch.close()
  const event = events.at(-1)?.event
  if (event?.type !== 'action_required') throw new Error('nothing was asked for')
  return event
}

/** Asks for these calls in answer to `go`, and answers anything else. */
const scriptCalls = (turnmill: Turnmill, ...calls: readonly ScriptedCall[]): void =>
  turnmill.upstream.script((request) =>
    request.number === 1 ? { type: 'answer', toolCalls: calls } : { type: 'answer', text: 'Thank you.' },
  )

describe('calls that wait for the client', () => {
  let turnmill: Turnmill
  let user: TestUser
  beforeAll(async () => {
    turnmill = await startTurnmill({ tools: bench.tools })
  })
  afterAll(() => turnmill.stop())
  beforeEach(async () => {
    turnmill.upstream.reset()
    bench.reset()
    user = await turnmill.addUser()
  })

  const partsOf = async (chatId: string) =>
    (await user.client.messages(chatId)).map(({ role, parts }) => [role, parts])

  test('are answered together, however many a step has', async () => {
    const ids = Array.from({ length: 101 }, (_, number) => `call-${number}`)
    scriptCalls(turnmill, ...ids.map((id) => call(id, 'locate')))
    const { chat, turn } = await create(user.client, 'go')
    await asked(user.client, chat.id)
    const results = ids.map((toolCallId) => ({ toolCallId, output: 'here' }))
    expect(await submit(user.client, chat.id, results)).toMatchObject({ status: 202 })
    expect(await user.client.ended(chat.id, turn.id)).toMatchObject({ state: 'completed' })
  })

  test('are answered by the client; the same turn goes on under the same key, and what ran has run once', async () => {
    scriptCalls(turnmill, call('a', 'locate', { exact: true }), call('b', 'charge'), call('c', 'pick'))
    const { chat, turn } = await create(user.client, 'go')
    const before = Date.now()
    const action = await asked(user.client, chat.id)
    expect(action).toMatchObject({
      turnId: turn.id,
      calls: [
        { toolCallId: 'a', toolName: 'locate', input: { exact: true }, needs: 'result' },
        { toolCallId: 'c', toolName: 'pick', input: {}, needs: 'result' },
      ],
    })
    expect(Date.parse(action.deadline)).toBeGreaterThan(before + 200_000)
    expect(await user.client.request('GET', `/v1/chats/${chat.id}`)).toMatchObject({
      body: { status: 'requires_action', activeTurnId: turn.id },
    })
    expect(await ledgerOf(turnmill, turn.id)).toMatchObject([
      { callId: 'a', state: 'awaiting_client' },
      { callId: 'b', state: 'done', output: 'charged' },
      { callId: 'c', state: 'awaiting_client' },
    ])

    // Somebody else may answer with a key of the owner's; the turn keeps its own.
    const other = await turnmill.addKey(user.userId)
    const answer = await submit(other.client, chat.id, [
      { toolCallId: 'c', output: 'red', isError: false },
      { toolCallId: 'a', output: { town: 'Rome\u0000' } },
    ])
    expect(answer).toMatchObject({ status: 202, body: { turn: { id: turn.id, apiKeyId: user.apiKeyId } } })
    await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({
      state: 'completed',
      epoch: 2,
      apiKeyId: user.apiKeyId,
      usage: { inputTokens: 24 },
    })
    expect(await partsOf(chat.id)).toEqual([
      ['user', [{ type: 'text', text: 'go' }]],
      [
        'assistant',
        [toolCall('a', 'locate', { exact: true }), toolCall('b', 'charge'), toolCall('c', 'pick')],
      ],
      [
        'tool',
        [
          toolResult('a', 'locate', { town: 'Rome\ufffd' }),
          toolResult('b', 'charge', 'charged'),
          toolResult('c', 'pick', 'red'),
        ],
      ],
      ['assistant', [{ type: 'text', text: 'Thank you.' }]],
    ])
    expect(bench.count('charge')).toBe(1)
    expect(turnmill.upstream.requests.map(({ headers }) => headers['x-turnmill-key-id'])).toEqual([user.apiKeyId, user.apiKeyId]) // prettier-ignore
    expect(toolsIn(turnmill.upstream.requests[0]!).offered.slice(0, 2)).toEqual(['locate', 'pick'])
  })

  test('are not answered by halves, twice, or by what nobody asked for; nothing is kept then', async () => {
    scriptCalls(turnmill, call('a', 'locate'), call('b', 'pick'))
    const { chat, turn } = await create(user.client, 'go')
    await asked(user.client, chat.id)
    const [a, b] = [{ toolCallId: 'a', output: 1 }, { toolCallId: 'b', output: 2 }] // prettier-ignore
    const bad: [readonly object[], string][] = [
      [[a], 'tool call b (pick) is not answered'],
      [[a, b, { toolCallId: 'c', output: 3 }], 'no tool call "c" waits, expected a, b'],
      [[a, b, a], 'a tool call is answered twice'],
      [[a, { toolCallId: 'b' }], 'tool call b (pick) waits for an output'],
      [[a, { toolCallId: 'b', approved: true }], 'tool call b (pick) waits for an output'],
      [[], 'results'],
    ]
    for (const [results, message] of bad) {
      const refusal = await submit<Refusal>(user.client, chat.id, results)
      expect([refusal.status, refusal.body.code]).toEqual([400, 'invalid_request'])
      expect(refusal.body.detail).toContain(message)
    }
    const stranger = await turnmill.addUser()
    expect(await submit(stranger.client, chat.id, [a, b])).toMatchObject({ status: 404 })
    expect(await ledgerOf(turnmill, turn.id)).toMatchObject([
      { callId: 'a', state: 'awaiting_client', output: null },
      { callId: 'b', state: 'awaiting_client', output: null },
    ])
    expect(await submit(user.client, chat.id, [{ ...a, isError: true }, b])).toMatchObject({ status: 202 })
    await user.client.ended(chat.id, turn.id)
    const late = await submit<Refusal>(user.client, chat.id, [a, b])
    expect([late.status, late.body.code]).toEqual([409, 'not_waiting'])
    const [, , results] = await partsOf(chat.id)
    expect(results).toEqual(['tool', [toolResult('a', 'locate', 1, true), toolResult('b', 'pick', 2)]])
  })

  test('answered at the same time by two are answered once', async () => {
    scriptCalls(turnmill, call('a', 'locate'))
    const { chat, turn } = await create(user.client, 'go')
    await asked(user.client, chat.id)
    const answers = await Promise.all(
      [1, 2, 3].map((output) => submit(user.client, chat.id, [{ toolCallId: 'a', output }])),
    )
    expect(answers.map(({ status }) => status).toSorted()).toEqual([202, 409, 409])
    await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'completed' })
  })

  test('a message that is sent meanwhile waits for the turn', async () => {
    scriptCalls(turnmill, call('a', 'locate'))
    const { chat } = await create(user.client, 'go')
    await asked(user.client, chat.id)
    expect(await user.client.send(chat.id, 'and then')).toHaveProperty('queuedMessage')
    await submit(user.client, chat.id, [{ toolCallId: 'a', output: 'here' }])
    await user.client.settled(chat.id)
    expect((await partsOf(chat.id)).map(([role]) => role)).toEqual(['user', 'assistant', 'tool', 'assistant', 'user', 'assistant']) // prettier-ignore
  })

  test('an interrupt closes them, keeps what ran, and promotes the queue', async () => {
    scriptCalls(turnmill, call('a', 'locate'), call('b', 'charge'))
    const { chat, turn } = await create(user.client, 'go')
    await asked(user.client, chat.id)
    await user.client.send(chat.id, 'never mind')
    await user.client.request('POST', `/v1/chats/${chat.id}/interrupt`)
    await expect(user.client.settled(chat.id)).resolves.toMatchObject({ status: 'idle', lastError: null })
    expect((await user.client.turns(chat.id)).find(({ id }) => id === turn.id)).toMatchObject({ state: 'interrupted' }) // prettier-ignore
    expect((await partsOf(chat.id)).slice(2, 4)).toEqual([
      [
        'tool',
        [
          toolResult('a', 'locate', 'This call was cancelled before it ran.', true),
          toolResult('b', 'charge', 'charged'),
        ],
      ],
      ['user', [{ type: 'text', text: 'never mind' }]],
    ])
    expect(await ledgerOf(turnmill, turn.id)).toMatchObject([{ state: 'denied' }, { state: 'done' }])
    expect(await submit(user.client, chat.id, [{ toolCallId: 'a', output: 1 }])).toMatchObject({
      status: 409,
    })
  })

  test('an edit drops them with their turn', async () => {
    scriptCalls(turnmill, call('a', 'locate'))
    const { chat, message, turn } = await create(user.client, 'go')
    await asked(user.client, chat.id)
    const edited = await user.client.edit(chat.id, message.id, 'rather this')
    await expect(user.client.ended(chat.id, edited.turn.id)).resolves.toMatchObject({ state: 'completed' })
    expect((await user.client.turns(chat.id)).find(({ id }) => id === turn.id)).toMatchObject({ state: 'superseded' }) // prettier-ignore
    expect(await ledgerOf(turnmill, turn.id)).toMatchObject([{ callId: 'a', state: 'denied' }])
    expect(toolsIn(turnmill.upstream.requests.at(-1)!)).toMatchObject({ calls: [], results: [] })
  })

  test('a watcher that comes late is asked, too', async () => {
    scriptCalls(turnmill, call('a', 'locate'))
    const { chat } = await create(user.client, 'go')
    const first = await asked(user.client, chat.id)
    expect(await asked(user.client, chat.id)).toEqual(first)
    await user.client.request('POST', `/v1/chats/${chat.id}/interrupt`)
  })

  describe('for an approval', () => {
    test('run once it is given, on the next claim', async () => {
      scriptCalls(turnmill, call('a', 'danger', { what: 'rm' }))
      const { chat, turn } = await user.client.create('go')
      const action = await asked(user.client, chat.id)
      expect(action.calls).toEqual([
        { toolCallId: 'a', toolName: 'danger', input: { what: 'rm' }, needs: 'approval' },
      ])
      expect(bench.count('danger')).toBe(0)
      const refusal = await submit<Refusal>(user.client, chat.id, [{ toolCallId: 'a', output: 'x' }])
      expect(refusal.body.detail).toContain('waits for approved: true or false')
      await submit(user.client, chat.id, [{ toolCallId: 'a', approved: true }])
      await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({
        state: 'completed',
        epoch: 2,
      })
      expect(bench.count('danger')).toBe(1)
      expect((await partsOf(chat.id))[2]).toEqual(['tool', [toolResult('a', 'danger', 'done')]])
    })

    test('are told to the model as denied where it is not', async () => {
      scriptCalls(turnmill, call('a', 'danger'), call('b', 'danger'))
      const { chat, turn } = await user.client.create('go')
      await asked(user.client, chat.id)
      await submit(user.client, chat.id, [
        { toolCallId: 'a', approved: false },
        { toolCallId: 'b', approved: false, output: 'Not on a Friday.' },
      ])
      await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'completed' })
      expect(bench.count('danger')).toBe(0)
      expect((await partsOf(chat.id))[2]).toEqual([
        'tool',
        [
          toolResult('a', 'danger', 'The user denied this call.', true),
          toolResult('b', 'danger', 'Not on a Friday.', true),
        ],
      ])
      expect(await ledgerOf(turnmill, turn.id)).toMatchObject([{ state: 'denied' }, { state: 'denied' }])
    })

    test('beside a call of the client’s are asked for together, and answered in the model’s order', async () => {
      scriptCalls(
        turnmill,
        call('a', 'locate'),
        call('b', 'danger'),
        call('c', 'charge'),
        call('d', 'danger'),
      )
      const { chat, turn } = await create(user.client, 'go')
      const { calls } = await asked(user.client, chat.id)
      expect(calls.map(({ toolCallId, needs }) => [toolCallId, needs])).toEqual([
        ['a', 'result'],
        ['b', 'approval'],
        ['d', 'approval'],
      ])
      await submit(user.client, chat.id, [
        { toolCallId: 'd', approved: false },
        { toolCallId: 'b', approved: true },
        { toolCallId: 'a', output: 'here' },
      ])
      await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'completed' })
      expect((await partsOf(chat.id))[2]).toEqual([
        'tool',
        [
          toolResult('a', 'locate', 'here'),
          toolResult('b', 'danger', 'done'),
          toolResult('c', 'charge', 'charged'),
          toolResult('d', 'danger', 'The user denied this call.', true),
        ],
      ])
      expect([bench.count('danger'), bench.count('charge')]).toEqual([1, 1])
    })
  })
})

describe('calls that nobody answers in time', () => {
  test('are refused, and the turn goes on', async () => {
    const turnmill = await startTurnmill({
      tools: bench.tools,
      reconcile: true,
      environment: { TURNMILL_ACTION_DEADLINE_MS: '3000' },
    })
    try {
      bench.reset()
      const { client } = await turnmill.addUser()
      scriptCalls(turnmill, call('a', 'locate'), call('b', 'danger'), call('c', 'charge'))
      const { chat, turn } = await create(client, 'go')
      await asked(client, chat.id)
      await expect(client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'completed' })
      const refused = 'Nobody answered this call in time.'
      const [, , results] = await client.messages(chat.id)
      expect(results?.parts).toEqual([
        toolResult('a', 'locate', refused, true),
        toolResult('b', 'danger', refused, true),
        toolResult('c', 'charge', 'charged'),
      ])
      expect([bench.count('danger'), bench.count('charge')]).toEqual([0, 1])
      const late = await submit<Refusal>(client, chat.id, [{ toolCallId: 'a', output: 1 }])
      expect([late.status, late.body.code]).toEqual([409, 'not_waiting'])
    } finally {
      await turnmill.stop()
    }
  })
})

describe('a schema that providers do not take', () => {
  let turnmill: Turnmill
  let user: TestUser
  beforeAll(async () => {
    turnmill = await startTurnmill({ workers: 0 })
    user = await turnmill.addUser()
  })
  afterAll(() => turnmill.stop())

  const createWith = (inputSchema: object) => {
    const clientTools = [...CLIENT_TOOLS, { name: 'bad', inputSchema }]
    return user.client.request<Refusal>('POST', '/v1/chats', { content: 'go', clientTools })
  }

  const deep = (levels: number): unknown => JSON.parse(`${'{"not":'.repeat(levels)}{}${'}'.repeat(levels)}`)

  test.each<[string, object, RegExp]>([
    ['of a type that there is not', { properties: { a: { type: 'wood' } } }, /type/],
    ['of another type at its root', { type: 'string' }, /expected "object"/],
    ['without fields where fields belong', { properties: 7 }, /properties/],
    ['that demands fields by one text', { required: 'x' }, /required/],
    ['with alternatives at its root', { anyOf: [{}] }, /"anyOf" at its root/],
    ['with a field of an odd name', { properties: { 'a b$': {} } }, /"a b\$"/],
    ['with a remote reference', { properties: { a: { $ref: 'https://example.com/s' } } }, /example\.com/],
    ['with a reference that leads nowhere', { properties: { a: { $ref: '#/$defs/b' } } }, /#\/\$defs\/b/],
    ['that is too deep', { properties: { a: deep(200) } }, /deeper/],
    ['that is far too deep', { properties: { a: deep(4000) } }, /cannot be told|deeper/],
    ['that is too long', { description: 'x'.repeat(40_000) }, /characters/],
  ])('is refused with its tool’s name: one %s', async (_, fields, what) => {
    const { status, body } = await createWith({ type: 'object', ...fields })
    expect([status, body.code]).toEqual([400, 'invalid_request'])
    expect(body.detail).toContain('"bad"')
    expect(body.detail).toMatch(what)
    expect(await turnmill.services.db.prisma.chat.count({ where: { userId: user.userId } })).toBe(0)
  })

  test('is refused where it is nested deeper than can be written', async () => {
    const [text, levels] = [JSON.stringify({ content: 'go', clientTools: [{ name: 'bad', inputSchema: { type: 'object', not: 0 } }] }), 20_000] // prettier-ignore
    const nested = text.replace('0', `${'{"not":'.repeat(levels)}{}${'}'.repeat(levels)}`)
    const json = { 'content-type': 'application/json' }
    for (const headers of [json, { ...json, 'idempotency-key': 'nested' }]) {
      const path = '/v1/chats'
      const answer = await user.client.request<Refusal>('POST', path, Buffer.from(nested), headers)
      expect(answer).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
      expect(answer.body.detail).toMatch(/deep/)
    }
  })

  test('is told from one that they take, which is kept', async () => {
    const inputSchema = {
      type: 'object',
      properties: { at: { $ref: '#/$defs/place' } },
      required: ['at'],
      $defs: { place: { anyOf: [{ type: 'string' }, { type: 'null' }] } },
    }
    const created = await createWith(inputSchema)
    expect(created.status).toBe(201)
    const { clientTools } = await turnmill.services.db.prisma.chat.findFirstOrThrow({
      where: { userId: user.userId },
    })
    expect(clientTools).toContainEqual({ name: 'bad', description: '', inputSchema })
  })
})
