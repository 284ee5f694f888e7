/** The endpoints around a chat's turns: change, list, clear, archive, delete, and the answers of its client. */
import type { Claim } from '../../src/chats/index.ts'
import { newId } from '../../src/protocol/ids.ts'
import type { ChatView, TurnView } from '../../src/protocol/views.ts'
import { call, step, text } from '../support/chat-world.ts'
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

/** A chat with one answered message. */
async function answeredChat(content = 'first') {
  const started = await user.client.create(content)
  await user.client.ended(started.chat.id, started.turn.id)
  return started
}

const request = <T>(method: string, path: string, body?: unknown) =>
  user.client.request<T>(method, `/v1/chats${path}`, body)

const listed = async (search: string): Promise<string[]> =>
  (await request<{ items: ChatView[] }>('GET', `?${search}`)).body.items.map(({ id }) => id)

describe('PATCH /v1/chats/{id}', () => {
  test('sets title, labels and model, and leaves what is not named', async () => {
    const { chat } = await answeredChat()
    const changed = await request<ChatView>('PATCH', `/${chat.id}`, { title: 'Trip', labels: ['travel'] })
    expect(changed).toMatchObject({ status: 200, body: { title: 'Trip', labels: ['travel'] } })
    const model = await request<ChatView>('PATCH', `/${chat.id}`, { modelConfigId: turnmill.modelConfig.id })
    expect(model.body).toMatchObject({ title: 'Trip', labels: ['travel'], modelConfigId: turnmill.modelConfig.id }) // prettier-ignore
    expect((await request('PATCH', `/${chat.id}`, { title: null })).body).toMatchObject({
      title: 'first',
      labels: ['travel'],
    })
  })

  test.each([[{}], [{ title: '' }], [{ labels: 'x' }], [{ status: 'idle' }], [{ archived: 'yes' }]])(
    'refuses %j',
    async (body) => {
      const { chat } = await answeredChat()
      expect(await request('PATCH', `/${chat.id}`, body)).toMatchObject({
        status: 400,
        body: { code: 'invalid_request' },
      })
    },
  )

  test('with a model that does not exist is refused and changes nothing', async () => {
    const { chat } = await answeredChat()
    const body = { title: 'x', modelConfigId: '01900000-0000-7000-8000-000000000000' }
    expect((await request('PATCH', `/${chat.id}`, body)).status).toBeGreaterThanOrEqual(400)
    expect((await request('GET', `/${chat.id}`)).body).toMatchObject({ title: 'first' })
  })
})

describe('an archived chat (A8)', () => {
  test('takes nothing that would make a turn, keeps what it has, and comes back', async () => {
    const { chat, message } = await answeredChat()
    expect(await request('PATCH', `/${chat.id}`, { archived: true })).toMatchObject({ status: 200 })
    const jobs = await turnmill.services.db.prisma.turn.count({ where: { chatId: chat.id } })
    for (const [method, path, body] of [
      ['POST', '/messages', { content: 'late' }],
      ['POST', '/messages', { content: 'late', whenBusy: 'interrupt' }],
      ['PATCH', `/messages/${message.id}`, { content: 'late' }],
      ['POST', '/retry', undefined],
      ['POST', '/interrupt', undefined],
      ['POST', '/clear', undefined],
      ['POST', '/tool-results', { results: [{ toolCallId: 'x', output: 1 }] }],
      ['POST', '/queue/1/promote', undefined],
      ['PATCH', '/queue/1', { position: 0 }],
      ['DELETE', '/queue/1', undefined],
    ] as const)
      expect({ path, ...(await request(method, `/${chat.id}${path}`, body)) }).toMatchObject({
        status: 409,
        body: { code: 'chat_archived' },
      })
    expect(await turnmill.services.db.prisma.turn.count({ where: { chatId: chat.id } })).toBe(jobs)
    expect(await user.client.messages(chat.id)).toHaveLength(2)
    expect(await listed('')).toEqual([])
    expect(await listed('archived=true')).toEqual([chat.id])
    await request('PATCH', `/${chat.id}`, { archived: false })
    expect(await request('POST', `/${chat.id}/messages`, { content: 'again' })).toMatchObject({ status: 202 })
  })

  test('is not made of one that is at work', async () => {
    const gate = hold()
    turnmill.upstream.script({ type: 'answer', gate, gateAt: 0 })
    const { chat, turn } = await user.client.create('first')
    expect(await request('PATCH', `/${chat.id}`, { archived: true, title: 'x' })).toMatchObject({
      status: 409,
      body: { code: 'chat_busy' },
    })
    expect((await request('GET', `/${chat.id}`)).body).toMatchObject({ archivedAt: null, title: 'first' })
    gate.release()
    await user.client.ended(chat.id, turn.id)
  })
})

