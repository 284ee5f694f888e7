/** K4, K5 and P2 for every purpose, told from the provider's journal: whose key, whose credential, and no call without. */
import { setTimeout as sleep } from 'node:timers/promises'
import { TurnmillError } from '../../src/protocol/errors.ts'
import { PURPOSES, type Purpose } from '../../src/protocol/routes.ts'
import { asks, call, scriptAgents, spawn, taskOf } from '../support/agents.ts'
import { chromiumPath } from '../support/chromium.ts'
import { hold, type UpstreamRequest } from '../support/fake-upstream.ts'
import { takeAway } from '../support/leases.ts'
import { CENTRAL_KEY, startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

const OWN_KEY = 'the-users-own-provider-key-42'

/** What the provider SDKs would send by themselves, were it left to them. */
const AMBIENT = { OPENAI_API_KEY: 'sk-ambient-openai', ANTHROPIC_AUTH_TOKEN: 'ambient-anthropic' }
beforeAll(() => void Object.assign(process.env, AMBIENT))
afterAll(() => {
  for (const name of Object.keys(AMBIENT)) Reflect.deleteProperty(process.env, name)
})

const header = ({ headers }: UpstreamRequest, name: string): unknown => headers[`x-turnmill-${name}`]
const purposeOf = (request: UpstreamRequest): unknown => header(request, 'purpose')

const ROUTES = [
  { route: 'gateway', byok: false },
  { route: 'gateway', byok: true },
  { route: 'direct', byok: false },
  { route: 'direct', byok: true },
] as const

describe.each(ROUTES)('on the $route route, own provider key: $byok', ({ route, byok }) => {
  let turnmill: Turnmill
  let user: TestUser
  let compacting: Omit<TestUser, 'userId'>
  let chatId: string

  beforeAll(async () => {
    turnmill = await startTurnmill({
      allowByok: byok,
      auxiliaryWorkers: 1,
      environment: {
        TURNMILL_CHAT_AI_GATEWAY_ROUTING_ENABLED: String(route === 'gateway'),
        TURNMILL_AUTO_TITLES: 'true',
        TURNMILL_STATUS_LABELS: 'true',
        TURNMILL_SUBAGENTS_ENABLED: 'true',
        TURNMILL_ADVISOR_USES: '3',
        TURNMILL_CHROMIUM_PATH: chromiumPath(),
      },
    })
    user = await turnmill.addUser()
    compacting = await turnmill.addKey(user.userId)
    await user.client.request('PUT', '/v1/me/provider-keys/fake', { key: OWN_KEY })
    // The label is asked for beside the turn, which is not to end before.
    const labelled = hold()
    scriptAgents(turnmill.upstream, {
      everything: [
        {
          ...asks(
            call('ask_advisor', { question: 'What next?' }),
            spawn('dig'),
            spawn('look', { type: 'explore' }),
            spawn('click', { type: 'computer_use' }),
          ),
          gate: labelled,
          gateAt: 0,
        },
        asks(call('wait_agent')),
        { type: 'answer', text: 'all is done' },
      ],
    })
    const { chat, turn } = await user.client.create('everything')
    chatId = chat.id
    await called('quickgen')
    labelled.release()
    expect(await user.client.ended(chatId, turn.id)).toMatchObject({ state: 'completed' })
    await called('title')
    expect((await compacting.client.request('POST', `/v1/chats/${chatId}/compact`)).status).toBe(202)
    await user.client.settled(chatId)
  })
  afterAll(() => turnmill.stop())

  async function called(purpose: Purpose): Promise<void> {
    for (let number = 1; ; number++)
      if (purposeOf(await turnmill.upstream.waitForRequest(number)) === purpose) return
  }

  test.each(PURPOSES)(
    '%s is called under the key that its turn has, with the right credential',
    async (purpose) => {
      const requests = turnmill.upstream.requests.filter((request) => purposeOf(request) === purpose)
      expect(requests.length).toBeGreaterThan(0)
      for (const request of requests) {
        const turn = await turnmill.services.db.prisma.turn.findUniqueOrThrow({
          where: { id: String(header(request, 'turn-id')) },
          include: { chat: true },
        })
        const expected = {
          keyId: turn.trigger === 'compact' ? compacting.apiKeyId : user.apiKeyId,
          credential: `Bearer ${byok ? OWN_KEY : CENTRAL_KEY}`,
        }
        if (purpose === 'compaction') expect(turn.trigger).toBe('compact')
        const seen = { keyId: header(request, 'key-id'), credential: request.headers.authorization }
        expect(seen).toEqual(expected)
        expect([turn.apiKeyId, turn.chatId]).toEqual([expected.keyId, header(request, 'chat-id')])
        const isChild = purpose.startsWith('subagent') || purpose === 'computer_use'
        expect(isChild ? turn.chat.parentId : turn.chat.id).toBe(chatId)
        expect(JSON.stringify(request.headers)).not.toContain('ambient')
        expect(JSON.stringify(request.headers)).not.toContain(byok ? CENTRAL_KEY : OWN_KEY)
      }
    },
  )

  test('all calls are for a purpose, and in the gateway’s books where it was asked', async () => {
    const purposes = new Set(turnmill.upstream.requests.map(purposeOf))
    expect([...purposes].toSorted()).toEqual([...PURPOSES].toSorted())
    // One for the label of the last turn may be under way, and a call that was let go of before it was sent has no status.
    const others = { NOT: { purpose: 'quickgen' } }
    const { interception } = turnmill.services.db.prisma
    while ((await interception.count({ where: { ...others, settledAt: null } })) > 0) await sleep(20)
    const books = await interception.count({ where: { ...others, status: { not: null } } })
    const calls = turnmill.upstream.requests.filter((request) => purposeOf(request) !== 'quickgen')
    expect(books).toBe(route === 'gateway' ? calls.length : 0)
  })
})

/** Nothing but a claim finds that the key is gone. */
const SELDOM_RENEWED = { TURNMILL_LEASE_RENEWAL_MS: '10000' }

describe('without a key ID, and with credentials in the environment', () => {
  let turnmill: Turnmill
  let user: TestUser
  let reader: Omit<TestUser, 'userId'>
  let chatId: string
  let turnId: string

  /** Without a worker yet. */
  async function start(environment: Record<string, string>): Promise<void> {
    turnmill = await startTurnmill({
      workers: 0,
      reconcile: true,
      environment: {
        TURNMILL_WORKER_CONCURRENCY: '1',
        TURNMILL_SUBAGENTS_ENABLED: 'true',
        TURNMILL_ADVISOR_USES: '3',
        ...environment,
        TURNMILL_CHROMIUM_PATH: chromiumPath(),
        TURNMILL_AUTO_TITLES: 'true',
        TURNMILL_STATUS_LABELS: 'true',
      },
    })
    user = await turnmill.addUser()
    reader = await turnmill.addKey(user.userId)
  }
  afterEach(() => turnmill.stop())

  const deleteKey = () => turnmill.services.db.prisma.apiKey.delete({ where: { id: user.apiKeyId } })

  async function create(task: string): Promise<void> {
    const { chat, turn } = await user.client.create(task)
    chatId = chat.id
    turnId = turn.id
  }

  const endOfTurn = async (id = chatId): Promise<unknown> => {
    const [turn] = await reader.client.turns(id)
    return (await reader.client.ended(id, turn?.id ?? '')).error?.code
  }

  /** How the run of the auxiliary queue ended. */
  async function endOfRun(purpose: string): Promise<unknown> {
    for (;;) {
      const where = { chatId, purpose, NOT: { finishedAt: null } }
      const run = await turnmill.services.db.prisma.auxiliaryRun.findFirst({ where })
      if (run !== null) return (run.error as { code?: string } | null)?.code
      await turnmill.services.reconciler.pass()
    }
  }

  /** A child that its parent leaves behind, whose turn no worker has taken before the key is gone. */
  const orphan = (type: string) => async (): Promise<unknown> => {
    const gate = hold()
    scriptAgents(turnmill.upstream, {
      manage: [asks(spawn('dig', { type })), { type: 'answer', gate, gateAt: 0 }],
    })
    await create('manage')
    turnmill.addWorker()
    while (turnmill.upstream.requests.filter((request) => taskOf(request) === 'manage').length < 2)
      await turnmill.upstream.waitForRequest(turnmill.upstream.requests.length + 1)
    const child = await turnmill.services.db.prisma.chat.findFirstOrThrow({ where: { parentId: chatId } })
    await deleteKey()
    gate.release()
    return endOfTurn(child.id)
  }

  /** Makes a purpose come up after the key was deleted, and gives the code it ended with. */
  const STORIES: Record<Purpose, () => Promise<unknown>> = {
    chat: async () => {
      await create('hi')
      await deleteKey()
      turnmill.addWorker()
      return endOfTurn()
    },
    title: async () => {
      await create('hi')
      turnmill.addWorker()
      await user.client.ended(chatId, turnId)
      await deleteKey()
      turnmill.addAuxiliaryWorker()
      return endOfRun('title')
    },
    quickgen: async () => {
      turnmill.upstream.script({ type: 'silence', after: 'headers' })
      await create('hi')
      turnmill.addWorker()
      await turnmill.upstream.waitForRequest(1)
      // The label is asked for beside the call, and not at all under a key that is being deleted.
      const where = { chatId, purpose: 'quickgen' }
      while ((await turnmill.services.db.prisma.auxiliaryRun.count({ where })) === 0) await sleep(20)
      await deleteKey()
      turnmill.addAuxiliaryWorker()
      return endOfRun('quickgen')
    },
    advisor: async () => {
      scriptAgents(turnmill.upstream, { hi: [asks(call('ask_advisor', { question: 'What next?' }))] })
      const { chats } = turnmill.services
      const { startCalls } = chats
      // The worker loses the turn between the question and the advisor.
      chats.startCalls = async ({ turnId }) => {
        chats.startCalls = startCalls
        await deleteKey()
        await takeAway(turnmill, turnId)
        throw new TurnmillError('turn_fenced', 'lost')
      }
      await create('hi')
      turnmill.addWorker()
      return endOfTurn()
    },
    compaction: async () => {
      await create('hi')
      const worker = turnmill.addWorker()
      await user.client.ended(chatId, turnId)
      await worker.stop()
      await user.client.request('POST', `/v1/chats/${chatId}/compact`)
      await deleteKey()
      turnmill.addWorker()
      return endOfTurn()
    },
    subagent_general: orphan('general'),
    subagent_explore: orphan('explore'),
    computer_use: orphan('computer_use'),
  }

  test.each(PURPOSES)('%s makes no call and ends as missing_key', async (purpose) => {
    await start(SELDOM_RENEWED)
    expect(await STORIES[purpose]()).toBe('missing_key')
    expect(turnmill.upstream.requests.filter((request) => purposeOf(request) === purpose)).toEqual([])
    for (const { headers } of turnmill.upstream.requests)
      expect(headers['x-turnmill-key-id']).toBe(user.apiKeyId)
  })
})

test('a key that is revoked while its turn waits for agents stops them, and no further call is made', async () => {
  const turnmill = await startTurnmill({ environment: { TURNMILL_SUBAGENTS_ENABLED: 'true' } })
  try {
    const user = await turnmill.addUser()
    const reader = await turnmill.addKey(user.userId)
    scriptAgents(turnmill.upstream, {
      manage: [asks(spawn('dig')), asks(call('wait_agent'))],
      dig: [{ type: 'silence', after: 'headers' }],
    })
    const { chat, turn } = await user.client.create('manage')
    const watch = reader.client.watch(chat.id)
    await watch.until((event) => event.type === 'status' && event.status === 'waiting')
    watch.close()
    await turnmill.upstream.waitForRequest(3)
    const request = turnmill.upstream.requests.find((one) => taskOf(one) === 'dig')
    await user.client.request('DELETE', `/v1/api-keys/${user.apiKeyId}`)
    await expect(request?.closed).resolves.toMatchObject({ early: true })
    expect(await reader.client.ended(chat.id, turn.id)).toMatchObject({
      state: 'failed',
      error: { code: 'key_revoked' },
    })
    expect(turnmill.upstream.requests).toHaveLength(3)
  } finally {
    await turnmill.stop()
  }
})
