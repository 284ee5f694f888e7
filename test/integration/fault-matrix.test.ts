/** Every await that matters × {kill, throw}: whatever dies where, nothing acknowledged is lost and nothing committed twice. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { query, statement } from '../../src/db/index.ts'
import { newId } from '../../src/protocol/ids.ts'
import type { Fault } from '../support/fault-points.ts'
import type { Behaviour, UpstreamRequest } from '../support/fake-upstream.ts'
import { BACKENDS, startTurnmill, testEnvironment, type BackendKind, type TestUser, type Turnmill } from '../support/turnmill.ts' // prettier-ignore

const transaction = (...names: string[]): string[] =>
  names.flatMap((name) => [`before ${name}`, `executed ${name}`, `committed ${name}`])
const single = (...names: string[]): string[] =>
  names.flatMap((name) => [`before ${name}`, `committed ${name}`])

/** By what the process is doing there. */
const POINTS: Record<string, string[]> = {
  produce: transaction(
    'chats/create',
    'chats/append-queued',
    'chats/insert-message-and-turn',
    'chats/supersede-turn',
    'chats/stop-running',
    'chats/retry',
  ),
  enqueue: ['before enqueue', 'after enqueue'],
  claim: single('chats/claim', 'chats/read-context'),
  call: ['before call', 'after headers', 'amid body', 'after body'],
  books: single('gateway/authorise', 'gateway/open', 'gateway/settle'),
  stream: ['before append', 'after append'],
  commit: transaction(
    'chats/finish',
    'chats/finish-interrupt',
    'chats/fail',
    'chats/note-retry',
    'chats/backoff',
  ),
  promote: transaction('chats/promote-head'),
  renew: single('chats/renew'),
  reconcile: [
    ...single('reconcile/admit', 'reconcile/suspects', 'reconcile/enqueue-anew', 'subagents/rested-parents'),
    'before findLost',
    'after findLost',
  ],
}

const ALL = Object.values(POINTS).flat()

interface Faulty {
  address: string
  /** Resolves when the process has ended. */
  exited: Promise<unknown>
  struck(): boolean
  child: ChildProcess
}

async function startFaulty(environment: Record<string, string>, fault: Fault | null): Promise<Faulty> {
  const faults = fault === null ? {} : { FAULT_POINT: fault.point, FAULT_ACTION: fault.action }
  const entry = path.resolve(import.meta.dirname, '../support/faulty-process.ts')
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', entry], {
    env: { PATH: process.env['PATH'] ?? '', ...environment, ...faults },
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  })
  let struck = false
  // Its last words are read by then.
  const exited = once(child, 'close')
  const address = await new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', (line) => {
      const said = JSON.parse(line) as { address?: string; struck?: string }
      if (said.struck !== undefined) struck = true
      if (said.address !== undefined) resolve(said.address)
    })
    // One that dies before it listens is started anew by whoever watches over it.
    void exited.then(() => (struck ? resolve('') : reject(new Error('the process ended before it listened'))))
  })
  return { address, exited, struck: () => struck, child }
}

/** A process that is started anew whenever it dies, as a supervisor does, and clients that ask until they are answered. */
class Supervised {
  readonly #environment: Record<string, string>
  #process!: Faulty
  #stopped = false
  #struck = false
  deaths = 0

  constructor(environment: Record<string, string>) {
    this.#environment = environment
  }

  async start(fault: Fault | null): Promise<void> {
    this.#process = await startFaulty(this.#environment, fault)
    void this.#process.exited.then(() => this.#restart())
  }

  async #restart(): Promise<void> {
    this.#struck ||= this.#process.struck()
    if (this.#stopped) return
    this.deaths += 1
    await this.start(null)
  }

  get struck(): boolean {
    return this.#struck || this.#process.struck()
  }

