/** What happens to chats while a process dies or fails, and what they hold in the end, whatever happened on the way. */
import { setTimeout as sleep } from 'node:timers/promises'
import { query, statement } from '../../src/db/index.ts'
import type { JobQueue } from '../../src/queue/backend.ts'
import type { TurnJob } from '../../src/queue/index.ts'
import { asks, call, see, spawn, type Act } from './agents.ts'
import { hold, type Behaviour, type Gate, type UpstreamRequest } from './fake-upstream.ts'
import type { Supervised } from './supervised.ts'
import type { TestUser, Turnmill } from './turnmill.ts'

interface Started {
  chat: { id: string }
  message: { id: string }
  turn: { id: string }
}

/** $1 user. */
const statuses = statement('test/statuses', 'select id, status from chats where user_id = $1')

const LOOK_MS = 40

/** Where the scenes of one case are played: a user of its own, on a process that may die. */
export class Stage {
  readonly #process: Supervised
  readonly #ground: Turnmill
  readonly #user: TestUser
  /** Holds the answers of children until their parents wait for them. */
  readonly parentWaits: Gate = hold()
  readonly jobs: JobQueue<TurnJob>
  readonly #asked = new Map<string, number>()
  #looking: Promise<ReadonlyMap<string, string>> | null = null

  constructor(ground: { process: Supervised; turnmill: Turnmill; jobs: JobQueue<TurnJob>; user: TestUser }) {
    this.#process = ground.process
    this.#ground = ground.turnmill
    this.#user = ground.user
    this.jobs = ground.jobs
    ground.turnmill.upstream.reset()
    ground.turnmill.upstream.script((request) => this.#answer(request))
  }

  #answer(request: UpstreamRequest): Behaviour {
    const earlier = this.#asked.get(request.text) ?? 0
    this.#asked.set(request.text, earlier + 1)
    return behave(request, earlier, this.parentWaits)
  }

  request<T>(method: string, route: string, body?: unknown): Promise<T> {
    return this.#process.request(this.#user.token, method, route, body)
  }

  post<T>(route: string, body?: unknown): Promise<T> {
    return this.request('POST', route, body)
  }

  /** Has the chat's worker drained, as in a deployment. */
  drain(): Promise<void> {
    return this.#process.drain()
  }

  async create(content: string, fields: object = {}): Promise<{ chatId: string; messageId: string }> {
    const { chat, message } = await this.post<Started>('/v1/chats', { content, ...fields })
    return { chatId: chat.id, messageId: message.id }
  }

  send<T>(chatId: string, content: string): Promise<T> {
    return this.post(`/v1/chats/${chatId}/messages`, { content })
  }

  /** Asks Postgres, since whoever else would tell may be dead: once for all who wait. */
  #look(): Promise<ReadonlyMap<string, string>> {
    this.#looking ??= sleep(LOOK_MS).then(async () => {
      // Whoever asks from here on is not told what was so before.
      this.#looking = null
      const rows = await query<{ id: string; status: string }>(
        this.#ground.services.db,
        statuses(this.#user.userId),
      )
      return new Map(rows.map(({ id, status }) => [id, status]))
    })
    return this.#looking
  }

  /** Resolves with the first of these statuses that the chat is found in. */
  async until(chatId: string, ...wanted: string[]): Promise<string> {
    for (;;) {
      const status = (await this.#look()).get(chatId)
      if (status !== undefined && wanted.includes(status)) return status
    }
  }

  /** The chat comes to rest, and takes its next message. */
  async goOn(chatId: string, content: string): Promise<void> {
    await this.until(chatId, 'idle')
    await this.send(chatId, content)
    await this.until(chatId, 'idle')
  }

  /** An operator retries the failed job of a turn, until the chat is at rest. */
  async retryJobs(chatId: string): Promise<void> {
    const { turn } = this.#ground.services.db.prisma
    while ((await this.until(chatId, 'failed', 'idle')) === 'failed') {
      const { jobId } = await turn.findFirstOrThrow({ where: { chatId } })
      const job = await this.jobs.getJob(jobId ?? '')
      // The job fails after its turn, and is the turn's until it has run again.
      if ((await job?.getState()) === 'failed') await job?.retry()
    }
  }
}

const echo = (text: string): Behaviour => ({ type: 'answer', text: `echo: ${text}`, delayMs: 15 })

/** The same call of a turn has the same ID, however often the model is asked for it. */
const named = (id: string, name: string, input: unknown = {}) => ({ ...call(name, input), id })

