/** Q1, Q6: every await that matters × {kill, throw}: whatever dies where, nothing acknowledged is lost and nothing committed twice. */
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { query, statement } from '../../src/db/index.ts'
import type { JobQueue } from '../../src/queue/backend.ts'
import type { TurnJob } from '../../src/queue/index.ts'
import type { Fault } from '../support/fault-points.ts'
import { ALL, EXCEPT, POINTS } from '../support/fault-matrix.ts'
import { isTalk, SCENES, Stage, type SceneName } from '../support/fault-scenes.ts'
import { Supervised } from '../support/supervised.ts'
import { startToolJournal, type ToolJournal } from '../support/tool-journal.ts'
import { BACKENDS, startTurnmill, testEnvironment, type BackendKind, type TestUser, type Turnmill } from '../support/turnmill.ts' // prettier-ignore
import { findWrites } from '../support/written-statements.ts'

const leftOvers = statement(
  'test/left-overs',
  `select 'active turn' as what, id::text from turns where state in ('pending', 'running', 'interrupting', 'requires_action', 'waiting')
  union all select 'queued message', id::text from queued_messages where state = 'queued'
  union all select 'chat that is not at rest', id::text from chats where status <> 'idle' or active_turn_id is not null
  union all select 'answer beside another one', min(id)::text from messages where role = 'assistant' and deleted_at is null
    group by turn_id, step having count(*) > 1
  union all select 'turn that completed without its answer', t.id::text from turns t where t.state = 'completed' and t.trigger <> 'compact'
    and not exists (select 1 from messages m where m.turn_id = t.id and m.role = 'assistant')
  union all select 'message without a turn', m.id::text from messages m where m.role = 'user' and m.deleted_at is null
    and not exists (select 1 from turns t where t.user_message_id = m.id and t.state in ('completed', 'interrupted'))
  union all select 'open call', id::text from tool_calls where state not in ('done', 'denied', 'unknown')
  union all select 'call without its result', c.id::text from tool_calls c where not exists (
    select 1 from messages r, jsonb_array_elements(r.parts) part where r.turn_id = c.turn_id and r.step = c.step and r.role = 'tool'
      and part->>'toolCallId' = c.call_id and part->'output' = c.output)
  union all select 'results beside others', min(id)::text from messages where role = 'tool' group by turn_id, step having count(*) > 1
  union all select 'turn under another key', t.id::text from turns t join chats c on c.id = t.chat_id
    where t.api_key_id not in (select id from api_keys where user_id = c.user_id)`,
)

/** $1 user. */
const transcripts = statement(
  'test/transcripts',
  `select string_agg(case m.role when 'user' then '> ' else '' end || (m.parts->0->>'text'), ' | ' order by m.id) as said
  from messages m join chats c on c.id = m.chat_id where c.user_id = $1 and m.deleted_at is null group by c.id`,
)

/** $1 user. */
const chargesOf = statement(
  'test/charges',
  `select t.id as turn_id, l.call_id, l.state from tool_calls l join turns t on t.id = l.turn_id
  where t.user_id = $1 and l.name = 'charge'`,
)

interface Case extends Fault {
  scenes: readonly SceneName[]
  carries: readonly string[]
}

interface LaneKind {
  backend: BackendKind
  /** Whether its models are given any, which each claim pays for. */
  tools: boolean
}

/** How long the scenes of a case may take, however busy the machine is. */
const LONGEST_MS = 100_000

/** A database, a provider, tools, and a process that is supervised, for one case after the other. */
class Lane {
  readonly kind: LaneKind
  readonly #turnmill: Turnmill
  readonly #journal: ToolJournal
  readonly #process: Supervised
  readonly #jobs: JobQueue<TurnJob>