  /** Sends until there is an answer that says something; the key makes that safe. */
  async request<T>(user: TestUser, method: string, route: string, body?: unknown): Promise<T> {
    const headers = {
      authorization: `Bearer ${user.token}`,
      'content-type': 'application/json',
      ...(method === 'GET' ? {} : { 'idempotency-key': newId() }),
    }
    for (;;) {
      try {
        const response = await fetch(this.#process.address + route, {
          method,
          headers,
          ...(body === undefined ? {} : { body: JSON.stringify(body) }),
          signal: AbortSignal.timeout(5000),
        })
        const answer = (await response.json()) as T
        if (response.status < 500) return answer
      } catch {
        // It died, or is about to be started anew.
      }
      await sleep(40)
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#process.child.kill('SIGTERM')
    await this.#process.exited
  }
}

/** What the provider does, by what it is asked. */
function behave(request: UpstreamRequest, earlier: number): Behaviour {
  const { text } = request
  if (text.startsWith('held')) return { type: 'answer', text: `echo: ${text}`, ending: 'silence' }
  if (text.startsWith('busy') && earlier === 0) return { type: 'status', status: 503 }
  if (text.startsWith('later') && earlier === 0) return { type: 'status', status: 429, headers: { 'retry-after': '1' } } // prettier-ignore
  if (text.startsWith('refused') && earlier === 0) return { type: 'status', status: 400 }
  return { type: 'answer', text: `echo: ${text}`, delayMs: 15 }
}

interface Started {
  chat: { id: string }
  message: { id: string }
  turn: { id: string }
}

/** Ways that pass through all the points, at once. */
async function play(process: Supervised, user: TestUser): Promise<void> {
  const post = <T>(route: string, body?: unknown) => process.request<T>(user, 'POST', route, body)
  const create = (content: string) => post<Started>('/v1/chats', { content })
  const send = (chatId: string, content: string) => post(`/v1/chats/${chatId}/messages`, { content })
  const until = async (chatId: string, ...statuses: string[]): Promise<void> => {
    for (;;) {
      const chat = await process.request<{ status: string }>(user, 'GET', `/v1/chats/${chatId}`)
      if (statuses.includes(chat.status)) return
      await sleep(30)
    }
  }
  const stories = {
    queue: async () => {
      const { chat } = await create('plain')
      await send(chat.id, 'plain, queued')
      await until(chat.id, 'idle')
      await send(chat.id, 'plain, to an idle chat')
      await until(chat.id, 'idle')
    },
    stop: async () => {
      const { chat } = await create('held')
      await send(chat.id, 'after the stop')
      await until(chat.id, 'running', 'idle')
      await post(`/v1/chats/${chat.id}/interrupt`)
      await until(chat.id, 'idle')
    },
    edit: async () => {
      const { chat, message } = await create('held until edited')
      await until(chat.id, 'running')
      const edit = `/v1/chats/${chat.id}/messages/${message.id}`
      await process.request(user, 'PATCH', edit, { content: 'edited' })
      await until(chat.id, 'idle')
    },
    retries: async () => {
      const [busy, later] = [await create('busy'), await create('later')]
      await until(busy.chat.id, 'idle')
      await until(later.chat.id, 'idle')
    },
    failure: async () => {
      const { chat } = await create('refused')
      // A worker that dies before it has said so leaves the turn to one whose call is not refused any more.
      await until(chat.id, 'failed', 'idle')
      await post(`/v1/chats/${chat.id}/retry`)
      await until(chat.id, 'idle')
    },
  }
  await Promise.all(Object.values(stories).map((story) => story()))
}

const leftOvers = statement(
  'test/left-overs',
  `select 'active turn' as what, id::text from turns where state in ('pending', 'running', 'interrupting', 'requires_action', 'waiting')
  union all select 'queued message', id::text from queued_messages where state = 'queued'
  union all select 'chat that is not at rest', id::text from chats where status <> 'idle' or active_turn_id is not null
  union all select 'answer beside another one', min(id)::text from messages where role = 'assistant' and deleted_at is null
    group by turn_id having count(*) > 1
  union all select 'turn that completed without its answer', t.id::text from turns t where t.state = 'completed'
    and not exists (select 1 from messages m where m.turn_id = t.id and m.role = 'assistant')
  union all select 'message without a turn', m.id::text from messages m where m.role = 'user' and m.deleted_at is null
    and not exists (select 1 from turns t where t.user_message_id = m.id and t.state in ('completed', 'interrupted'))`,
)

