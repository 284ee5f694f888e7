import type { DebugRunSummary, DebugRunView } from '../../src/models/index.ts'
import { newId } from '../../src/protocol/ids.ts'
import { Secret } from '../../src/protocol/secret.ts'
import type { Route } from '../../src/protocol/routes.ts'
import { call, claimTurn, newChat, openChatWorld, step, text, type ChatWorld } from '../support/chat-world.ts'
import { hold } from '../support/fake-upstream.ts'
import { CENTRAL_KEY, startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

interface RunsPage {
  items: DebugRunSummary[]
  next: string | null
}

const debug = async ({ client }: TestUser, chatId: string, minutes: number): Promise<string | null> => {
  const answer = await client.request<{ debugUntil: string | null }>('PUT', `/v1/chats/${chatId}/debug`, {
    minutes,
  })
  expect(answer.status).toBe(200)
  return answer.body.debugUntil
}

const list = async ({ client }: TestUser, chatId: string, query = ''): Promise<RunsPage> =>
  (await client.request<RunsPage>('GET', `/v1/chats/${chatId}/debug-runs${query}`)).body

const read = async ({ client }: TestUser, chatId: string, id: string): Promise<DebugRunView> =>
  (await client.request<DebugRunView>('GET', `/v1/chats/${chatId}/debug-runs/${id}`)).body

/** The runs of a chat, once all of them have their answer: the end of it may be read after the turn has ended. */
async function recorded(user: TestUser, chatId: string): Promise<DebugRunView[]> {
  for (;;) {
    const { items } = await list(user, chatId)
    if (items.length > 0 && items.every(({ finishedAt }) => finishedAt !== null))
      return Promise.all(items.map(({ id }) => read(user, chatId, id)))
  }
}

async function idleChat(user: TestUser, content = 'first') {
  const { chat, turn } = await user.client.create(content)
  await user.client.ended(chat.id, turn.id)
  return chat
}

describe.each([
  ['gateway', 'true', '/v1/gateway/fake/v1/responses'],
  ['direct', 'false', '/v1/responses'],
])('the model calls of a chat over a %s route', (_, gatewayRouting, path) => {
  let turnmill: Turnmill
  let user: TestUser
  beforeAll(async () => {
    turnmill = await startTurnmill({
      allowByok: true,
      environment: {
        TURNMILL_CHAT_AI_GATEWAY_ROUTING_ENABLED: gatewayRouting,
        TURNMILL_RETRY_ATTEMPTS: '2',
        TURNMILL_SUBAGENTS_ENABLED: 'true',
        TURNMILL_ADVISOR_USES: '3',
      },
    })
  })
  afterAll(() => turnmill.stop())
  beforeEach(async () => {
    turnmill.upstream.reset()
    user = await turnmill.addUser()
  })

  const say = async (chatId: string, content: string) => {
    await user.client.send(chatId, content)
    return user.client.settled(chatId)
  }

  test('are recorded while its owner wants it, with what was sent and what came', async () => {
    const chat = await idleChat(user)
    expect(await list(user, chat.id)).toEqual({ items: [], next: null })
    const until = await debug(user, chat.id, 5)
    expect(Date.parse(until ?? '') - Date.now()).toBeGreaterThan(4 * 60_000)
    await say(chat.id, 'second')
    const [run] = await recorded(user, chat.id)
    const [turn] = await user.client.turns(chat.id)
    expect(run).toMatchObject({
      chatId: chat.id,
      turnId: turn?.id,
      step: 1,
      attempt: 1,
      purpose: 'chat',
      modelConfigId: turnmill.modelConfig.id,
      method: 'POST',
      path,
      status: 200,
      request: {
        method: 'POST',
        path,
        headers: { 'content-type': 'application/json' },
        body: { model: 'fake-1' },
      },
      response: { status: 200, headers: { 'content-type': 'text/event-stream' }, ending: 'complete' },
    })
    expect(JSON.stringify(run?.request.body)).toContain('second')
    expect(run?.response?.body).toContain('response.completed')
    expect(Date.parse(run?.expiresAt ?? '') - Date.now()).toBeGreaterThan(23 * 3_600_000)

    expect(await debug(user, chat.id, 0)).toBeNull()
    await say(chat.id, 'third')
    expect(turnmill.upstream.requests).toHaveLength(3)
    expect((await list(user, chat.id)).items).toHaveLength(1)
  })

  test('are recorded where they fail and where they are stopped, without the credential', async () => {
    const chat = await idleChat(user)
    await debug(user, chat.id, 5)
    const given = (headers: { authorization?: string | undefined }) => headers.authorization
    turnmill.upstream.script(({ headers }) => ({
      type: 'status',
      status: 400,
      error: { message: `you sent ${given(headers)}` },
    }))
    await say(chat.id, 'refused')
    const [refused] = await recorded(user, chat.id)
    expect(refused).toMatchObject({ status: 400, response: { body: expect.stringContaining('you sent') } })

    const own = 'the-users-own-key-0001'
    await user.client.request('PUT', '/v1/me/provider-keys/fake', { key: own })
    await say(chat.id, 'refused again')

    const gate = hold()
    turnmill.upstream.script({ type: 'answer', gate, gateAt: 1 })
    await user.client.send(chat.id, 'stopped')
    const watch = user.client.watch(chat.id)
    await watch.until((event) => event.type === 'part')
    watch.close()
    await user.client.request('POST', `/v1/chats/${chat.id}/interrupt`)
    await user.client.settled(chat.id)
    gate.release()
    const runs = await recorded(user, chat.id)
    expect(runs).toHaveLength(3)
    expect(runs[0]?.response).toMatchObject({ status: 200, ending: expect.stringMatching(/broken|left/) })
    for (const secret of [CENTRAL_KEY, own]) expect(JSON.stringify(runs)).not.toContain(secret)
    expect(turnmill.upstream.requests.map(({ headers }) => given(headers))).toEqual([
      `Bearer ${CENTRAL_KEY}`,
      `Bearer ${CENTRAL_KEY}`,
      `Bearer ${own}`,
      `Bearer ${own}`,
    ])
  })

  test('fail no turn where they cannot be recorded', async () => {
    const chat = await idleChat(user)
    await debug(user, chat.id, 5)
    const { pool } = turnmill.services.db
    await pool.query('alter table debug_runs rename to debug_runs_away')
    try {
      await expect(say(chat.id, 'second')).resolves.toMatchObject({ status: 'idle' })
      await turnmill.services.debugRuns.idle(10_000)
    } finally {
      await pool.query('alter table debug_runs_away rename to debug_runs')
    }
    expect(await user.client.messages(chat.id)).toHaveLength(4)
    expect(await list(user, chat.id)).toEqual({ items: [], next: null })
  })
})

describe('the calls beside a chat’s own steps', () => {
  let turnmill: Turnmill
  beforeAll(async () => {
    turnmill = await startTurnmill({
      auxiliaryWorkers: 1,
      environment: { TURNMILL_ADVISOR_USES: '1', TURNMILL_SUBAGENTS_ENABLED: 'true' },
    })
  })
  afterAll(() => turnmill.stop())

  test('are recorded as well: an advisor’s, a subagent’s, a summary and a title', async () => {
    const user = await turnmill.addUser()
    const { client } = user
    const chat = await idleChat(user)
    await debug(user, chat.id, 5)
    turnmill.upstream.script(({ headers, number }) => {
      const purpose = headers['x-turnmill-purpose']
      if (purpose === 'subagent_general') return { type: 'answer', text: 'the work of a subagent' }
      if (number > 2 || purpose !== 'chat')
        return { type: 'answer', text: `an answer for ${String(purpose)}` }
      return {
        type: 'answer',
        toolCalls: [
          { id: 'a', name: 'ask_advisor', args: ['{"question":"what next?"}'] },
          { id: 's', name: 'spawn_agent', args: ['{"type":"general","task":"work"}'] },
          { id: 'w', name: 'wait_agent', args: ['{}'] },
        ],
      }
    })
    await client.send(chat.id, 'do it')
    expect(await client.settled(chat.id)).toMatchObject({ status: 'idle' })
    await client.request('POST', `/v1/chats/${chat.id}/title`)
    const watch = client.watch(chat.id)
    await watch.until((event) => event.type === 'status' && event.title === 'an answer for title')
    watch.close()
    await client.request('POST', `/v1/chats/${chat.id}/compact`)
    expect(await client.settled(chat.id)).toMatchObject({ status: 'idle' })

    const runs = await recorded(user, chat.id)
    expect(runs.map(({ purpose }) => purpose).sort()).toEqual([
      'advisor',
      'chat',
      'chat',
      'compaction',
      'title',
    ])
    for (const run of runs)
      expect(run).toMatchObject({ status: 200, response: { ending: 'complete', body: expect.any(String) } })
    const child = await turnmill.services.db.prisma.chat.findFirstOrThrow({ where: { parentId: chat.id } })
    const [own] = await recorded(user, child.id)
    expect(own).toMatchObject({ purpose: 'subagent_general', chatId: child.id, status: 200 })
    expect(JSON.stringify([runs, own])).not.toContain(CENTRAL_KEY)
  })
})

describe('recorded calls', () => {
  let turnmill: Turnmill
  let user: TestUser
  beforeAll(async () => {
    turnmill = await startTurnmill()
  })
  afterAll(() => turnmill.stop())
  beforeEach(async () => {
    user = await turnmill.addUser()
  })

  /** Records calls of a chat, without a turn. */
  async function record(chatId: string, count: number): Promise<void> {
    const route: Route = {
      kind: 'direct', credential: null, credentialKind: 'central', extraHeaders: {}, wireFormat: 'openai-chat', model: 'm', modelConfigId: turnmill.modelConfig.id,
      provider: { id: newId(), name: 'p', type: 'openai', baseUrl: 'https://p.example', attribution: false }, place: null,
      attribution: { apiKeyId: null, chatId, turnId: null, purpose: 'title' },
    } // prettier-ignore
    const fetch = () => Promise.resolve(new Response('{}'))
    const { debugRuns } = turnmill.services
    const connection = debugRuns.record(route, {
      provider: 'p',
      baseUrl: '',
      credential: new Secret(''),
      fetch,
    })
    for (let number = 0; number < count; number++) {
      await (await connection.fetch('https://p.example/v1/x', { method: 'POST', body: `{"number":${number}}` })).text() // prettier-ignore
      await debugRuns.idle(10_000)
    }
  }

  const recordedChat = async () => {
    const chat = await idleChat(user)
    await debug(user, chat.id, 60)
    return chat
  }

  test('are listed newest first, page by page', async () => {
    const chat = await recordedChat()
    await record(chat.id, 5)
    const first = await list(user, chat.id, '?limit=3')
    const second = await list(user, chat.id, `?limit=3&after=${first.next}`)
    expect([first.items.length, second.items.length, second.next]).toEqual([3, 2, null])
    const runs = await Promise.all([...first.items, ...second.items].map(({ id }) => read(user, chat.id, id)))
    expect(runs.map(({ request }) => request.body)).toEqual([4, 3, 2, 1, 0].map((number) => ({ number })))
    expect(first.items[0]).not.toHaveProperty('request')
  })

  test('are kept 200 of a chat', async () => {
    const [chat, other] = [await recordedChat(), await recordedChat()]
    await record(other.id, 1)
    await record(chat.id, 205)
    const { items } = await list(user, chat.id, '?limit=200')
    expect(items).toHaveLength(200)
    expect((await read(user, chat.id, items.at(-1)?.id ?? '')).request.body).toEqual({ number: 5 })
    expect(await turnmill.services.db.prisma.debugRun.count({ where: { chatId: chat.id } })).toBe(200)
    expect((await list(user, other.id)).items).toHaveLength(1)
  })

  test('are not made where nobody asked for it, nor where the chat is gone', async () => {
    const chat = await idleChat(user)
    await record(chat.id, 1)
    await record(newId(), 1)
    expect(await list(user, chat.id)).toEqual({ items: [], next: null })
    expect(await turnmill.services.debugRuns.isOn(chat.id)).toBe(false)
    await debug(user, chat.id, 1)
    expect(await turnmill.services.debugRuns.isOn(chat.id)).toBe(true)
  })

  test('are gone once they have expired', async () => {
    const chat = await recordedChat()
    await record(chat.id, 2)
    const [last, first] = (await list(user, chat.id)).items
    const { prisma } = turnmill.services.db
    await prisma.debugRun.update({
      where: { id: first?.id ?? '' },
      data: { expiresAt: new Date(Date.now() - 1000) },
    })
    expect((await list(user, chat.id)).items).toEqual([last])
    const path = `/v1/chats/${chat.id}/debug-runs/${first?.id}`
    expect(await user.client.request('GET', path)).toMatchObject({ status: 404 })
    await turnmill.services.reconciler.pass()
    expect(await prisma.debugRun.count({ where: { chatId: chat.id } })).toBe(1)
    await user.client.request('DELETE', `/v1/chats/${chat.id}`)
    expect(await prisma.debugRun.count({ where: { chatId: chat.id } })).toBe(0)
  })

  test('are read in their own chat only, and by its owner only', async () => {
    const [chat, other] = [await recordedChat(), await recordedChat()]
    await record(chat.id, 1)
    const [run] = (await list(user, chat.id)).items
    const elsewhere = `/v1/chats/${other.id}/debug-runs/${run?.id}`
    expect(await user.client.request('GET', elsewhere)).toMatchObject({ status: 404 })
    const path = `/v1/chats/${chat.id}/debug-runs/${run?.id}`
    expect(await turnmill.admin.client.request('GET', path)).toMatchObject({ status: 404 })
  })

  test.each([
    {},
    { minutes: -1 },
    { minutes: 1441 },
    { minutes: 1.5 },
    { minutes: '5' },
    { minutes: 5, all: true },
  ])('are not asked for with %j', async (body) => {
    const chat = await idleChat(user)
    const answer = await user.client.request('PUT', `/v1/chats/${chat.id}/debug`, body)
    expect(answer).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
  })
})

describe('a worker', () => {
  let world: ChatWorld
  beforeAll(async () => {
    world = await openChatWorld()
  })
  afterAll(() => world.close())

  test('is told with its claim whether the chat, or the root of a subagent, is recorded', async () => {
    const { chats, initiator } = world
    const { chat, turn } = await chats.create(initiator, newChat('do it'))
    await chats.debug(initiator, chat.id, 5)
    const parent = await claimTurn(world, turn.id)
    await chats.commitStep(parent, step(1, [call('call-1'), call('call-2'), call('call-3')]))
    const spawn = (callId: string) =>
      chats.spawn(parent, {
        callId, type: 'general', title: null, parts: text('go'), systemPrompt: null, modelConfigId: null,
      }) // prettier-ignore
    const children = [await spawn('call-1'), await spawn('call-2'), await spawn('call-3')]
    const claimChild = (index: number) => claimTurn(world, children[index]?.activeTurnId ?? '')
    const first = await claimChild(0)
    await chats.debug(initiator, chat.id, 0)
    const second = await claimChild(1)
    await chats.debug(initiator, children[2]?.id ?? '', 5)
    const third = await claimChild(2)
    expect([parent, first, second, third].map((claim) => claim.debug)).toEqual([true, true, false, true])
  })

  test('is told nothing of a time that is over', async () => {
    const { chats, initiator, db } = world
    const { chat, turn } = await chats.create(initiator, newChat('do it'))
    await chats.debug(initiator, chat.id, 5)
    await db.prisma.chat.update({ where: { id: chat.id }, data: { debugUntil: new Date(Date.now() - 1000) } })
    expect(await claimTurn(world, turn.id)).toMatchObject({ debug: false })
  })
})