describe('GET /v1/chats', () => {
  test('finds by status, label and text, whatever its case, and by several at once', async () => {
    const [one, other] = [await answeredChat('About 100% of Alps'), await answeredChat('About the sea')]
    turnmill.upstream.script({ type: 'status', status: 400 })
    const failed = await user.client.create('refused')
    await user.client.ended(failed.chat.id, failed.turn.id)
    await request('PATCH', `/${one.chat.id}`, { labels: ['travel', 'snow'] })
    await request('PATCH', `/${other.chat.id}`, { title: 'Tides', labels: ['travel'] })
    expect(await listed('status=failed')).toEqual([failed.chat.id])
    expect(await listed('label=travel')).toEqual([other.chat.id, one.chat.id])
    expect(await listed('text=tides')).toEqual([other.chat.id])
    expect(await listed('text=ABOUT')).toEqual([other.chat.id, one.chat.id])
    expect(await listed(`text=${encodeURIComponent('100%')}`)).toEqual([one.chat.id])
    expect(await listed(`text=${encodeURIComponent('0%o')}`)).toEqual([])
    expect(await listed('label=travel&text=sea&status=idle')).toEqual([other.chat.id])
    expect(await request('GET', '?status=nonsense')).toMatchObject({ status: 400 })
  })
})

describe('POST /v1/chats/{id}/clear', () => {
  test('begins the context anew and keeps what was said; an edit from before shows it again', async () => {
    const { chat, message } = await answeredChat()
    expect(await request('POST', `/${chat.id}/clear`)).toMatchObject({
      status: 200,
      body: { status: 'idle' },
    })
    const sent = await user.client.send(chat.id, 'second')
    if (!('turn' in sent)) throw new Error('the message was queued')
    await user.client.ended(chat.id, sent.turn.id)
    const messages = await user.client.messages(chat.id)
    expect(messages.map(({ role, boundary, compressed }) => [role, boundary, compressed])).toEqual([
      ['user', null, true], ['assistant', null, true], ['system', 'clear', false], ['user', null, false], ['assistant', null, false],
    ]) // prettier-ignore
    const asked = (index: number) => JSON.stringify(turnmill.upstream.requests[index]?.body)
    expect(asked(1)).toContain('second')
    expect(asked(1)).not.toContain('first')
    const third = await user.client.send(chat.id, 'third')
    if ('turn' in third) await user.client.ended(chat.id, third.turn.id)
    // What is edited lies behind the boundary: it stays.
    const kept = await user.client.edit(chat.id, sent.message.id, 'second, edited')
    await user.client.ended(chat.id, kept.turn.id)
    expect(asked(3)).not.toContain('first')
    const edited = await user.client.edit(chat.id, message.id, 'anew')
    await user.client.ended(chat.id, edited.turn.id)
    expect((await user.client.messages(chat.id)).map(({ compressed }) => compressed)).toEqual([false, false])
  })

  test('is refused while a turn runs', async () => {
    const gate = hold()
    turnmill.upstream.script({ type: 'answer', gate, gateAt: 0 })
    const { chat, turn } = await user.client.create('first')
    const refused = await request<{ detail: string }>('POST', `/${chat.id}/clear`)
    expect(refused).toMatchObject({ status: 409, body: { code: 'move_refused' } })
    expect(refused.body.detail).toMatch(/clear needs idle or failed with an empty queue/)
    gate.release()
    await user.client.ended(chat.id, turn.id)
  })

  test('twice makes two boundaries, and an edit between them takes the second away', async () => {
    const { chat } = await answeredChat()
    await request('POST', `/${chat.id}/clear`)
    const sent = await user.client.send(chat.id, 'second')
    if (!('turn' in sent)) throw new Error('the message was queued')
    await user.client.ended(chat.id, sent.turn.id)
    await request('POST', `/${chat.id}/clear`)
    const edited = await user.client.edit(chat.id, sent.message.id, 'second, again')
    await user.client.ended(chat.id, edited.turn.id)
    const messages = await user.client.messages(chat.id)
    expect(messages.map(({ boundary, compressed }) => boundary ?? compressed)).toEqual([true, true, 'clear', false, false]) // prettier-ignore
  })
})

describe('DELETE /v1/chats/{id}', () => {
  test('stops what runs, ends its streams, and leaves nothing', async () => {
    turnmill.upstream.script({ type: 'silence', after: 'headers' })
    const { chat } = await user.client.create('first')
    const watch = user.client.watch(chat.id)
    await watch.until((event) => event.type === 'status')
    const upstream = await turnmill.upstream.waitForRequest(1)
    await user.client.send(chat.id, 'queued')
    expect(await request('DELETE', `/${chat.id}`)).toMatchObject({ status: 204 })
    await expect(upstream.closed).resolves.toMatchObject({ early: true })
    await expect(watch.until(() => false)).rejects.toThrow('the stream ended')
    expect(await request('GET', `/${chat.id}`)).toMatchObject({ status: 404 })
    expect(await request('POST', `/${chat.id}/messages`, { content: 'late' })).toMatchObject({ status: 404 })
    expect(await request('DELETE', `/${chat.id}`)).toMatchObject({ status: 404 })
    expect(await turnmill.services.db.prisma.message.count({ where: { chatId: chat.id } })).toBe(0)
  })
})

