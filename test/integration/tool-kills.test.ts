/**
 * Workers that are killed at every point between a tool call and its result: the turn ends, a tool that is not idempotent
 * has run once at most, the model was told what became of it, and the chat takes its next message.
 */
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createModelConfig, createProvider } from '../../src/models/index.ts'
import { query, statement } from '../../src/db/index.ts'
import { Secret } from '../../src/protocol/secret.ts'
import { lockChat, type ChatLock } from '../support/chat-lock.ts'
import type { Started } from '../support/client.ts'
import { hold, type Behaviour, type Gate, type UpstreamRequest } from '../support/fake-upstream.ts'
import { startProcess, type Process } from '../support/process.ts'
import { toolsIn } from '../support/sent-tools.ts'
import { call } from '../support/tool-bench.ts'
import {
  BACKENDS,
  CENTRAL_KEY,
  startTurnmill,
  testEnvironment,
  type BackendKind,
  type TestUser,
  type Turnmill,
} from '../support/turnmill.ts'

/** Where a turn is when its worker is killed. */
const STAGES = [
  'the answer that asks for the tool is under way',
  'the step is about to be committed',
  'the step was committed just now',
  'the tool is asked',
  'the tool is asked, and another one has answered',
  'the tool answers at this moment',
  'the tool answers at this moment, after another one',
  'the result is about to be kept',
  'all results are about to be committed',
  'the results were committed just now',
  'the last answer is about to be committed',
  'the last answer ends at this moment',
] as const
type Stage = (typeof STAGES)[number]

const FORMATS = ['anthropic-messages', 'openai-responses'] as const

/** Of a worker, each time with two turns at each stage. */
const KILLS = 5

const TURNS = KILLS * STAGES.length * FORMATS.length

/** One turn, and what holds it at its stage. */
interface Story {
  /** In the message, so that provider and tool know it again. */
  name: string
  stage: Stage
  /** Whether it calls another tool beside the one that counts. */
  pair: boolean
  format: (typeof FORMATS)[number]
  chatId: string
  turnId: string
  /** The answer with the calls, the answer of the tool, and the last answer. */
  answer: Gate
  tool: Gate
  last: Gate
  /** Resolve once the provider or the tool was asked. */
  asked: { answer: Gate; tool: Gate; last: Gate }
  locks: ChatLock[]
}

/** Counts calls, and holds them where their story says so. */
class ToolServer {
  readonly #server: Server
  readonly #runs = new Map<string, number>()
  readonly stories = new Map<string, Story>()

  constructor() {
    this.#server = createServer((request, response) => {
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.on('end', () => void this.#serve(Buffer.concat(chunks).toString(), response))
    })
  }

  async start(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve))
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  async #serve(body: string, response: ServerResponse): Promise<void> {
    const { tool, turnId } = JSON.parse(body) as { tool: string; turnId: string }
    const key = `${turnId} ${tool}`
    this.#runs.set(key, this.runs(turnId, tool) + 1)
    const story = this.stories.get(turnId)
    if (tool === 'charge') {
      story?.asked.tool.release()
      await story?.tool.opened
    }
    response.end(JSON.stringify(`${tool} done`))
  }

  runs(turnId: string, tool: string): number {
    return this.#runs.get(`${turnId} ${tool}`) ?? 0
  }

  stop(): void {
    this.#server.closeAllConnections()
    this.#server.close()
  }
}

/** Bounds a wait, so that what did not come is named. */
async function inTime(work: Promise<void>, what: string): Promise<void> {
  const late = new AbortController()
  const overdue = sleep(30_000, undefined, { signal: late.signal }).then(() => {
    throw new Error(`it took over 30 s to bring ${what}`)
  })
  overdue.catch(() => undefined)
  await Promise.race([work, overdue])
  late.abort()
}

/** The ground for one backend: an API, a database, a provider for each format, tools, and workers to kill. */
class Battlefield {
  readonly turnmill: Turnmill
  readonly user: TestUser
  readonly tools: ToolServer
  readonly stories = new Map<string, Story>()
  readonly #environment: Record<string, string>
  readonly #openaiConfigId: string
  #worker!: Process

