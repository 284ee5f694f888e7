import { createTurnProcessor, type TurnProcessorDeps } from '../../src/agent/index.ts'
import { NOTHING_SPENT } from '../../src/agent/model-call.ts'
import type { Claim, Unclaimed } from '../../src/chats/index.ts'
import type { BuiltRoute } from '../../src/models/index.ts'
import { TurnmillError, type ErrorCode } from '../../src/protocol/errors.ts'
import type { StreamPart } from '../../src/protocol/parts.ts'
import { NO_USAGE, type Prices } from '../../src/protocol/usage.ts'
import { createLogger } from '../../src/telemetry/logger.ts'
import { testClaim } from '../support/claims.ts'

type Chats = TurnProcessorDeps['chats']

const USAGE = { ...NO_USAGE, inputTokens: 3 }
const SPENT = { id: expect.any(String) as string, usage: USAGE, costMicros: 6 }

const CLAIM = testClaim({ turnId: 'turn-1' })

const prices: Prices = {
  inputMicros: 2_000_000,
  outputMicros: null,
  cacheReadMicros: null,
  cacheWriteMicros: null,
}

const facts = {
  modelConfig: { id: 'config-1', model: 'fake', contextWindow: null, options: {}, prices },
} as BuiltRoute['facts']

const error = (code: ErrorCode): TurnmillError => new TurnmillError(code, `it was ${code}`)

const CALL: StreamPart[] = [
  { type: 'tool-input-start', id: '1', toolCallId: 'call-1', toolName: 'clock' },
  { type: 'tool-input-end', id: '1', input: {} },
  { type: 'finish', reason: 'tool_calls', usage: USAGE },
]

/** What each write of the worker answers, in order; once that is used up it succeeds. */
type Refusals = Partial<Record<keyof Chats, ErrorCode[]>>

interface Scene {
  /** Why there is no turn for the job. */
  unclaimed?: Unclaimed
  /** Steps committed before the claim, whose results are settled first. */
  committedSteps?: number
  refusals?: Refusals
  retryAfterMs?: number
  interrupting?: boolean
  /** How the first model call ends; an answer with a tool's call where there is none. */
  failure?: ErrorCode | null
  /** Whether the turn's signal says that its lease is over, from the beginning. */
  leaseOver?: boolean
  /** Whether the worker has been told to stop, from the beginning. */
  stopping?: boolean
}