/** What the provider does, by what it is asked. */
function behave(request: UpstreamRequest, earlier: number, parentWaits: Gate): Behaviour {
  const { text } = request
  const purpose = String(request.headers['x-turnmill-purpose'])
  if (purpose === 'compaction') return { type: 'answer', text: 'in short' }
  if (purpose === 'advisor') return { type: 'answer', text: 'Look twice.' }
  if (text.startsWith('held')) return { type: 'answer', text: `echo: ${text}`, ending: 'silence' }
  if (text === 'child') return { type: 'answer', text: 'echo: child', gate: parentWaits, gateAt: 1 }
  if (earlier === 0 && FIRST[text] !== undefined) return FIRST[text]
  // By what is committed, so that a step that was lost is asked for again.
  const seen = see(request)
  const act = CALLS[text]?.[seen.results.length] ?? echo(text)
  return typeof act === 'function' ? act(seen) : act
}

/** What a text is answered with once. */
const FIRST: Readonly<Record<string, Behaviour>> = {
  busy: { type: 'status', status: 503 },
  later: { type: 'status', status: 429, headers: { 'retry-after': '1' } },
  refused: { type: 'status', status: 400 },
  reopened: { type: 'status', status: 400 },
  drained: { type: 'answer', text: 'cut', ending: 'silence' },
}

const LOCATE = asks(named('where', 'locate'))

/** What a text makes the model call, by the number of results that there are. */
const CALLS: Readonly<Record<string, Readonly<Record<number, Act>>>> = {
  tools: { 0: asks(named('pay', 'charge'), named('look', 'lookup')), 2: asks(named('pay-again', 'charge')) },
  advised: { 0: asks(named('advice', 'ask_advisor', { question: 'What now?' })) },
  asked: { 0: LOCATE },
  unanswered: { 0: LOCATE },
  stopped: { 0: asks(named('pay', 'charge'), named('where', 'locate')) },
  parent: { 0: asks({ ...spawn('child'), id: 'spawn' }), 1: asks(named('wait', 'wait_agent')) },
  leader: {
    0: asks({ ...spawn('errand'), id: 'spawn' }),
    1: asks(named('wait', 'wait_agent')),
    2: ({ agents }) => asks(named('more', 'message_agent', { agentId: agents[0], message: 'one more' })),
    3: asks(named('wait-again', 'wait_agent')),
  },
}

const CLIENT_TOOLS = { clientTools: [{ name: 'locate', description: 'Where the user is.' }] }

export interface Scene {
  play(stage: Stage): Promise<void>
  /** What its chats say in the end; those of one that is held may have been cut anywhere. */
  leaves: readonly (string | RegExp)[]
}

/** A user and a model without tools. */
const TALK = {
  queue: {
    play: async (stage) => {
      const { chatId } = await stage.create('plain')
      await stage.send(chatId, 'plain, queued')
      await stage.goOn(chatId, 'plain, to an idle chat')
    },
    leaves: [
      '> plain | echo: plain | > plain, queued | echo: plain, queued | > plain, to an idle chat | echo: plain, to an idle chat',
    ],
  },
  stop: {
    play: async (stage) => {
      const { chatId } = await stage.create('held')
      await stage.send(chatId, 'after the stop')
      await stage.until(chatId, 'running', 'idle')
      await stage.post(`/v1/chats/${chatId}/interrupt`)
      await stage.until(chatId, 'idle')
    },
    leaves: [/^> held( \| echo:.*)? \| > after the stop \| echo: after the stop$/],
  },
  edit: {
    play: async (stage) => {
      const { chatId, messageId } = await stage.create('held until edited')
      await stage.until(chatId, 'running')
      await stage.request('PATCH', `/v1/chats/${chatId}/messages/${messageId}`, { content: 'edited' })
      await stage.until(chatId, 'idle')
    },
    leaves: ['> edited | echo: edited'],
  },
  retries: {
    play: async (stage) => {
      const [busy, later] = [await stage.create('busy'), await stage.create('later')]
      await stage.until(busy.chatId, 'idle')
      await stage.until(later.chatId, 'idle')
    },
    leaves: ['> busy | echo: busy', '> later | echo: later'],
  },
  failure: {
    play: async (stage) => {
      const { chatId } = await stage.create('refused')
      // A worker that dies before it has said so leaves the turn to one whose call is not refused any more.
      await stage.until(chatId, 'failed', 'idle')
      await stage.post(`/v1/chats/${chatId}/retry`)
      await stage.until(chatId, 'idle')
    },
    leaves: ['> refused | echo: refused'],
  },
} satisfies Record<string, Scene>

const said = (...texts: string[]): string => texts.map((text) => `> ${text} | echo: ${text}`).join(' | ')

const tools: Scene = {
  play: async (stage) => stage.goOn((await stage.create('tools')).chatId, 'after the tools'),
  leaves: [said('tools', 'after the tools')],
}

const advisor: Scene = {
  play: async (stage) => stage.goOn((await stage.create('advised')).chatId, 'after the advice'),
  leaves: [said('advised', 'after the advice')],
}

