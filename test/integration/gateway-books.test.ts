/** What the gateway writes down of its calls (I11), and the budgets that hold them (hard, whatever comes at once). */
import fc from 'fast-check'
import { createProvider, createModelConfig } from '../../src/models/index.ts'
import { query, statement } from '../../src/db/index.ts'
import { SCOPES } from '../../src/keys/index.ts'
import { newId } from '../../src/protocol/ids.ts'
import type { DelegatedCaller, WireFormat } from '../../src/protocol/routes.ts'
import { Secret } from '../../src/protocol/secret.ts'
import { settleOverdueCalls } from '../../src/gateway/index.ts'
import { askGateway } from '../support/ask-gateway.ts'
import { hold, type Behaviour, type UpstreamUsage } from '../support/fake-upstream.ts'
import { startProcess, type Process } from '../support/process.ts'
import {
  CENTRAL_KEY,
  startTurnmill,
  testEnvironment,
  type TestUser,
  type Turnmill,
} from '../support/turnmill.ts'

let turnmill: Turnmill
let user: TestUser

beforeAll(async () => {
  turnmill = await startTurnmill({ workers: 0 })
  const { services, upstream } = turnmill
  const anthropic = await createProvider(services.db, services.encryption, {
    name: 'fake-anthropic', type: 'anthropic', baseUrl: upstream.url, enabled: true, allowByok: false, attribution: true,
    keys: [new Secret(CENTRAL_KEY)],
  }) // prettier-ignore
  await createModelConfig(services.db, {
    providerId: anthropic.id, model: 'fake-1', displayName: 'Fake', enabled: true, isDefault: false, contextWindow: null,
    maxOutputTokens: null, options: {}, prices: { input: 1_000_000, output: 2_000_000, cacheRead: 500_000, cacheWrite: null },
  }) // prettier-ignore
  user = await turnmill.addUser()
})
afterAll(() => turnmill.stop())
beforeEach(() => turnmill.upstream.reset())

const PATHS: Record<WireFormat, string> = {
  'openai-chat': '/v1/gateway/fake/v1/chat/completions',
  'openai-responses': '/v1/gateway/fake/v1/responses',
  'anthropic-messages': '/v1/gateway/fake-anthropic/v1/messages',
}

const bodyOf = (wireFormat: WireFormat, text: string, limit = 100): Record<string, unknown> => {
  const message = { role: 'user', content: text }
  const common = { model: 'fake-1', stream: true }
  if (wireFormat === 'openai-responses') return { ...common, input: [message], max_output_tokens: limit }
  return { ...common, messages: [message], max_tokens: limit }
}

function callerOf(turnId: string, { apiKeyId }: Pick<TestUser, 'apiKeyId'> = user): DelegatedCaller {
  return {
    kind: 'delegated',
    apiKeyId,
    attribution: { apiKeyId, chatId: null, turnId, purpose: 'chat' },
    place: { step: 1, epoch: 1, attempt: 1 },
    modelConfigId: newId(),
  }
}

const call = (turnId: string, wireFormat: WireFormat, signal?: AbortSignal): Promise<Response> =>
  askGateway(turnmill.services.gateway, callerOf(turnId), {
    target: PATHS[wireFormat],
    body: bodyOf(wireFormat, 'hello'),
    ...(signal && { signal }),
  })

interface Booked {
  turn_id: string
  status: number | null
  error_code: string | null
  estimated: boolean
  cost_micros: string | null
  api_key_id: string
  usage: { input: number; output: number; cacheRead: number; cacheWrite: number; reasoning: number } | null
}

const readBooks = statement(
  'test/books',
  `select i.turn_id, i.status, i.error_code, i.estimated, i.cost_micros, i.api_key_id,
    case when u.interception_id is not null then jsonb_build_object('input', u.input_tokens, 'output', u.output_tokens,
      'cacheRead', u.cache_read_tokens, 'cacheWrite', u.cache_write_tokens, 'reasoning', u.reasoning_tokens) end as usage
  from interceptions i left join token_usages u on u.interception_id = i.id
  where i.turn_id = any($1) and i.settled_at is not null`,
)