/** Takes a turn through a worker whose first model call fails and whose second one answers; tells what it wrote. */
async function processTurn(scene: Scene) {
  const { committedSteps = 0, refusals = {}, retryAfterMs, interrupting = false } = scene
  const { leaseOver = false, stopping = false, failure = 'provider_overloaded' } = scene
  const log: Record<string, unknown>[] = []
  const destination = { write: (line: string) => void log.push(JSON.parse(line) as Record<string, unknown>) }
  const writes: unknown[][] = []
  const write = (name: keyof Chats) =>
    (async (_claim: Claim, ...values: unknown[]) => {
      writes.push([name, ...values])
      const refusal = refusals[name]?.shift()
      if (refusal !== undefined) throw error(refusal)
    }) as Chats['noteRetry']
  const answers: StreamPart[][] = [
    failure === null
      ? CALL
      : [{ type: 'error', error: new TurnmillError(failure, 'busy', { retryAfterMs }), usage: USAGE }],
    [{ type: 'finish', reason: 'stop', usage: USAGE }],
  ]
  const process = createTurnProcessor({
    chats: {
      claim: async () => scene.unclaimed ?? { ...CLAIM, committedSteps },
      isInterrupting: async () => interrupting,
      reopen: async () => false,
      finish: write('finish') as unknown as Chats['finish'],
      finishInterrupted: write('finishInterrupted') as unknown as Chats['finishInterrupted'],
      fail: write('fail') as unknown as Chats['fail'],
      backoff: write('backoff') as unknown as Chats['backoff'],
      release: write('release') as unknown as Chats['release'],
      noteRetry: write('noteRetry'),
      finishWithoutAnswer: write('finishWithoutAnswer') as unknown as Chats['finishWithoutAnswer'],
      commitStep: write('commitStep') as unknown as Chats['commitStep'],
      startCalls: write('startCalls') as unknown as Chats['startCalls'],
      keepResults: write('keepResults') as unknown as Chats['keepResults'],
      commitResults: write('commitResults') as unknown as Chats['commitResults'],
      addSpent: write('addSpent') as unknown as Chats['addSpent'],
      compact: write('compact') as unknown as Chats['compact'],
    },
    effects: {
      openCalls: async () => {
        if (committedSteps > 0) throw error('turn_fenced')
        return []
      },
      openTools: async () => ({ definitions: [], find: () => undefined }),
      runTool: async () => ({ output: null, isError: false, images: [] }),
      outputBytes: 1000,
      storeImages: async () => [],
      requireAction: async () => undefined,
      listAgents: async () => [],
      wait: async () => false,
      waitingDeadlineMs: 1e6,
      familySpent: async () => ({ steps: 0, costMicros: 0 }),
      turnLimits: { steps: 100, runningMs: 1e6, familySteps: 100, familyCostMicros: null },
      loadContext: async () => [],
      showImages: async () => [],
      systemPromptOf: () => null,
      onUncompacted: () => undefined,
      buildRouteFor: async () => ({ facts }) as BuiltRoute,
      buildRoute: async () => ({ facts }) as BuiltRoute,
      async *callModel() {
        yield* answers.shift()!
      },
      openParts: () => ({ write: () => undefined, flush: async () => undefined }),
      stopping: stopping ? AbortSignal.abort(error('worker_stopped')) : new AbortController().signal,
      deadlines: { firstPartMs: 1e6, reasoningFirstPartMs: 1e6, silenceMs: 1e6, attemptMs: 1e6 },
      retries: {
        firstMs: 1,
        maximumMs: 1,
        attempts: 2,
        backoffAboveMs: 10,
        giveUpAboveMs: 1e6,
        random: () => 0,
      },
    },
    leases: {
      hold: () => (leaseOver ? AbortSignal.abort(error('turn_fenced')) : new AbortController().signal),
      drop: () => undefined,
    },
    maxTakeovers: 1,
    onTakeover: () => undefined,
    logger: createLogger({ level: 'info', role: 'test', destination }),
  })
  const outcome = await process({ turnId: 'turn-1', jobId: 'job-1', attemptsMade: 0, compare: null })
  return { outcome, writes, log, names: writes.map(([name]) => name) }
}

describe('a worker whose first attempt failed', () => {
  test('notes what that spent, and finishes with the second', async () => {
    const { outcome, names, writes } = await processTurn({})
    expect(names).toEqual(['noteRetry', 'finish'])
    expect(writes[0]).toEqual(['noteRetry', expect.objectContaining({ attempts: 1 }), SPENT])
    expect(outcome).toBeNull()
  })

  test('repeats the note while Postgres is away', async () => {
    const { names } = await processTurn({ refusals: { noteRetry: ['database_unavailable'] } })
    expect(names).toEqual(['noteRetry', 'noteRetry', 'finish'])
  })

  test('ends a turn that was told to stop before the note, with what was spent', async () => {
    const { names, writes } = await processTurn({
      refusals: { noteRetry: ['turn_fenced'] },
      interrupting: true,
    })
    expect(names).toEqual(['noteRetry', 'finishInterrupted'])
    expect(writes[1]).toEqual(['finishInterrupted', null, SPENT])
  })

  test('ends a turn that was told to stop before the backoff, with what was spent', async () => {
    const { outcome, names, writes } = await processTurn({
      retryAfterMs: 1000,
      refusals: { backoff: ['turn_fenced'] },
      interrupting: true,
    })
    expect(names).toEqual(['backoff', 'finishInterrupted'])
    expect(writes[1]).toEqual(['finishInterrupted', null, SPENT])
    expect(outcome).toBeNull()
  })

  test.each([
    ['noteRetry', ['noteRetry', 'addSpent']],
    ['backoff', ['backoff', 'addSpent']],
  ] as const)('says no more than what was spent once %s was fenced', async (name, written) => {
    const { outcome, names, writes } = await processTurn({
      ...(name === 'backoff' && { retryAfterMs: 1000 }),
      refusals: { [name]: ['turn_fenced'] },
    })
    expect(names).toEqual(written)
    expect(writes.at(-1)).toEqual(['addSpent', SPENT])
    expect(outcome).toBeNull()
  })

  test('gives the job back as done with the turn’s backoff', async () => {
    const { outcome, writes } = await processTurn({ retryAfterMs: 1000 })
    expect(writes).toEqual([
      ['backoff', expect.objectContaining({ delayMs: 1000, spent: SPENT, retry: expect.anything() })],
    ])
    expect(outcome).toBeNull()
  })
})