  constructor(ground: {
    turnmill: Turnmill
    user: TestUser
    tools: ToolServer
    environment: Record<string, string>
    openaiConfigId: string
  }) {
    this.turnmill = ground.turnmill
    this.user = ground.user
    this.tools = ground.tools
    this.#environment = ground.environment
    this.#openaiConfigId = ground.openaiConfigId
    this.turnmill.upstream.script((request) => this.#answer(request))
  }

  #answer(request: UpstreamRequest): Behaviour {
    const story = this.stories.get(/story-\d+-\d+/.exec(JSON.stringify(request.body))?.[0] ?? '')
    if (story === undefined || request.text === 'next') return { type: 'answer' }
    if (toolsIn(request).endsWithResults) {
      story.asked.last.release()
      return { type: 'answer', text: 'All done.', gate: story.last, gateAt: 99 }
    }
    story.asked.answer.release()
    const calls = [call('a', 'charge'), ...(story.pair ? [call('b', 'lookup')] : [])]
    return { type: 'answer', toolCalls: calls, gate: story.answer, gateAt: 0 }
  }

  async startWorker(): Promise<Process> {
    const worker = startProcess('workers/turns.ts', this.#environment)
    await worker.said('working')
    return worker
  }

  async start(): Promise<void> {
    this.#worker = await this.startWorker()
  }

  /** Brings a turn over each format to each stage, and kills the worker that has them all. */
  async kill(wave: number): Promise<void> {
    const stories = await Promise.all(
      FORMATS.flatMap((format) => STAGES.map((stage) => this.#begin(wave, stage, format))),
    )
    await Promise.all(stories.map((story) => story.asked.answer.opened))
    // All are taken: the successor gets none of them while the worker lives.
    const successor = this.startWorker()
    await Promise.all(
      stories.map((story) => inTime(this.#bring(story), `${story.name} to where ${story.stage}`)),
    )
    const next = await successor
    for (const story of stories) {
      if (story.stage.startsWith('the tool answers')) story.tool.release()
      if (story.stage === 'the last answer ends at this moment') story.last.release()
    }
    await this.#worker.stop('SIGKILL')
    this.#worker = next
    // What a dead process has sent is carried out all the same, or is not.
    for (const lock of stories.flatMap(({ locks }) => locks)) {
      if (wave % 4 < 2) await lock.endWaiters()
      await lock.release()
    }
    for (const story of stories) for (const gate of [story.answer, story.tool, story.last]) gate.release()
  }

  async #begin(wave: number, stage: Stage, format: Story['format']): Promise<Story> {
    const alone = stage === 'all results are about to be committed'
    const together = stage.includes('another one') || stage === 'the result is about to be kept'
    const story: Story = {
      name: `story-${wave}-${this.stories.size}`, stage, format, pair: together || (!alone && wave % 2 === 0), chatId: '', turnId: '',
      answer: hold(), tool: hold(), last: hold(), asked: { answer: hold(), tool: hold(), last: hold() }, locks: [],
    } // prettier-ignore
    this.stories.set(story.name, story)
    const { status, body } = await this.user.client.request<Started & { chat: { id: string } }>(
      'POST',
      '/v1/chats',
      {
        content: story.name,
        ...(format === 'openai-responses' && { modelConfigId: this.#openaiConfigId }),
      },
    )
    if (status !== 201) throw new Error(`no chat was made: ${JSON.stringify(body)}`)
    story.chatId = body.chat.id
    story.turnId = body.turn.id
    this.tools.stories.set(story.turnId, story)
    return story
  }

  async #lock(story: Story): Promise<ChatLock> {
    const lock = await lockChat(this.turnmill.config.databaseUrl ?? '', story.chatId)
    story.locks.push(lock)
    return lock
  }

  /** Lets a turn go on up to its stage. */
  async #bring(story: Story): Promise<void> {
    const { stage, asked, answer, tool, last } = story
    switch (stage) {
      case 'the answer that asks for the tool is under way':
        return
      case 'the step is about to be committed':
        return this.#stopBeforeWrite(story, answer)
      case 'the step was committed just now': {
        const first = await this.#lock(story)
        await first.granted
        answer.release()
        await first.waitedFor()
        // In line behind the worker: granted right after its commit, and nearly always before its next write. Where the
        // worker is faster, the tool's answer brings another write.
        tool.release()
        const second = await this.#lock(story)
        await second.queued()
        await first.release()
        story.locks.shift()
        await second.granted
        return second.waitedFor()
      }
      case 'the tool is asked':
      case 'the tool answers at this moment':
        answer.release()
        return asked.tool.opened.then(() => undefined)
      case 'the tool is asked, and another one has answered':
      case 'the tool answers at this moment, after another one':
        answer.release()
        await asked.tool.opened
        return this.#kept(story)
      case 'the result is about to be kept':
      case 'all results are about to be committed':
        answer.release()
        await asked.tool.opened
        if (story.pair) await this.#kept(story)
        return this.#stopBeforeWrite(story, tool)
      case 'the results were committed just now':
      case 'the last answer ends at this moment':
      case 'the last answer is about to be committed':
        answer.release()
        tool.release()
        await asked.last.opened
        if (stage === 'the last answer is about to be committed') await this.#stopBeforeWrite(story, last)
    }
  }

  /** Lets go, and holds the write that follows. */
  async #stopBeforeWrite(story: Story, gate: Gate): Promise<void> {
    const lock = await this.#lock(story)
    await lock.granted
    gate.release()
    await lock.waitedFor()
  }

  /** Resolves once what the other tool answered is in the ledger. */
  async #kept({ turnId }: Story): Promise<void> {
    const { toolCall } = this.turnmill.services.db.prisma
    while ((await toolCall.count({ where: { turnId, callId: 'b', state: 'done' } })) === 0) await sleep(10)
  }

  /** Every chat takes its next message, once its turn has ended. */
  async finish(): Promise<void> {
    await Promise.all(
      [...this.stories.values()].map(async ({ chatId }) => {
        await this.user.client.settled(chatId)
        await this.user.client.send(chatId, 'next')
        await this.user.client.settled(chatId)
      }),
    )
  }

  async stop(): Promise<void> {
    await this.#worker.stop()
    await this.turnmill.stop()
    this.tools.stop()
  }
}

async function openBattlefield(backend: BackendKind): Promise<Battlefield> {
  const settings = {
    // Long enough for a worker beside another one that starts.
    TURNMILL_LEASE_MS: '3000',
    TURNMILL_LEASE_RENEWAL_MS: '900',
    TURNMILL_LOCK_MS: '1000',
    TURNMILL_RUNNING_ROOT_TURNS: '200',
    TURNMILL_PENDING_TURNS: '400',
    TURNMILL_WORKER_CONCURRENCY: '60',
    // A write that a test holds holds a connection.
    TURNMILL_DATABASE_POOL_SIZE: '30',
  }
  const turnmill = await startTurnmill({
    backend,
    wireFormat: 'anthropic-messages',
    workers: 0,
    environment: settings,
  })
  const { config, services, upstream } = turnmill
  const tools = new ToolServer()
  const provider = await createProvider(services.db, services.encryption, {
    name: 'second', type: 'openai', baseUrl: upstream.baseUrl('openai-responses'), enabled: true, allowByok: false,
    attribution: true, keys: [new Secret(CENTRAL_KEY)],
  }) // prettier-ignore
  const { id: openaiConfigId } = await createModelConfig(services.db, {
    providerId: provider.id, model: 'fake-2', displayName: 'Fake', enabled: true, isDefault: false, contextWindow: null,
    maxOutputTokens: null, options: {}, prices: { input: null, output: null, cacheRead: null, cacheWrite: null },
  }) // prettier-ignore
  const environment = {
    ...testEnvironment(config.databaseUrl ?? '', { backend, environment: settings }),
    ...(config.redisUrl === null ? {} : { TURNMILL_QUEUE_PREFIX: config.queuePrefix }),
    TURNMILL_TOOLS_MODULE: path.resolve('test/fixtures/counting-tool.ts'),
    TOOL_SERVER_URL: await tools.start(),
  }
  const field = new Battlefield({
    turnmill,
    user: await turnmill.addUser(),
    tools,
    environment,
    openaiConfigId,
  })
  await field.start()
  return field
}

const leftOvers = statement(
  'test/open-calls',
  `select 'open call' as what, c.id::text from tool_calls c where c.state not in ('done', 'denied', 'unknown')
  union all select 'turn that has not completed', id::text from turns where state <> 'completed'
  union all select 'call without a result', m.id::text from messages m where m.role = 'assistant'
    and m.parts @> '[{"type": "tool-call"}]'
    and (select count(*) from messages r where r.turn_id = m.turn_id and r.step = m.step and r.role = 'tool') <> 1`,
)

const UNKNOWN = /^The outcome of this call is unknown/

describe.each(BACKENDS)('workers killed around tool calls, on the %s backend', (backend) => {
  let field: Battlefield
  beforeAll(async () => {
    field = await openBattlefield(backend)
    for (let wave = 0; wave < KILLS; wave++) await field.kill(wave)
    await field.finish()
  }, 400_000)
  afterAll(() => field.stop())

  test('a hundred turns were taken from them', async () => {
    const turns = await field.turnmill.services.db.prisma.turn.findMany({ where: { epoch: { gt: 1 } } })
    const kills = turns.reduce((sum, { epoch }) => sum + epoch - 1, 0)
    process.stdout.write(`${kills} kills of ${turns.length} turns on ${backend}\n`)
    expect(kills).toBeGreaterThanOrEqual(100)
  })

  test('every turn and the one after it completed, and no call is open', async () => {
    expect(await query(field.turnmill.services.db, leftOvers())).toEqual([])
    const { turn } = field.turnmill.services.db.prisma
    expect(await turn.count()).toBe(2 * TURNS)
  })

  test.each(STAGES)(
    '%s: a tool that is not idempotent ran once at most, and the model knows',
    async (stage) => {
      for (const story of field.stories.values()) {
        if (story.stage !== stage) continue
        const runs = field.tools.runs(story.turnId, 'charge')
        const told = await whatTheModelWasTold(field, story)
        expect([story.name, runs, story.pair ? told.get('b') : null]).toEqual([
          story.name,
          expect.any(Number),
          story.pair ? 'lookup done' : null,
        ])
        expect([story.name, runs <= 1]).toEqual([story.name, true])
        if (told.get('a') === 'charge done') expect([story.name, runs]).toEqual([story.name, 1])
        else expect(told.get('a')).toMatch(UNKNOWN)
      }
    },
  )
})

/** What the last request of a chat says of the calls of its first turn, which is what is committed of them. */
async function whatTheModelWasTold(field: Battlefield, story: Story): Promise<Map<string, string>> {
  const requests = field.turnmill.upstream.requests.filter(({ body }) =>
    JSON.stringify(body).includes(`${story.name}"`),
  )
  const { results } = toolsIn(requests.at(-1)!)
  const messages = await field.user.client.messages(story.chatId)
  const committed = messages.flatMap(({ parts }) => parts.filter((part) => part.type === 'tool-result'))
  expect(messages.map(({ step, role }) => `${step} ${role}`)).toEqual(['0 user', '1 assistant', '1 tool', '2 assistant', '0 user', '1 assistant']) // prettier-ignore
  expect(results.map(({ id, text }) => [id, text])).toEqual(committed.map(({ toolCallId, output }) => [toolCallId, output])) // prettier-ignore
  return new Map(results.map(({ id, text }) => [id, text]))
}
