/** Agents that spawn agents, through the whole loop: a model that asks, a worker that runs it, a provider that sees it. */
import { TurnmillError } from '../../src/protocol/errors.ts'
import type { ChatView, TurnView } from '../../src/protocol/views.ts'
import { asks, call, offered, scriptAgents, see, spawn, taskOf, type Act } from '../support/agents.ts'
import type { TestClient } from '../support/client.ts'
import { hold, type UpstreamRequest } from '../support/fake-upstream.ts'
import { takeAway } from '../support/leases.ts'
import { BACKENDS, startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

let turnmill: Turnmill
let user: TestUser

const AGENTS = { TURNMILL_SUBAGENTS_ENABLED: 'true', TURNMILL_BUILTIN_TOOLS: 'all' }

async function restart(environment: Record<string, string> = {}, reconcile = false): Promise<void> {
  turnmill = await startTurnmill({ environment: { ...AGENTS, ...environment }, reconcile })
  user = await turnmill.addUser()
}

const script = (agents: Record<string, readonly Act[]>): void => scriptAgents(turnmill.upstream, agents)

const childrenOf = (parentId: string) =>
  turnmill.services.db.prisma.chat.findMany({ where: { parentId }, orderBy: { id: 'asc' } })

async function onlyChildOf(parentId: string): Promise<string> {
  const children = await childrenOf(parentId)
  expect(children).toHaveLength(1)
  return children[0]?.id ?? ''
}

/** Resolves once a chat has this status. */
async function until(chatId: string, status: string, client: TestClient = user.client): Promise<void> {
  const watch = client.watch(chatId)
  await watch.until((event) => event.type === 'status' && event.status === status)
  watch.close()
}

/** Resolves with the first call of a model that was given this task. */
async function callOf(task: string, from = 1): Promise<UpstreamRequest> {
  for (let number = from; ; number++) {
    const request = await turnmill.upstream.waitForRequest(number)
    if (taskOf(request) === task) return request
  }
}

const requestsOf = (task: string): UpstreamRequest[] =>
  turnmill.upstream.requests.filter((request) => taskOf(request) === task)

function requestOf(task: string, index = 0): UpstreamRequest {
  const request = requestsOf(task).at(index)
  if (request === undefined) throw new Error(`nobody was given the task ${task}`)
  return request
}

/** What the model of this task knew in the end. */
const lastSeen = (task: string) => see(requestOf(task, -1))

const keysSeen = (): unknown[] => [
  ...new Set(turnmill.upstream.requests.map(({ headers }) => headers['x-turnmill-key-id'])),
]

/** Runs a root's first turn to its end. */
async function run(task: string): Promise<TurnView> {
  const { chat, turn } = await user.client.create(task)
  return user.client.ended(chat.id, turn.id)
}

const waits = (input: Record<string, unknown> = {}): Act => asks(call('wait_agent', input))

describe('a parent', () => {
  beforeAll(() => restart())
  afterAll(() => turnmill.stop())
  beforeEach(async () => {
    turnmill.upstream.reset()
    user = await turnmill.addUser()
  })

  test('waits for its child without a slot, under one key, and is told what it found', async () => {
    const gate = hold()
    script({
      manage: [
        asks(spawn('dig', { title: 'Digger' })),
        ({ agents }) => asks(call('wait_agent', { agentIds: agents })),
      ],
      dig: [{ type: 'answer', text: 'found gold', gate, gateAt: 0 }],
    })
    const { chat, turn } = await user.client.create('manage')
    await callOf('dig')
    await until(chat.id, 'waiting')
    const parent = await turnmill.services.db.prisma.turn.findUniqueOrThrow({ where: { id: turn.id } })
    expect(parent).toMatchObject({ state: 'waiting', admittedAt: null, leaseUntil: null })
    const [child] = await childrenOf(chat.id)
    expect(child).toMatchObject({ userId: user.userId, depth: 1, title: 'Digger', spawnedByTurnId: turn.id })
    const childId = child?.id ?? ''
    expect(await user.client.messages(childId)).toMatchObject([{ role: 'user', parts: [{ text: 'dig' }], apiKeyId: user.apiKeyId }]) // prettier-ignore
    expect(await user.client.turns(childId)).toMatchObject([{ trigger: 'subagent', state: 'running', apiKeyId: user.apiKeyId }]) // prettier-ignore

    gate.release()
    expect(await user.client.ended(chat.id, turn.id)).toMatchObject({ state: 'completed', epoch: 2 })
    expect(lastSeen('manage').results).toEqual([
      { agentId: childId },
      {
        agents: [
          { agentId: childId, type: 'general', title: 'Digger', status: 'done', answer: 'found gold' },
        ],
      },
    ])
    expect(keysSeen()).toEqual([user.apiKeyId])
    const purposes = turnmill.upstream.requests.map(({ headers }) => headers['x-turnmill-purpose'])
    expect(purposes.toSorted()).toEqual(['chat', 'chat', 'chat', 'subagent_general'])
  })

  test('calls a child without a title by the beginning of its task', async () => {
    script({ manage: [asks(spawn('dig for gold')), asks(call('list_agents'))], 'dig for gold': [] })
    const { chatId } = await run('manage')
    const [child] = await childrenOf(chatId)
    const { body } = await user.client.request<ChatView>('GET', `/v1/chats/${child?.id}`)
    expect(body).toMatchObject({ parentId: chatId, title: 'dig for gold' })
    expect(lastSeen('manage').results).toMatchObject([
      { agentId: child?.id },
      { agents: [{ agentId: child?.id, title: 'dig for gold' }] },
    ])
  })

  test('lists its agents and sends them on, whether they are at work or not, under its own turn’s key', async () => {
    const [busy, sent] = [hold(), hold()]
    script({
      manage: [
        asks(spawn('dig')),
        { ...asks(call('list_agents')), gate: busy, gateAt: 0 },
        ({ agents }) => asks(call('message_agent', { agentId: agents[0], message: 'also here' })),
        { type: 'answer', text: 'sent', gate: sent, gateAt: 0 },
        ({ agents }) => asks(call('message_agent', { agentId: agents[0], message: 'and there' })),
        waits(),
      ],
      dig: [{ type: 'answer', gate: sent, gateAt: 0 }],
    })
    const { chat, turn } = await user.client.create('manage')
    await callOf('dig')
    const childId = await onlyChildOf(chat.id)
    busy.release()
    const watch = user.client.watch(childId)
    await watch.until((event) => event.type === 'queue' && event.queuedMessages.length === 1)
    watch.close()
    sent.release()
    expect(await user.client.ended(chat.id, turn.id)).toMatchObject({ state: 'completed' })
    expect(lastSeen('manage').results).toEqual([
      { agentId: childId },
      { agents: [{ agentId: childId, type: 'general', title: 'dig', status: 'running' }] },
      { sent: true },
    ])
    await user.client.settled(childId)

    const other = await turnmill.addKey(user.userId)
    await other.client.send(chat.id, 'once more')
    await user.client.settled(chat.id)
    expect(lastSeen('manage').results.slice(3)).toEqual([
      { sent: true },
      {
        agents: [
          { agentId: childId, type: 'general', title: 'dig', status: 'done', answer: 'echo: and there' },
        ],
      },
    ])
    expect((await user.client.turns(childId)).map(({ trigger, apiKeyId }) => [trigger, apiKeyId])).toEqual([
      ['send', other.apiKeyId],
      ['promote', user.apiKeyId],
      ['subagent', user.apiKeyId],
    ])
    const last = requestsOf('dig').at(-1)
    expect(last?.headers['x-turnmill-key-id']).toBe(other.apiKeyId)
  })

  test('interrupts an agent with all below it, and what was queued for it is not run', async () => {
    const deep = hold()
    script({
      manage: [
        asks(spawn('dig')),
        { ...asks(call('list_agents')), gate: deep, gateAt: 0 },
        ({ agents }) => asks(call('message_agent', { agentId: agents[0], message: 'also here' })),
        ({ agents }) => asks(call('interrupt_agent', { agentId: agents[0] })),
        waits(),
      ],
      dig: [asks(spawn('dig deeper')), waits()],
      'dig deeper': [{ type: 'silence', after: 'headers' }],
    })
    const { chat, turn } = await user.client.create('manage')
    const request = await callOf('dig deeper')
    const childId = await onlyChildOf(chat.id)
    await until(childId, 'waiting')
    deep.release()
    expect(await user.client.ended(chat.id, turn.id)).toMatchObject({ state: 'completed' })
    await expect(request.closed).resolves.toMatchObject({ early: true })
    expect(lastSeen('manage').results.at(-2)).toEqual({ interrupted: true })
    expect(lastSeen('manage').results.at(-1)).toEqual({
      agents: [{ agentId: childId, type: 'general', title: 'dig', status: 'done' }],
    })
    expect(await user.client.turns(childId)).toMatchObject([{ state: 'interrupted' }])
    const queued = await turnmill.services.db.prisma.queuedMessage.findMany({ where: { chatId: childId } })
    expect(queued).toMatchObject([{ state: 'superseded' }])
    const grandchild = await onlyChildOf(childId)
    await user.client.settled(grandchild)
    expect(await user.client.turns(grandchild)).toMatchObject([{ state: 'interrupted' }])
    expect(requestsOf('dig')).toHaveLength(2)
  })

  test('whose key is revoked amid its step sends its agent on to no call (K5)', async () => {
    const gate = hold()
    script({
      manage: [
        asks(spawn('dig')),
        waits(),
        ({ agents }) => ({
          ...asks(call('message_agent', { agentId: agents[0], message: 'more' }), spawn('dig deeper')),
          gate,
          gateAt: 0,
        }),
      ],
    })
    const { chat, turn } = await user.client.create('manage')
    await callOf('manage', 4)
    const calls = turnmill.upstream.requests.length
    await turnmill.admin.client.request('DELETE', `/v1/api-keys/${user.apiKeyId}`)
    gate.release()
    const { client } = await turnmill.addKey(user.userId)
    const { state, error } = await client.ended(chat.id, turn.id)
    expect(state).toBe('failed')
    // Whoever finds it out first: the renewal of the lease, or the gateway that is asked for the next step.
    expect(['key_revoked', 'gateway_unauthorized']).toContain(error?.code)
    for (const { id } of await childrenOf(chat.id)) await client.settled(id)
    expect(turnmill.upstream.requests).toHaveLength(calls)
  })

  test('is told where an agent is not its own, and goes on', async () => {
    const { chat } = await user.client.create('somebody else’s')
    const ids = [chat.id, 'no id']
    script({
      manage: [asks(...ids.flatMap((agentId) => [call('message_agent', { agentId, message: 'hi' }), call('interrupt_agent', { agentId }), call('wait_agent', { agentIds: [agentId] })]))], // prettier-ignore
    })
    expect(await run('manage')).toMatchObject({ state: 'completed' })
    expect(lastSeen('manage').results).toEqual(
      ids.flatMap((id) => {
        const refusal = expect.stringContaining(`there is no agent "${id}"`) as string
        return [refusal, refusal, { agents: [], unknown: [id] }]
      }),
    )
  })

  test('that completes leaves its children to go on; one that fails or is interrupted takes them along', async () => {
    const gates = { done: hold(), failing: hold(), stopped: hold() }
    const child = (task: string): Act[] => [asks(spawn(`child, ${task}`))]
    script({
      done: [...child('done'), { type: 'answer', gate: gates.done, gateAt: 0 }],
      failing: [...child('failing'), { type: 'answer', ending: 'error', error: { code: 'invalid_prompt' }, gate: gates.failing, gateAt: 0 }], // prettier-ignore
      stopped: [...child('stopped'), { type: 'silence', after: 'headers' }],
      'child, done': [{ type: 'answer', text: 'later', gate: gates.stopped, gateAt: 0 }],
      'child, failing': [{ type: 'silence', after: 'headers' }],
      'child, stopped': [{ type: 'silence', after: 'headers' }],
    })
    const start = async (task: string) => {
      const { chat, turn } = await user.client.create(task)
      const request = await callOf(`child, ${task}`)
      return { chatId: chat.id, turnId: turn.id, childId: await onlyChildOf(chat.id), request }
    }
    const [done, failing, stopped] = [await start('done'), await start('failing'), await start('stopped')]
    gates.done.release()
    gates.failing.release()
    while (requestsOf('stopped').length < 2) await callOf('stopped', turnmill.upstream.requests.length)
    await user.client.request('POST', `/v1/chats/${stopped.chatId}/interrupt`)
    expect(await user.client.ended(done.chatId, done.turnId)).toMatchObject({ state: 'completed' })
    expect(await user.client.ended(failing.chatId, failing.turnId)).toMatchObject({ state: 'failed' })
    expect(await user.client.ended(stopped.chatId, stopped.turnId)).toMatchObject({ state: 'interrupted' })
    for (const { childId, request } of [failing, stopped]) {
      await expect(request.closed).resolves.toMatchObject({ early: true })
      await user.client.settled(childId)
      expect(await user.client.turns(childId)).toMatchObject([{ state: 'interrupted' }])
    }
    gates.stopped.release()
    await user.client.settled(done.childId)
    expect(await user.client.turns(done.childId)).toMatchObject([{ state: 'completed' }])
  })

  test('that is interrupted or edited while it waits stops the whole family', async () => {
    const family: Record<string, Act[]> = {
      dig: [asks(spawn('dig deeper')), waits()],
      'dig deeper': [{ type: 'silence', after: 'headers' }],
    }
    for (const how of ['interrupt', 'edit'] as const) {
      turnmill.upstream.reset()
      script({ ...family, [how]: [asks(spawn('dig')), waits()] })
      const { chat, turn, message } = await user.client.create(how)
      const request = await callOf('dig deeper')
      const childId = await onlyChildOf(chat.id)
      const grandchildId = await onlyChildOf(childId)
      await until(chat.id, 'waiting')
      await until(childId, 'waiting')
      if (how === 'edit') await user.client.edit(chat.id, message.id, 'never mind')
      else await user.client.request('POST', `/v1/chats/${chat.id}/interrupt`)
      await expect(request.closed).resolves.toMatchObject({ early: true })
      await user.client.settled(grandchildId)
      await user.client.settled(chat.id)
      const state = async (id: string) => (await user.client.turns(id)).at(-1)?.state
      expect(await state(chat.id)).toBe(how === 'edit' ? 'superseded' : 'interrupted')
      expect(await state(childId)).toBe('interrupted')
      expect(await state(grandchildId)).toBe('interrupted')
      expect((await user.client.turns(chat.id)).at(-1)?.id).toBe(turn.id)
      if (how === 'edit') expect((await user.client.messages(chat.id)).map(({ role }) => role)).toEqual(['user', 'assistant']) // prettier-ignore
    }
  })

  test('is archived with its family, and no child alone', async () => {
    const gate = hold()
    script({ manage: [asks(spawn('dig'))], dig: [{ type: 'answer', gate, gateAt: 0 }] })
    const { chat, turn } = await user.client.create('manage')
    await callOf('dig')
    await user.client.ended(chat.id, turn.id)
    const childId = await onlyChildOf(chat.id)
    const archive = (id: string) => user.client.request('PATCH', `/v1/chats/${id}`, { archived: true })
    expect(await archive(chat.id)).toMatchObject({ status: 409, body: { code: 'chat_busy' } })
    gate.release()
    await user.client.settled(childId)
    expect((await archive(childId)).status).toBeGreaterThanOrEqual(400)
    expect(await archive(chat.id)).toMatchObject({ status: 200 })
    expect(await childrenOf(chat.id)).toMatchObject([{ archivedAt: expect.any(Date) as Date }])
  })

  test('offers each kind of agent what is meant for it', async () => {
    script({
      manage: [
        asks(spawn('dig')),
        asks(spawn('look', { type: 'explore' })),
        asks(spawn('click', { type: 'computer_use' })),
        waits(),
      ],
      dig: [asks(spawn('dig deeper')), waits()],
    })
    expect(await run('manage')).toMatchObject({ state: 'completed' })
    const first = requestOf('manage')
    const agents = ['spawn_agent', 'wait_agent', 'message_agent', 'interrupt_agent', 'list_agents']
    expect(offered(first)).toEqual(expect.arrayContaining(agents))
    const tools = first.body.tools as { name: string; parameters: unknown }[]
    expect(JSON.stringify(tools.find(({ name }) => name === 'spawn_agent'))).not.toContain('computer_use')
    expect(offered(requestOf('dig'))).toEqual(offered(first))
    expect(offered(requestOf('look'))).not.toEqual(expect.arrayContaining(['spawn_agent']))
    const deepest = offered(requestOf('dig deeper'))
    expect(deepest).toEqual(offered(first).filter((name) => !agents.includes(name)))
    expect(deepest).toContain('current_time')
    expect(requestsOf('click')).toEqual([])
    expect(lastSeen('manage').results[2]).toEqual(expect.stringContaining('type'))
  })
})

describe.each(BACKENDS)('on the %s backend', (backend) => {
  test('a parent with 8 children, each with 2 of their own, all waiting, ends on one worker with concurrency 1', async () => {
    const environment = { ...AGENTS, TURNMILL_WORKER_CONCURRENCY: '1' }
    turnmill = await startTurnmill({ backend, environment })
    try {
      user = await turnmill.addUser()
      const names = Array.from({ length: 8 }, (_, index) => `child ${index + 1}`)
      const child = (name: string): Act[] => [asks(spawn(`first of ${name}`), spawn(`second of ${name}`)), waits(), { type: 'answer', text: `${name} is done` }] // prettier-ignore
      script({
        manage: [asks(...names.map((name) => spawn(name))), waits()],
        ...Object.fromEntries(names.map((name) => [name, child(name)])),
      })
      expect(await run('manage')).toMatchObject({ state: 'completed' })
      const report = lastSeen('manage').results.at(-1) as { agents: { answer: string }[] }
      expect(report.agents.map(({ answer }) => answer)).toEqual(names.map((name) => `${name} is done`))
      expect(turnmill.upstream.requests).toHaveLength(3 + 8 * 3 + 16)
      expect(keysSeen()).toEqual([user.apiKeyId])
      const states = await turnmill.services.db.prisma.turn.groupBy({ by: ['state'], _count: true })
      expect(states).toEqual([{ state: 'completed', _count: 25 }])
    } finally {
      await turnmill.stop()
    }
  })
})

describe('limits', () => {
  afterEach(() => turnmill.stop())

  test('beyond its children a parent is refused one more, as a result', async () => {
    await restart({ TURNMILL_SUBAGENT_CHILDREN: '2' })
    // Nobody is done before all three were asked for.
    const gate = hold()
    const done = (name: string): Act[] => [{ type: 'answer', text: `${name} is done`, gate, gateAt: 0 }]
    script({
      manage: [asks(spawn('a'), spawn('b'), spawn('c')), waits(), asks(spawn('d')), waits()],
      a: done('a'),
      b: done('b'),
    })
    const { chat, turn } = await user.client.create('manage')
    await until(chat.id, 'waiting')
    gate.release()
    expect(await user.client.ended(chat.id, turn.id)).toMatchObject({ state: 'completed' })
    const { results, agents } = lastSeen('manage')
    expect(results.slice(0, 3)).toContainEqual('2 subagents are at work, expected fewer')
    expect(agents).toHaveLength(3)
  })

  test.each([
    ['step_limit', { TURNMILL_FAMILY_STEPS: '8' }, 8],
    ['cost_limit', { TURNMILL_FAMILY_COST_MICROS: '200' }, 8],
  ])('a family that runs away ends as %s', async (code, environment, calls) => {
    await restart(environment)
    const forever = Array.from({ length: 50 }, () => asks(call('list_agents')))
    script({ manage: [asks(spawn('a')), waits()], a: forever })
    expect(await run('manage')).toMatchObject({ state: 'failed', error: { code } })
    const [child] = await turnmill.services.db.prisma.chat.findMany({ where: { NOT: { parentId: null } } })
    expect(child).toMatchObject({ status: 'failed', lastError: { code } })
    expect(turnmill.upstream.requests).toHaveLength(calls)
  })

  test('a wait ends with its time, by its own or the deployment’s limit, and the child goes on', async () => {
    await restart({ TURNMILL_WAITING_DEADLINE_MS: '1000' }, true)
    const gate = hold()
    script({
      manage: [asks(spawn('a')), waits({ timeoutSeconds: 0.2 }), waits()],
      a: [{ type: 'answer', gate, gateAt: 0 }],
    })
    const { chat, turn } = await user.client.create('manage')
    expect(await user.client.ended(chat.id, turn.id)).toMatchObject({ state: 'completed' })
    const { results, agents } = lastSeen('manage')
    const running = { agents: [{ agentId: agents[0], type: 'general', title: 'a', status: 'running' }] }
    expect(results.slice(1)).toEqual([running, running])
    gate.release()
    await user.client.settled(agents[0] ?? '')
    expect(await user.client.turns(agents[0] ?? '')).toMatchObject([{ state: 'completed' }])
  })

  test('a spawn is not repeated by the worker that takes over before its result is committed', async () => {
    turnmill = await startTurnmill({ workers: 0, reconcile: true, environment: AGENTS })
    user = await turnmill.addUser()
    script({ manage: [asks(spawn('dig')), waits()], dig: [{ type: 'answer', text: 'found' }] })
    const { chats } = turnmill.services
    const { commitResults } = chats
    // The worker loses the turn there, and writes nothing more.
    chats.commitResults = async ({ turnId, chatId }) => {
      chats.commitResults = commitResults
      // So that its parent need not wait for it, and is claimed once more and no oftener.
      await user.client.settled(await onlyChildOf(chatId))
      await takeAway(turnmill, turnId)
      throw new TurnmillError('turn_fenced', 'lost')
    }
    turnmill.addWorker()
    const { state, epoch } = await run('manage')
    expect([state, epoch]).toEqual(['completed', 3])
    const children = await turnmill.services.db.prisma.chat.findMany({ where: { NOT: { parentId: null } } })
    expect(children).toHaveLength(1)
    expect(lastSeen('manage').results[0]).toEqual({ agentId: children[0]?.id })
  })
})

describe('the model of a child', () => {
  beforeAll(() => restart())
  afterAll(() => turnmill.stop())

  test('is what was asked for, else the user’s for subagents, else the deployment’s, else the parent’s', async () => {
    const ids: Record<string, string> = {}
    for (const model of ['asked', 'own', 'common', 'parents']) {
      const { body } = await turnmill.admin.client.request<{ id: string }>('POST', '/v1/model-configs', {
        providerId: turnmill.provider.id,
        model,
        displayName: `The ${model}`,
      })
      ids[model] = body.id
    }
    const choose = (whose: 'admin' | 'me', modelConfigId: string | null) => {
      const { client } = whose === 'admin' ? turnmill.admin : user
      const url = `/v1/${whose === 'me' ? 'me/' : ''}model-overrides/subagent_general`
      return modelConfigId === null
        ? client.request('DELETE', url)
        : client.request('PUT', url, { modelConfigId })
    }
    /** The models of the child's two turns. */
    const modelsWith = async (fields: Record<string, unknown>): Promise<unknown[]> => {
      turnmill.upstream.reset()
      script({
        manage: [
          asks(spawn('dig', fields)),
          waits(),
          ({ agents }) => asks(call('message_agent', { agentId: agents[0], message: 'again' })),
          waits(),
        ],
      })
      const sent = await user.client.request<{ chat: { id: string }; turn: { id: string } }>('POST', '/v1/chats', { content: 'manage', modelConfigId: ids.parents }) // prettier-ignore
      expect(await user.client.ended(sent.body.chat.id, sent.body.turn.id)).toMatchObject({
        state: 'completed',
        error: null,
      })
      return requestsOf('dig').map(({ body }) => body.model)
    }
    expect((await choose('admin', ids.common ?? null)).status).toBe(200)
    expect((await choose('me', ids.own ?? null)).status).toBe(200)
    expect(await modelsWith({ model: 'The asked' })).toEqual(['asked', 'asked'])
    expect(await modelsWith({})).toEqual(['own', 'own'])
    await choose('me', null)
    expect(await modelsWith({})).toEqual(['common', 'common'])
    await choose('admin', null)
    expect(await modelsWith({})).toEqual(['parents', 'parents'])
    // The parent's model of its own choosing.
    await user.client.request('PUT', '/v1/me/model-overrides/chat', { modelConfigId: ids.own })
    const { chat, turn } = await user.client.create('manage')
    await user.client.ended(chat.id, turn.id)
    expect(requestsOf('dig').at(-1)?.body.model).toBe('own')
    expect(await modelsWith({ model: 'no such' })).toEqual([])
    expect(lastSeen('manage').results[0]).toEqual(expect.stringContaining('There is no model'))
  })
})