describe('POST /v1/chats/{id}/tool-results', () => {
  /** A turn that waits for a result and an approval, brought there as a worker brings it. */
  async function waitingChat(deadlineMs = 60_000) {
    const lonely = turnmill.services.chats
    const gate = hold()
    turnmill.upstream.script((asked) =>
      asked.text === 'first' && turnmill.upstream.requests.length === 1
        ? { type: 'answer', gate, gateAt: 0 }
        : { type: 'answer', text: 'all done' },
    )
    const { chat, turn } = await user.client.create('first')
    await turnmill.upstream.waitForRequest(1)
    const row = await turnmill.services.db.prisma.turn.findUniqueOrThrow({ where: { id: turn.id } })
    const claim = { turnId: turn.id, chatId: chat.id, epoch: row.epoch, parentId: null, pool: 'root', userId: user.userId } as Claim // prettier-ignore
    await lonely.commitStep(claim, step(1, [...text('let me see'), call('look'), call('buy')]))
    const calls = [
      { callId: 'look', state: 'awaiting_client' as const },
      { callId: 'buy', state: 'awaiting_approval' as const },
    ]
    await lonely.requireAction(claim, calls, deadlineMs)
    gate.release()
    return { chatId: chat.id, turnId: turn.id }
  }

  const submit = (chatId: string, results: unknown, client = user.client) =>
    client.request<{ turn: TurnView; detail: string }>('POST', `/v1/chats/${chatId}/tool-results`, { results }) // prettier-ignore

  const GOOD = [
    { toolCallId: 'look', output: { found: 3 } },
    { toolCallId: 'buy', approved: false },
  ]

  test('lets the same turn go on under the same key with what the client answered', async () => {
    const { chatId, turnId } = await waitingChat()
    const other = await turnmill.addKey(user.userId)
    const answer = await submit(chatId, GOOD, other.client)
    expect(answer).toMatchObject({ status: 202, body: { turn: { id: turnId, state: 'pending', apiKeyId: user.apiKeyId } } }) // prettier-ignore
    expect(await user.client.ended(chatId, turnId)).toMatchObject({ state: 'completed' })
    const messages = await user.client.messages(chatId)
    expect(messages.map(({ role, step: number }) => [role, number])).toEqual([['user', 0], ['assistant', 1], ['tool', 1], ['assistant', 2]]) // prettier-ignore
    expect(messages[2]!.parts).toEqual([
      { type: 'tool-result', toolCallId: 'look', toolName: 'look_up', output: { found: 3 }, isError: false },
      { type: 'tool-result', toolCallId: 'buy', toolName: 'look_up', output: 'The user denied this call.', isError: true },
    ]) // prettier-ignore
    expect(turnmill.upstream.requests.at(-1)?.headers['x-turnmill-key-id']).toBe(user.apiKeyId)
    expect(JSON.stringify(turnmill.upstream.requests.at(-1)?.body)).toContain('function_call_output')
    // Step 1 was committed by hand with 7 micro-dollars; the turn's sum holds both.
    const [turn] = await user.client.turns(chatId)
    expect(turn?.usage?.inputTokens).toBe(3 + (messages[3]?.usage?.inputTokens ?? 0))
  })

  test.each([
    ['an unknown call', [...GOOD, { toolCallId: 'other', output: 1 }], /no tool call "other" waits/],
    ['an answer left out', GOOD.slice(0, 1), /tool call buy \(look_up\) is not answered/],
    ['one answered twice', [...GOOD, GOOD[0]], /answered twice/],
    ['no output', [{ toolCallId: 'look' }, GOOD[1]], /look \(look_up\) waits for an output/],
    ['no approval', [GOOD[0], { toolCallId: 'buy', output: 1 }], /buy \(look_up\) waits for approved/],
  ])('refuses %s, and keeps waiting', async (_, results, detail) => {
    const { chatId, turnId } = await waitingChat()
    const refused = await submit(chatId, results)
    expect(refused).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
    expect(refused.body.detail).toMatch(detail)
    expect((await request('GET', `/${chatId}`)).body).toMatchObject({ status: 'requires_action', activeTurnId: turnId }) // prettier-ignore
    await user.client.request('POST', `/v1/chats/${chatId}/interrupt`)
  })

  test('is what a watcher is asked for, also one that comes late', async () => {
    const { chatId, turnId } = await waitingChat()
    const watch = user.client.watch(chatId)
    const events = await watch.until((event) => event.type === 'action_required')
    expect(events.at(-1)?.event).toMatchObject({
      turnId,
      calls: [
        { toolCallId: 'look', toolName: 'look_up', input: { of: 'look' }, needs: 'result' },
        { toolCallId: 'buy', toolName: 'look_up', needs: 'approval' },
      ],
      deadline: expect.stringMatching(/Z$/) as string,
    })
    await submit(chatId, GOOD)
    await watch.until((event) => event.type === 'turn')
    watch.close()
    expect(events.filter(({ event }) => event.type === 'action_required')).toHaveLength(1)
  })

  test.each([
    ['null', null, null],
    ['a NUL byte', 'a\u0000b', 'a\uFFFDb'],
    ['half a character', { 'k\ud800': ['\udc00'] }, { 'k\uFFFD': ['\uFFFD'] }],
  ])('keeps %s as a result', async (_, output, kept) => {
    const { chatId, turnId } = await waitingChat()
    expect((await submit(chatId, [{ toolCallId: 'look', output }, GOOD[1]])).status).toBe(202)
    await user.client.ended(chatId, turnId)
    const results = (await user.client.messages(chatId)).find(({ role }) => role === 'tool')
    expect(results?.parts[0]).toEqual({
      type: 'tool-result',
      toolCallId: 'look',
      toolName: 'look_up',
      output: kept,
      isError: false,
    })
  })

  test('refuses what is nested too deep, with and without an idempotency key', async () => {
    const { chatId } = await waitingChat()
    const deep = JSON.parse(`${'['.repeat(500)}${']'.repeat(500)}`) as unknown
    expect(await submit(chatId, [{ toolCallId: 'look', output: deep }, GOOD[1]])).toMatchObject({
      status: 400,
      body: { code: 'invalid_request' },
    })
    await user.client.request('POST', `/v1/chats/${chatId}/interrupt`)
  })

  test.each(['{"__proto__":{"a":1}}', '{"constructor":{"prototype":{}}}', '[{"\\u005f_proto__":1}]'])(
    'says which field is not taken: %s',
    async (output) => {
      const body = Buffer.from(`{"results":[{"toolCallId":"look","output":${output}}]}`)
      const path = `/v1/chats/${newId()}/tool-results`
      const type = { 'content-type': 'application/json' }
      const answer = await user.client.request<{ code: string; detail: string }>('POST', path, body, type)
      expect(answer).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
      expect(answer.body.detail).toMatch(/__proto__.* not taken/)
    },
  )

  test('is taken once', async () => {
    const { chatId, turnId } = await waitingChat()
    const answers = await Promise.all([submit(chatId, GOOD), submit(chatId, GOOD), submit(chatId, GOOD)])
    expect(answers.map(({ status }) => status).sort()).toEqual([202, 409, 409])
    expect(answers.find(({ status }) => status === 409)?.body).toMatchObject({ code: 'not_waiting' })
    await user.client.ended(chatId, turnId)
  })

  test('is taken after the deadline while nobody has acted on that, and not after', async () => {
    const late = await waitingChat(1)
    expect((await submit(late.chatId, GOOD)).status).toBe(202)
    await user.client.ended(late.chatId, late.turnId)
    turnmill.upstream.reset()
    const expired = await waitingChat(1)
    await turnmill.services.reconciler.pass()
    expect(await submit(expired.chatId, GOOD)).toMatchObject({ status: 409, body: { code: 'not_waiting' } })
    expect(await user.client.ended(expired.chatId, expired.turnId)).toMatchObject({ state: 'completed' })
    const results = (await user.client.messages(expired.chatId)).find(({ role }) => role === 'tool')
    expect(results?.parts).toMatchObject([
      { isError: true, output: 'Nobody answered this call in time.' },
      { isError: true },
    ])
  })

  test('of a chat that was stopped instead is refused; its calls are closed before the next message', async () => {
    const { chatId } = await waitingChat()
    await user.client.send(chatId, 'next')
    await user.client.request('POST', `/v1/chats/${chatId}/interrupt`)
    expect(await submit(chatId, GOOD)).toMatchObject({ status: 409, body: { code: 'not_waiting' } })
    await user.client.settled(chatId)
    const messages = await user.client.messages(chatId)
    expect(messages.map(({ role }) => role)).toEqual(['user', 'assistant', 'tool', 'user', 'assistant'])
    expect(messages[2]?.parts).toMatchObject([
      { toolCallId: 'look', isError: true, output: 'This call was cancelled before it ran.' },
      { toolCallId: 'buy', isError: true },
    ])
  })
})