/** The calls of these turns, once all of them are settled. */
async function booksOf(turnIds: readonly string[]): Promise<Map<string, Booked>> {
  for (;;) {
    const rows = await query<Booked>(turnmill.services.db, readBooks(turnIds))
    if (rows.length >= turnIds.length) return new Map(rows.map((row) => [row.turn_id, row]))
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const WIRE_FORMATS = Object.keys(PATHS) as WireFormat[]

/** What a scripted call is to be booked as. */
interface Plan {
  turnId: string
  wireFormat: WireFormat
  behaviour: Behaviour
  usage: UpstreamUsage
}

const count = fc.nat({ max: 50_000 })
const usages: fc.Arbitrary<UpstreamUsage> = fc
  .record({ input: count, cacheRead: count, cacheWrite: count, output: fc.integer({ min: 1, max: 50_000 }) })
  .chain((usage) => fc.nat({ max: usage.output }).map((reasoning) => ({ ...usage, reasoning })))

const behaviours = (usage: UpstreamUsage): fc.Arbitrary<Behaviour> =>
  fc.oneof(
    { weight: 5, arbitrary: fc.constant<Behaviour>({ type: 'answer', usage }) },
    { weight: 1, arbitrary: fc.constantFrom<Behaviour>({ type: 'answer', usage: null }) },
    {
      weight: 2,
      arbitrary: fc
        .constantFrom(...(['missing', 'cut', 'error', 'malformed'] as const))
        .map((ending): Behaviour => ({ type: 'answer', usage, ending })),
    },
    {
      weight: 2,
      arbitrary: fc
        .constantFrom(400, 408, 429, 500, 529)
        .map((status): Behaviour => ({ type: 'status', status })),
    },
  )

const plans: fc.Arbitrary<Plan> = fc
  .record({ wireFormat: fc.constantFrom(...WIRE_FORMATS), usage: usages })
  .chain(({ wireFormat, usage }) =>
    behaviours(usage).map((behaviour) => ({ turnId: newId(), wireFormat, behaviour, usage })),
  )

/** Micro-dollars at the prices above; what is written to a cache costs as much as input. */
const costOf = ({ input, output, cacheRead, cacheWrite }: UpstreamUsage): number =>
  Math.ceil(input + 2 * output + cacheRead / 2 + cacheWrite)

describe('the books', () => {
  test('hold what the provider reported, over 1,000 mixed calls with failures (I11)', async () => {
    const seed = Date.now() % 1_000_000
    const planned = fc.sample(plans, { numRuns: 1000, seed })
    const byTurn = new Map(planned.map((plan) => [plan.turnId, plan]))
    turnmill.upstream.script(({ headers }) => byTurn.get(String(headers['x-turnmill-turn-id']))!.behaviour)
    const queue = planned.values()
    const work = async (): Promise<void> => {
      for (const { turnId, wireFormat } of queue) {
        const response = await call(turnId, wireFormat).catch(() => null)
        await response?.text().catch(() => '')
      }
    }
    await Promise.all(Array.from({ length: 20 }, work))
    const books = await booksOf(planned.map(({ turnId }) => turnId))
    expect(turnmill.upstream.requests).toHaveLength(1000)
    for (const { turnId, wireFormat, behaviour, usage } of planned) {
      const booked = books.get(turnId)
      const context = { seed, wireFormat, behaviour }
      expect({ ...context, key: booked?.api_key_id }).toEqual({ ...context, key: user.apiKeyId })
      const { usage: used = null, estimated, cost_micros: cost } = booked ?? {}
      if (behaviour.type === 'status')
        expect({ ...context, used, cost, status: booked?.status }).toEqual({
          ...context,
          used: null,
          cost: '0',
          status: behaviour.status,
        })
      else if (
        behaviour.type === 'answer' &&
        behaviour.usage !== null &&
        (behaviour.ending ?? 'complete') === 'complete'
      )
        expect({ ...context, used, estimated, cost }).toEqual({
          ...context,
          used: usage,
          estimated: false,
          cost: String(costOf(usage)),
        })
      else if (estimated !== true)
        // A stream with an event that is no JSON still ends with its usage.
        expect({ ...context, used }).toEqual({ ...context, used: usage })
    }
  }, 60_000)

  test('hold what is known of a call that its caller let go of, marked estimated', async () => {
    const gate = hold()
    turnmill.upstream.script({ type: 'answer', chunks: ['x'.repeat(400), 'y'], gate, gateAt: 1 })
    const turnIds = WIRE_FORMATS.map(() => newId())
    for (const [index, wireFormat] of WIRE_FORMATS.entries()) {
      const response = await call(turnIds[index]!, wireFormat)
      const reader = response.body!.getReader()
      for (let text = ''; !text.includes('xxx');)
        text += Buffer.from((await reader.read()).value ?? []).toString()
      await reader.cancel()
    }
    const books = [...(await booksOf(turnIds)).values()]
    for (const booked of books) {
      expect(booked).toMatchObject({ status: 200, error_code: 'client_closed', estimated: true })
      expect(booked.usage?.output).toBe(100)
      expect(booked.usage?.input).toBeGreaterThan(0)
    }
    await Promise.all(turnmill.upstream.requests.map(({ closed }) => closed))
    gate.release()
  })

  test('come first: without them there is no call', async () => {
    const { db } = turnmill.services
    await db.prisma.$executeRawUnsafe('alter table interceptions rename to interceptions_away')
    try {
      await expect(call(newId(), 'openai-chat')).rejects.toThrow()
      expect(turnmill.upstream.requests).toEqual([])
    } finally {
      await db.prisma.$executeRawUnsafe('alter table interceptions_away rename to interceptions')
    }
  })

  test('are settled by the reconciler where the process is gone (query 6)', async () => {
    const { db } = turnmill.services
    turnmill.upstream.script({ type: 'silence', after: 'request' })
    const turnId = newId()
    const abort = new AbortController()
    const calling = call(turnId, 'openai-chat', abort.signal).catch(() => null)
    await turnmill.upstream.waitForRequest(1)
    expect(await settleOverdueCalls(db, 100)).toBe(0)
    await db.prisma.interception.updateMany({ where: { turnId }, data: { deadlineAt: new Date(0) } })
    expect(await settleOverdueCalls(db, 100)).toBe(1)
    abort.abort()
    await calling
    const [booked] = await db.prisma.interception.findMany({ where: { turnId } })
    expect(booked).toMatchObject({ estimated: true, errorCode: 'worker_lost', costMicros: null })
  })
})

describe('a budget', () => {
  /** Of this body: its bytes as input, and 100 tokens of output. */
  const worstCase = (wireFormat: WireFormat): number =>
    JSON.stringify(bodyOf(wireFormat, 'hello')).length + 2 * 100

  async function setBudget(
    subject: 'key' | 'user' | 'deployment',
    subjectId: string,
    limitMicros: number,
    period = 'day',
  ): Promise<string> {
    const id = newId()
    const data = { id, subject, subjectId, period, limitMicros: BigInt(limitMicros) }
    await turnmill.services.db.prisma.budget.create({ data })
    return id
  }

  const windowOf = (budgetId: string) =>
    turnmill.services.db.prisma.budgetWindow.findFirstOrThrow({ where: { budgetId } })

  const settledWindow = async (budgetId: string) => {
    for (;;) {
      const window = await windowOf(budgetId)
      if (window.reservedMicros === 0n) return window
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  interface Refused {
    error: { code: string; message: string; budget: Record<string, unknown>; worstCaseMicros: number }
  }

  /** Of the present day or month, in UTC. */
  function endOf(period: 'day' | 'month'): string {
    const now = new Date()
    const [month, day] = period === 'day' ? [0, now.getUTCDate() + 1] : [1, 1]
    return new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + month, day))
      .toISOString()
      .replace('.000', '')
  }

  test('lets through exactly what fits of 100 calls at once, and then says what is in the way', async () => {
    const spender = await turnmill.addUser()
    const worst = worstCase('anthropic-messages')
    const budgetId = await setBudget('key', spender.apiKeyId, 7 * worst + worst - 1)
    const gate = hold()
    const usage = { input: 10, output: 100, cacheRead: 0, cacheWrite: 0 }
    turnmill.upstream.script({ type: 'answer', text: 'ok', usage, gate, gateAt: 0 })
    const send = () => spender.client.request<Refused>('POST', PATHS['anthropic-messages'], { ...bodyOf('anthropic-messages', 'hello'), stream: false }) // prettier-ignore
    const stream = async (): Promise<number> => {
      const response = await fetch(turnmill.address + PATHS['anthropic-messages'], {
        method: 'POST',
        headers: { authorization: `Bearer ${spender.token}`, 'content-type': 'application/json' },
        body: JSON.stringify(bodyOf('anthropic-messages', 'hello')),
      })
      if (response.status === 200) void response.text()
      return response.status
    }
    const statuses = await Promise.all(Array.from({ length: 100 }, stream))
    expect(statuses.filter((status) => status === 200)).toHaveLength(7)
    expect(statuses.filter((status) => status === 429)).toHaveLength(93)
    expect(turnmill.upstream.requests).toHaveLength(7)
    expect(await windowOf(budgetId)).toMatchObject({ spentMicros: 0n, reservedMicros: BigInt(7 * worst) })
    const busy = await send()
    const amounts = { limitMicros: 8 * worst - 1, spentMicros: 0, reservedMicros: 7 * worst }
    const budget = { id: budgetId, subject: 'key', period: 'day', endsAt: endOf('day'), ...amounts }
    expect(busy).toMatchObject({ status: 429, body: { error: { code: 'budget_busy', budget } } })
    expect(busy.body.error.message).toContain(
      `calls under way leave less of the daily budget of the API key (${worst - 1} of ${8 * worst - 1}); its period ends at ${endOf('day')}`,
    )
    expect([busy.headers.get('retry-after'), busy.headers.get('x-should-retry')]).toEqual(['1', 'true'])
    gate.release()
    expect(await settledWindow(budgetId)).toMatchObject({ spentMicros: BigInt(7 * 210) })
    while ((await stream()) === 200) await settledWindow(budgetId)
    const window = await settledWindow(budgetId)
    expect(Number(window.spentMicros)).toBeLessThanOrEqual(8 * worst - 1)
    expect(await send()).toMatchObject({ status: 402, body: { error: { code: 'budget_exceeded' } } })
  }, 60_000)

  /** What a call without an answer of its own is refused with. */
  const refuse = async ({
    client,
  }: TestUser): Promise<Refused['error'] & { status: number; retry: string | null }> => {
    const body = { ...bodyOf('openai-chat', 'hello'), stream: false }
    const {
      status,
      headers,
      body: refused,
    } = await client.request<Refused>('POST', PATHS['openai-chat'], body)
    return { ...refused.error, status, retry: headers.get('x-should-retry') }
  }

  test('that a call does not fit into is named to its caller, with what is left and until when', async () => {
    const spender = await turnmill.addUser()
    const byUser = await setBudget('user', spender.userId, 10, 'month')
    const worstCaseMicros = worstCase('openai-chat') + 'false'.length - 'true'.length
    expect(await refuse(spender)).toMatchObject({
      status: 402,
      retry: 'false',
      code: 'budget_exceeded',
      worstCaseMicros,
      message: `a call of model fake-1 of provider fake may cost ${worstCaseMicros} micro-dollars, and the monthly budget of its user has less left (10 of 10); its period ends at ${endOf('month')}`,
      budget: { id: byUser, subject: 'user', period: 'month', endsAt: endOf('month'), limitMicros: 10, spentMicros: 0, reservedMicros: 0 },
    }) // prettier-ignore
    const byKey = await setBudget('key', spender.apiKeyId, 7, 'total')
    const refused = await refuse(spender)
    expect(refused.budget).toMatchObject({
      id: byKey,
      subject: 'key',
      period: 'total',
      endsAt: null,
      limitMicros: 7,
    })
    expect(refused.message).toMatch(/and the total budget of the API key has less left \(7 of 7\)$/)
  })

  test('of the deployment is named to everybody, and its amounts to admins', async () => {
    const limitMicros = 13
    const id = await setBudget('deployment', '00000000-0000-0000-0000-000000000000', limitMicros)
    try {
      const named = { id, subject: 'deployment', period: 'day', endsAt: endOf('day') }
      const demoted = await turnmill.addUser([...SCOPES], 'admin')
      // By the row alone: its key keeps the scope.
      const { user: users } = turnmill.services.db.prisma
      await users.update({ where: { id: demoted.userId }, data: { role: 'member' } })
      const others = [await turnmill.addUser(), await turnmill.addUser(undefined, 'admin'), demoted]
      for (const other of others) {
        const { budget, message } = await refuse(other)
        expect(budget).toEqual(named)
        expect(message).toMatch(
          / and the daily budget of the deployment has less left; its period ends at [\dTZ:-]+$/,
        )
      }
      expect((await refuse(turnmill.admin)).budget).toEqual({
        ...named,
        limitMicros,
        spentMicros: 0,
        reservedMicros: 0,
      })
    } finally {
      await turnmill.services.db.prisma.budget.delete({ where: { id } })
    }
  })

  test('needs a price', async () => {
    const spender = await turnmill.addUser()
    await setBudget('user', spender.userId, 1_000_000_000)
    const body = { ...bodyOf('openai-chat', 'hello'), model: 'of-no-price' }
    expect(await spender.client.request('POST', PATHS['openai-chat'], body)).toMatchObject({
      status: 409,
      body: {
        error: {
          code: 'model_unpriced',
          message: expect.stringMatching(/in a model config of this provider and model/),
        },
      },
    })
    expect(turnmill.upstream.requests).toHaveLength(0)
  })

  test('bounds an answer that names no bound of its own', async () => {
    const spender = await turnmill.addUser()
    await setBudget('user', spender.userId, 1_000_000_000)
    const { max_tokens: _, ...body } = bodyOf('openai-chat', 'hello')
    await fetch(turnmill.address + PATHS['openai-chat'], {
      method: 'POST',
      headers: { authorization: `Bearer ${spender.token}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    }).then((response) => response.text())
    expect(turnmill.upstream.requests[0]?.body).toMatchObject({ max_completion_tokens: 8192 })
  })

  test('is not overshot by four processes that call at once', async () => {
    const spender = await turnmill.addUser()
    const worst = worstCase('anthropic-messages')
    const [byKey, byUser] = [
      await setBudget('key', spender.apiKeyId, 30 * worst),
      await setBudget('user', spender.userId, 25 * worst),
    ]
    const usage = { input: 100, output: 90, cacheRead: 0, cacheWrite: 0 }
    turnmill.upstream.script({ type: 'answer', text: 'ok', usage, delayMs: 5 })
    const environment = testEnvironment(turnmill.config.databaseUrl ?? '', {})
    const apis: Process[] = Array.from({ length: 4 }, () => startProcess('src/main.ts', environment))
    try {
      const addresses = await Promise.all(
        apis.map(async (api) => {
          const [address] = (await api.said('listening'))['addresses'] as { port: number }[]
          return `http://127.0.0.1:${address?.port}`
        }),
      )
      const call = async (address: string): Promise<void> => {
        for (;;) {
          const response = await fetch(address + PATHS['anthropic-messages'], {
            method: 'POST',
            headers: { authorization: `Bearer ${spender.token}`, 'content-type': 'application/json' },
            body: JSON.stringify(bodyOf('anthropic-messages', 'hello')),
          })
          await response.text()
          const window = await windowOf(byUser)
          expect(Number(window.spentMicros + window.reservedMicros)).toBeLessThanOrEqual(25 * worst)
          if (response.status === 402) return
        }
      }
      await Promise.all(addresses.flatMap((address) => Array.from({ length: 6 }, () => call(address))))
      const [key, owner] = [await settledWindow(byKey), await settledWindow(byUser)]
      expect(owner.spentMicros).toBe(key.spentMicros)
      expect(Number(owner.spentMicros)).toBe(turnmill.upstream.requests.length * 280)
      expect(Number(owner.spentMicros)).toBeLessThanOrEqual(25 * worst)
      // Nothing is left that another call would have fitted into.
      expect(Number(owner.spentMicros) + worst).toBeGreaterThan(25 * worst)
    } finally {
      await Promise.all(apis.map((api) => api.stop()))
    }
  }, 120_000)
})