const transcripts = statement(
  'test/transcripts',
  `select string_agg(case role when 'user' then '> ' else '' end || (parts->0->>'text'), ' | ' order by id) as said
  from messages where deleted_at is null group by chat_id order by 1`,
)

/** What the chats hold in the end, whatever happened on the way; the held one may have been cut anywhere. */
const EXPECTED = [
  '> busy | echo: busy',
  '> edited | echo: edited',
  '> later | echo: later',
  '> plain | echo: plain | > plain, queued | echo: plain, queued | > plain, to an idle chat | echo: plain, to an idle chat',
  '> refused | echo: refused',
]

async function demandInvariants(turnmill: Turnmill): Promise<void> {
  const { db } = turnmill.services
  expect(await query(db, leftOvers())).toEqual([])
  const said = (await query<{ said: string }>(db, transcripts())).map((row) => row.said)
  const stopped = said.filter((one) => one.startsWith('> held'))
  expect(said.filter((one) => !one.startsWith('> held'))).toEqual(EXPECTED)
  expect(stopped).toHaveLength(1)
  expect(stopped[0]).toMatch(
    /^> held( \| echo: held| \| echo:.*)? \| > after the stop \| echo: after the stop$/,
  )
  for (const request of turnmill.upstream.requests) {
    const turn = await db.prisma.turn.findUniqueOrThrow({
      where: { id: String(request.headers['x-turnmill-turn-id']) },
    })
    expect(request.headers['x-turnmill-key-id']).toBe(turn.apiKeyId)
  }
}

/** Everything in a database and under a prefix of its own, so that several may run beside each other. */
async function runCase(backend: BackendKind, fault: Fault): Promise<void> {
  const ground = await startTurnmill({ backend, workers: 0 })
  const { config } = ground
  const seen = new Map<string, number>()
  ground.upstream.script((request) => {
    const earlier = seen.get(request.text) ?? 0
    seen.set(request.text, earlier + 1)
    return behave(request, earlier)
  })
  const environment = {
    ...testEnvironment(config.databaseUrl ?? '', { backend }),
    ...(config.redisUrl === null ? {} : { TURNMILL_QUEUE_PREFIX: config.queuePrefix }),
    TURNMILL_BACKOFF_ABOVE_MS: '500',
    // Five of these run at a time: a process that is only slow is to keep its turns, or the point is never reached.
    TURNMILL_LEASE_MS: '3000',
    TURNMILL_RUNNING_ROOT_TURNS: '20',
    TURNMILL_SILENCE_TIMEOUT_MS: '60000',
  }
  const supervised = new Supervised(environment)
  try {
    const user = await ground.addUser()
    await supervised.start(fault)
    await play(supervised, user)
    expect({ ...fault, struck: supervised.struck }).toEqual({ ...fault, struck: true })
    expect(supervised.deaths).toBe(fault.action === 'kill' ? 1 : 0)
    await demandInvariants(ground)
  } finally {
    await supervised.stop()
    await ground.stop()
  }
}

/** Where the backends differ; all points on both take eight minutes: `FULL_MATRIX=1 npm test -- fault-matrix`. */
const ON_POSTGRES = ['enqueue', 'claim', 'stream', 'reconcile']

const pointsOn = (backend: BackendKind): [doing: string, points: string[]][] =>
  Object.entries(POINTS).filter(
    ([doing]) => backend === 'redis' || process.env['FULL_MATRIX'] === '1' || ON_POSTGRES.includes(doing),
  )

describe.each(BACKENDS)('on the %s backend', (backend) => {
  for (const [doing, points] of pointsOn(backend))
    describe(doing, () => {
      test.concurrent.each(
        points.flatMap((point) => (['kill', 'throw'] as const).map((action) => ({ point, action }))),
      )(
        // prettier-ignore
        '$point: $action',
        (fault) => runCase(backend, fault),
        120_000,
      )
    })
})

test('there are points enough', () => {
  process.stdout.write(
    `${ALL.length} points × {kill, throw}:\n${ALL.map((point) => `  ${point}\n`).join('')}`,
  )
  expect(new Set(ALL).size).toBe(ALL.length)
  expect(ALL.length).toBeGreaterThanOrEqual(20)
})