  private constructor(kind: LaneKind, turnmill: Turnmill, journal: ToolJournal) {
    const { config, services } = turnmill
    this.kind = kind
    this.#turnmill = turnmill
    this.#journal = journal
    this.#jobs = services.backend.queue<TurnJob>('turns')
    this.#process = new Supervised({
      ...testEnvironment(config.databaseUrl ?? '', { backend: kind.backend }),
      ...(config.redisUrl === null ? {} : { TURNMILL_QUEUE_PREFIX: config.queuePrefix }),
      // Each connection of each process plans its statements anew.
      TURNMILL_DATABASE_POOL_SIZE: '5',
      TURNMILL_BACKOFF_ABOVE_MS: '500',
      // Several of these run at a time: a process that is only slow is to keep its turns, or the point is never reached.
      TURNMILL_LEASE_MS: '3000',
      TURNMILL_LOCK_MS: '1000',
      TURNMILL_RUNNING_ROOT_TURNS: '20',
      TURNMILL_SILENCE_TIMEOUT_MS: '60000',
      TURNMILL_DRAIN_MS: '300',
      // The client that answers does so long before.
      TURNMILL_ACTION_DEADLINE_MS: '4000',
      ...(kind.tools && {
        TURNMILL_SUBAGENTS_ENABLED: 'true',
        TURNMILL_ADVISOR_USES: '1',
        TURNMILL_TOOLS_MODULE: path.resolve('test/fixtures/counting-tool.ts'),
        TOOL_SERVER_URL: journal.url,
      }),
    })
  }

  static async open(kind: LaneKind): Promise<Lane> {
    const { backend } = kind
    return new Lane(kind, await startTurnmill({ backend, workers: 0 }), await startToolJournal())
  }

  isOf({ backend, tools }: LaneKind): boolean {
    return this.kind.backend === backend && this.kind.tools === tools
  }

  async run({ scenes, carries, ...fault }: Case): Promise<void> {
    const user = await this.#turnmill.addUser()
    const deaths = this.#process.deaths
    const stage = new Stage({ process: this.#process, turnmill: this.#turnmill, jobs: this.#jobs, user })
    const strike = await this.#process.strike(fault, () => this.#play(scenes, stage))
    expect({ ...fault, struck: strike?.point }).toEqual({ ...fault, struck: fault.point })
    // Before its last statement, a transaction has not sent all that it carries.
    if (!fault.point.startsWith('before'))
      expect(strike?.statements).toEqual(expect.arrayContaining([...carries]))
    expect(this.#process.deaths - deaths).toBe(fault.action === 'kill' ? 1 : 0)
    await this.#demandInvariants(user, scenes)
  }

  /** @throws {Error} with what is left over, where they do not come to an end. */
  async #play(scenes: readonly SceneName[], stage: Stage): Promise<void> {
    const late = new AbortController()
    const overdue = sleep(LONGEST_MS, undefined, { signal: late.signal }).then(async () => {
      const left = await query(this.#turnmill.services.db, leftOvers())
      throw new Error(`the scenes took over ${LONGEST_MS} ms, with ${JSON.stringify(left)}`)
    })
    overdue.catch(() => undefined)
    await Promise.race([Promise.all(scenes.map((name) => SCENES[name].play(stage))), overdue])
    late.abort()
  }

  async #demandInvariants({ userId, apiKeyId }: TestUser, scenes: Case['scenes']): Promise<void> {
    const { db } = this.#turnmill.services
    expect(await query(db, leftOvers())).toEqual([])
    const chats = (await query<{ said: string }>(db, transcripts(userId))).map(({ said }) => said)
    const expected = scenes.flatMap((name): readonly (string | RegExp)[] => SCENES[name].leaves)
    const patterns = expected.map((text): unknown =>
      typeof text === 'string' ? text : expect.stringMatching(text),
    )
    expect(chats).toEqual(expect.arrayContaining(patterns))
    expect(chats).toHaveLength(expected.length)
    for (const { headers } of this.#turnmill.upstream.requests)
      expect(headers['x-turnmill-key-id']).toBe(apiKeyId)
    await this.#demandToolsRanOnce(userId)
    await this.#demandRestingQueue()
  }

  /** What is not idempotent ran once at most, and once if it is said to be done. */
  async #demandToolsRanOnce(userId: string): Promise<void> {
    const charges = await query<{ turn_id: string; call_id: string; state: string }>(
      this.#turnmill.services.db,
      chargesOf(userId),
    )
    for (const { turn_id: turnId, call_id: callId, state } of charges) {
      const runs = this.#journal.executions.filter(
        (one) => one.turnId === turnId && one.toolCallId === callId,
      ).length
      expect({ callId, state, ranAsOften: state === 'done' ? runs === 1 : runs <= 1 }).toEqual({
        callId,
        state,
        ranAsOften: true,
      })
    }
  }

  /** The jobs that are left over end as no-ops. */
  async #demandRestingQueue(): Promise<void> {
    for (;;) {
      const counts = await this.#jobs.getJobCounts('waiting', 'prioritized', 'delayed', 'active')
      if (Object.values(counts).every((count) => count === 0)) return
      await sleep(50)
    }
  }

  async stop(): Promise<void> {
    await this.#process.stop()
    await this.#jobs.close()
    await this.#turnmill.stop()
    await this.#journal.stop()
  }
}