const answers: Scene = {
  play: async (stage) => {
    const { chatId } = await stage.create('asked', CLIENT_TOOLS)
    await stage.until(chatId, 'requires_action')
    await stage.post(`/v1/chats/${chatId}/tool-results`, {
      results: [{ toolCallId: 'where', output: 'here' }],
    })
    await stage.goOn(chatId, 'after the answer')
  },
  leaves: [said('asked', 'after the answer')],
}

const silence: Scene = {
  play: async (stage) => {
    const { chatId } = await stage.create('unanswered', CLIENT_TOOLS)
    await stage.until(chatId, 'requires_action')
    await stage.goOn(chatId, 'after the silence')
  },
  leaves: [said('unanswered', 'after the silence')],
}

const stopWhileAsked: Scene = {
  play: async (stage) => {
    const { chatId } = await stage.create('stopped', CLIENT_TOOLS)
    await stage.until(chatId, 'requires_action')
    await stage.post(`/v1/chats/${chatId}/interrupt`)
    await stage.goOn(chatId, 'after the question')
  },
  // Where the stop comes so late that nobody waits for its answer any more, the turn has gone on.
  leaves: [/^> stopped( \| echo: stopped)? \| > after the question \| echo: after the question$/],
}

const family: Scene = {
  play: async (stage) => {
    const { chatId } = await stage.create('parent')
    await stage.until(chatId, 'waiting')
    stage.parentWaits.release()
    await stage.goOn(chatId, 'after the child')
  },
  leaves: [said('child'), said('parent', 'after the child')],
}

const steering: Scene = {
  play: async (stage) => stage.goOn((await stage.create('leader')).chatId, 'after the errands'),
  // A message that was cut off on its way is not sent again: the model is told that its outcome is unknown.
  leaves: [
    /^> errand \| echo: errand( \| > one more \| echo: one more)?$/,
    said('leader', 'after the errands'),
  ],
}

const compaction: Scene = {
  play: async (stage) => {
    const { chatId } = await stage.create('long')
    await stage.until(chatId, 'idle')
    await stage.post(`/v1/chats/${chatId}/compact`)
    await stage.goOn(chatId, 'after the summary')
  },
  leaves: [
    '> long | echo: long | Summary of the conversation so far:\n\nin short | > after the summary | echo: after the summary',
  ],
}

const drain: Scene = {
  play: async (stage) => {
    const { chatId } = await stage.create('drained')
    await stage.until(chatId, 'running')
    await stage.drain()
    await stage.goOn(chatId, 'after the drain')
  },
  leaves: [said('drained', 'after the drain')],
}

const reopening: Scene = {
  play: async (stage) => {
    const { chatId } = await stage.create('reopened')
    await stage.until(chatId, 'failed')
    await stage.retryJobs(chatId)
    await stage.goOn(chatId, 'after the retry')
  },
  leaves: [said('reopened', 'after the retry')],
}

const management: Scene = {
  play: async (stage) => {
    const [{ chatId }, other] = [await stage.create('managed'), await stage.create('deleted')]
    const route = `/v1/chats/${chatId}`
    await stage.until(chatId, 'idle')
    await stage.request('PATCH', route, { title: 'A title', archived: true })
    expect(await stage.request('GET', route)).toMatchObject({
      title: 'A title',
      archivedAt: expect.anything(),
    })
    await stage.request('PATCH', route, { archived: false })
    await stage.post(`${route}/clear`)
    await stage.goOn(chatId, 'after the clearing')
    await stage.until(other.chatId, 'idle')
    await stage.request('DELETE', `/v1/chats/${other.chatId}`)
  },
  leaves: [said('managed', 'after the clearing')],
}

const queueing: Scene = {
  play: async (stage) => {
    const { chatId } = await stage.create('held, commanded')
    await stage.until(chatId, 'running')
    const queued = async (content: string): Promise<string> => {
      const { queuedMessage } = await stage.send<{ queuedMessage: { id: string } }>(chatId, content)
      return `/v1/chats/${chatId}/queue/${queuedMessage.id}`
    }
    const [edited, deleted, moved] = [await queued('one'), await queued('two'), await queued('three')]
    await stage.request('PATCH', edited, { content: 'one, edited' })
    await stage.request('PATCH', moved, { position: 0 })
    await stage.request('DELETE', deleted)
    await stage.until(chatId, 'running')
    await stage.post(`/v1/chats/${chatId}/interrupt`)
    await stage.until(chatId, 'idle')
  },
  leaves: [
    /^> held, commanded( \| echo:.*)? \| > three \| echo: three \| > one, edited \| echo: one, edited$/,
  ],
}

export const SCENES = {
  ...TALK,
  tools,
  advisor,
  answers,
  stopWhileAsked,
  silence,
  family,
  steering,
  compaction,
  drain,
  reopening,
  management,
  queueing,
} satisfies Record<string, Scene>

export type SceneName = keyof typeof SCENES

/** Whether its models are given no tools, which each claim pays for. */
export const isTalk = (name: SceneName): boolean => name in TALK