describe('a worker whose write on the way to the model was fenced', () => {
  test('ends the turn where it was told to stop', async () => {
    const { outcome, names } = await processTurn({ committedSteps: 1, interrupting: true })
    expect(names).toEqual(['finishInterrupted'])
    expect(outcome).toBeNull()
  })

  test('says nothing more where somebody else holds it', async () => {
    const { outcome, names } = await processTurn({ committedSteps: 1 })
    expect(names).toEqual([])
    expect(outcome).toBeNull()
  })
})

test('a worker whose step was fenced says what it spent', async () => {
  const { names, writes } = await processTurn({ failure: null, refusals: { commitStep: ['turn_fenced'] } })
  expect(names).toEqual(['commitStep', 'addSpent'])
  expect(writes.at(-1)).toEqual(['addSpent', SPENT])
})

test('a worker whose turn was told to stop before its results were committed keeps them', async () => {
  const { names, writes } = await processTurn({
    failure: null,
    refusals: { commitResults: ['turn_fenced'] },
    interrupting: true,
  })
  expect(names).toEqual(['commitStep', 'commitResults', 'keepResults', 'finishInterrupted'])
  expect(writes[2]).toEqual(['keepResults', [expect.objectContaining({ toolCallId: 'call-1' })]])
})

describe('a worker that is stopped in the middle of a call', () => {
  test('gives the turn back with what the call has spent', async () => {
    const { outcome, writes } = await processTurn({ failure: 'worker_stopped' })
    expect(writes).toEqual([['release', SPENT]])
    expect(outcome).toBeNull()
  })

  test('ends a turn that was told to stop, with what the call has spent', async () => {
    const { names, writes } = await processTurn({
      failure: 'worker_stopped',
      refusals: { release: ['turn_fenced'] },
      interrupting: true,
    })
    expect(names).toEqual(['release', 'finishInterrupted'])
    expect(writes[1]).toEqual(['finishInterrupted', null, SPENT])
  })
})

describe('a worker that takes no new jobs any more', () => {
  test('lets a call end, and gives a turn that waits for its next attempt back at once', async () => {
    const { outcome, names, writes } = await processTurn({ stopping: true })
    expect(names).toEqual(['noteRetry', 'release'])
    expect(writes[0]?.at(-1)).toEqual(SPENT)
    expect(writes[1]).toEqual(['release', NOTHING_SPENT])
    expect(outcome).toBeNull()
  })
})

describe('a worker whose lease ran out while Postgres was away', () => {
  test('gives the turn back with what its attempt has spent, once Postgres answers (I11)', async () => {
    const { outcome, writes } = await processTurn({
      failure: 'database_unavailable',
      refusals: { release: ['database_unavailable', 'database_unavailable'] },
    })
    expect(writes).toEqual([
      ['release', SPENT],
      ['release', SPENT],
      ['release', SPENT],
    ])
    expect(outcome).toBeNull()
  })

  test('lets go of it where another one has it by then', async () => {
    const { outcome, names } = await processTurn({
      failure: 'database_unavailable',
      refusals: { release: ['database_unavailable', 'turn_fenced'] },
    })
    // Refused as well, unless it was superseded.
    expect(names).toEqual(['release', 'release', 'addSpent'])
    expect(outcome).toBeNull()
  })
})

describe('a job without effect', () => {
  test.each(['gone', 'ended', 'unadmitted', 'held'] as const)(
    'says why it ended without its turn: %s',
    async (unclaimed) => {
      const { outcome, names } = await processTurn({ unclaimed })
      expect(outcome).toBe(unclaimed)
      expect(names).toEqual([])
    },
  )
})

describe('a worker that lost its turn', () => {
  const LET_GO = 'the turn is no longer held by this worker'

  test.each([
    {
      what: 'a write that is refused',
      scene: { refusals: { finish: ['turn_fenced' as const] } },
      why: 'write',
    },
    {
      what: 'a note that is refused',
      scene: { refusals: { noteRetry: ['turn_fenced' as const] } },
      why: 'write',
    },
    { what: 'its lease', scene: { leaseOver: true }, why: 'lease' },
  ])('logs once that it lets go of it, by $what', async ({ scene, why }) => {
    const { outcome, log } = await processTurn(scene)
    expect(log.filter(({ msg }) => msg === LET_GO)).toEqual([
      expect.objectContaining({ turnId: 'turn-1', why }),
    ])
    expect(outcome).toBeNull()
  })
})