/** Opened when a case needs one; a case that failed takes its lane with it. */
class Lanes {
  #idle: Lane[] = []

  async use(kind: LaneKind, work: (lane: Lane) => Promise<void>): Promise<void> {
    const lane = await this.#take(kind)
    try {
      await work(lane)
    } catch (error) {
      await lane.stop()
      throw error
    }
    this.#idle.push(lane)
  }

  async #take(kind: LaneKind): Promise<Lane> {
    const found = this.#idle.findIndex((lane) => lane.isOf(kind))
    const [lane] = found === -1 ? [] : this.#idle.splice(found, 1)
    if (lane !== undefined) return lane
    await this.stop()
    return Lane.open(kind)
  }

  /** Stops those that no case is in. */
  async stop(): Promise<void> {
    await Promise.all(this.#idle.splice(0).map((lane) => lane.stop()))
  }
}

const lanes = new Lanes()
afterAll(() => lanes.stop(), 60_000)

/** What is said to the queue and the part log, and what comes of it at once; all else is the same on both backends. */
const ON_POSTGRES = ['enqueue', 'append', 'findLost', 'chats/claim', 'reconcile/enqueue-anew']

/** All points on both take twice as long: `FULL_MATRIX=1 npm test -- fault-matrix`. */
const isPlayedOn = (backend: BackendKind, point: string): boolean =>
  backend === 'redis' ||
  process.env['FULL_MATRIX'] === '1' ||
  ON_POSTGRES.some((name) => point.endsWith(` ${name}`))

const CASES = POINTS.flatMap(({ doing, scenes, points }) =>
  points.flatMap(({ name: point, carries }) =>
    (['kill', 'throw'] as const).map((action) => ({ doing, point, action, scenes, carries })),
  ),
)

describe.each(BACKENDS)('on the %s backend', (backend) => {
  test.concurrent.each(CASES.filter(({ point }) => isPlayedOn(backend, point)))(
    '$doing, $point: $action',
    ({ doing: _, ...one }) =>
      lanes.use({ backend, tools: !one.scenes.every(isTalk) }, (lane) => lane.run(one)),
    120_000,
  )
})

test('every write of the sources is a point, or stands in the transaction of one, or is excepted', () => {
  const names = ALL.map(({ name }) => name)
  process.stdout.write(
    `${ALL.length} points × {kill, throw}:\n${names.map((name) => `  ${name}\n`).join('')}`,
  )
  expect(new Set(names).size).toBe(names.length)
  const covered = new Set(ALL.flatMap(({ name, carries }) => [name.replace(/^\w+ /, ''), ...carries]))
  const excepted = (write: string) => Object.keys(EXCEPT).filter((beginning) => write.startsWith(beginning))
  const writes = findWrites()
  expect(writes.length).toBeGreaterThan(80)
  expect(writes.filter((write) => !covered.has(write) && excepted(write).length === 0)).toEqual([])
  // An exception that excepts nothing is one that nobody would miss.
  expect(
    Object.keys(EXCEPT).filter((beginning) => !writes.some((write) => write.startsWith(beginning))),
  ).toEqual([])
})
