/** What calls used and cost, summed from the gateway's books, and how long those are kept. */
import { v7 } from 'uuid'
import { query, statement } from '../../src/db/index.ts'
import { pruneRecords, readUsage, type CallSums, type ChatUsage, type GroupedUsage, type UsageRequest } from '../../src/gateway/index.ts' // prettier-ignore
import { pruneInterceptions, prunePrompts } from '../../src/gateway/retention.ts'
import { sumCalls } from '../../src/gateway/usage.ts'
import { newId } from '../../src/protocol/ids.ts'
import { hold } from '../support/fake-upstream.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

const DAY_MS = 86_400_000

/** What each call uses here, and what it costs at the prices of the test's model. */
const USED = { input: 10, output: 20, cacheRead: 4, cacheWrite: 0 }
const COST = 10 + 2 * 20 + 2

let turnmill: Turnmill
let user: TestUser
beforeEach(async () => {
  turnmill = await startTurnmill()
  turnmill.upstream.script({ type: 'answer', text: 'ok', usage: USED })
  user = await turnmill.addUser()
})
afterEach(() => turnmill.stop())

type Report = GroupedUsage & { from: string; to: string; groupBy: string | null }

async function usageOf(who: Pick<TestUser, 'client'>, search = ''): Promise<Report> {
  const { status, body } = await who.client.request<Report>('GET', `/v1/usage?${search}`)
  expect(status).toBe(200)
  return body
}

/** Resolves once no call is under way any more. */
async function settled(calls: number): Promise<void> {
  const { prisma } = turnmill.services.db
  while ((await prisma.interception.count({ where: { settledAt: { not: null } } })) < calls)
    await new Promise((resolve) => setTimeout(resolve, 10))
}

async function answered(who: Pick<TestUser, 'client'> = user): Promise<string> {
  const { chat, turn } = await who.client.create('what I said')
  await who.client.ended(chat.id, turn.id)
  return chat.id
}

async function callGateway({ token }: Pick<TestUser, 'token'>, model: string): Promise<void> {
  const response = await fetch(`${turnmill.address}/v1/gateway/fake/v1/responses`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model, input: 'hi', stream: true }),
  })
  await response.text()
}

const sums = (calls: number, change: Partial<CallSums> = {}): CallSums => ({
  calls,
  failed: 0,
  underWay: 0,
  inputTokens: 10 * calls,
  outputTokens: 20 * calls,
  cacheReadTokens: 4 * calls,
  cacheWriteTokens: 0,
  reasoningTokens: 0,
  costMicros: COST * calls,
  estimated: 0,
  unpriced: 0,
  ...change,
})

describe('GET /v1/usage', () => {
  test('sums what a caller used, by whatever is asked for', async () => {
    const [other, second] = [await turnmill.addUser(), await turnmill.addKey(user.userId)]
    const chatId = await answered()
    await answered(second)
    await answered(other)
    await callGateway(user, 'unknown-model')
    await settled(4)

    const unpriced = { costMicros: 2 * COST, unpriced: 1 }
    expect(await usageOf(user)).toMatchObject({ groupBy: null, total: sums(3, unpriced), items: [], more: false }) // prettier-ignore
    const byKey = await usageOf(user, 'groupBy=key')
    expect(byKey.total).toEqual(sums(3, unpriced))
    expect(byKey.items).toHaveLength(2)
    expect(byKey.items).toEqual(
      expect.arrayContaining([
        { group: user.apiKeyId, ...sums(2, { costMicros: COST, unpriced: 1 }) },
        { group: second.apiKeyId, ...sums(1) },
      ]),
    )
    const groupsBy = async (groupBy: string): Promise<unknown[]> =>
      (await usageOf(user, `groupBy=${groupBy}`)).items.map(({ group, calls }) => [group, calls])
    expect(await groupsBy('user')).toEqual([[user.userId, 3]])
    expect(await groupsBy('provider')).toEqual([['fake', 3]])
    expect(await groupsBy('model')).toEqual([
      ['fake/fake-1', 2],
      ['fake/unknown-model', 1],
    ])
    expect(await groupsBy('purpose')).toEqual([
      ['chat', 2],
      ['external', 1],
    ])
    expect(await groupsBy('day')).toEqual([[new Date().toISOString().slice(0, 10), 3]])

    expect((await usageOf(user, `apiKeyId=${second.apiKeyId}`)).total).toEqual(sums(1))
    expect((await usageOf(user, `chatId=${chatId}`)).total).toEqual(sums(1))
  })

  test('is everybody’s for an admin, and nobody else’s for another', async () => {
    const chatId = await answered()
    await answered(await turnmill.addUser())
    await settled(2)
    expect((await usageOf(turnmill.admin)).total).toEqual(sums(2))
    expect((await usageOf(turnmill.admin, 'groupBy=user')).items).toHaveLength(2)
    expect((await usageOf(turnmill.admin, `userId=${user.userId}`)).total).toEqual(sums(1))
    const stranger = await turnmill.addUser()
    for (const search of ['', `userId=${user.userId}`, `apiKeyId=${user.apiKeyId}`, `chatId=${chatId}`])
      expect((await usageOf(stranger, search)).total).toEqual(sums(0))
    // An admin’s key that is not for admins’ business shows what is its owner’s.
    const narrow = await turnmill.addKey(turnmill.admin.userId, ['chats:read'])
    expect((await usageOf(narrow)).total).toEqual(sums(0))
  })

  test('tells what failed, what is a count of ours and what is under way', async () => {
    turnmill.upstream.script({ type: 'status', status: 400 })
    await callGateway(user, 'fake-1')
    await settled(1)
    const gate = hold()
    turnmill.upstream.script({ type: 'answer', text: 'abcd', usage: null, gate, gateAt: 0 })
    const calling = callGateway(user, 'fake-1')
    await turnmill.upstream.waitForRequest(2)
    expect((await usageOf(user)).total).toMatchObject({ calls: 2, failed: 1, underWay: 1, costMicros: 0 })
    gate.release()
    await calling
    await settled(2)
    expect((await usageOf(user)).total).toMatchObject({ calls: 2, failed: 1, underWay: 0, estimated: 1 })
    turnmill.upstream.script({ type: 'silence', after: 'headers' })
    const { chat } = await user.client.create('hi')
    await turnmill.upstream.waitForRequest(3)
    await user.client.request('POST', `/v1/chats/${chat.id}/interrupt`)
    await settled(3)
    expect((await usageOf(user)).total).toMatchObject({ calls: 3, failed: 1, underWay: 0, estimated: 2 })
  })

  test('begins with from and ends before to', async () => {
    const begun = new Date()
    await answered()
    await settled(1)
    const { startedAt } = await turnmill.services.db.prisma.interception.findFirstOrThrow()
    const [at, after] = [startedAt.toISOString(), new Date(startedAt.getTime() + 1).toISOString()]
    for (const who of [user, turnmill.admin]) {
      expect((await usageOf(who, `from=${at}&to=${after}`)).total.calls).toBe(1)
      expect((await usageOf(who, `from=${after}`)).total.calls).toBe(0)
      expect((await usageOf(who, `to=${at}`)).total.calls).toBe(0)
    }
    const report = await usageOf(user, `to=${begun.toISOString()}`)
    expect(Date.parse(report.to) - Date.parse(report.from)).toBe(30 * DAY_MS)
  })

  test.each([
    'groupBy=weather',
    'from=yesterday',
    'from=2026-01-01',
    'chatId=x',
    'apiKeyId=1',
    'from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z',
    'from=2024-01-01T00:00:00Z&to=2026-01-01T00:00:00Z',
    'from=0000-01-01T00:00:00Z',
  ])('refuses %s', async (search) => {
    expect(await user.client.request('GET', `/v1/usage?${search}`)).toMatchObject({
      status: 400,
      body: { code: 'invalid_request' },
    })
  })

  test('shows a thousand groups and says that there are more', async () => {
    const { db } = turnmill.services
    await addCalls(Array.from({ length: 1001 }, (_, n) => ({ at: new Date(), model: `model-${n}` })))
    const request: UsageRequest = { from: new Date(0), to: new Date(Date.now() + DAY_MS), userId: null, apiKeyId: null, chatId: null, groupBy: 'model' } // prettier-ignore
    const report = await readUsage(db, request)
    expect(report).toMatchObject({ more: true, total: { calls: 1001 } })
    expect(report.items).toHaveLength(1000)
  })
})

test('GET /v1/chats/{id}/usage sums the turns, and the calls by purpose', async () => {
  const chatId = await answered()
  await answered()
  await user.client.send(chatId, 'again')
  await user.client.settled(chatId)
  await settled(3)
  const read = () => user.client.request<ChatUsage>('GET', `/v1/chats/${chatId}/usage`)
  const { calls: _, failed: __, underWay: ___, ...used } = sums(2)
  expect(await read()).toMatchObject({
    status: 200,
    body: { turns: { turns: 2, ...used }, calls: sums(2), purposes: [{ purpose: 'chat', ...sums(2) }] },
  })
  const stranger = await turnmill.addUser()
  expect(await stranger.client.request('GET', `/v1/chats/${chatId}/usage`)).toMatchObject({ status: 404 })
})

interface AgedCall {
  at: Date
  model?: string
  settled?: boolean
}

/** Calls as they were written at that time. Gives their IDs. */
async function addCalls(calls: readonly AgedCall[]): Promise<string[]> {
  const { prisma } = turnmill.services.db
  const rows = calls.map(({ at, model = 'fake-1', settled: isSettled = true }) => ({
    id: v7({ msecs: at.getTime() }), apiKeyId: user.apiKeyId, userId: user.userId, providerId: turnmill.provider.id, provider: 'fake',
    model, purpose: 'chat', endpoint: '/v1/responses', streamed: true, credentialKind: 'central', startedAt: at, deadlineAt: at,
    settledAt: isSettled ? at : null,
  })) // prettier-ignore
  await prisma.interception.createMany({ data: rows })
  const ids = rows.map(({ id }) => id)
  const tokens = { inputTokens: 1n, outputTokens: 1n, cacheReadTokens: 0n, cacheWriteTokens: 0n, reasoningTokens: 0n } // prettier-ignore
  await prisma.tokenUsage.createMany({ data: ids.map((interceptionId) => ({ interceptionId, ...tokens })) })
  await prisma.userPrompt.createMany({
    data: ids.map((interceptionId) => ({ interceptionId, text: 'said' })),
  })
  await prisma.toolUsage.createMany({ data: ids.map((interceptionId) => ({ interceptionId, position: 1, callId: 'c', name: 'n' })) }) // prettier-ignore
  return ids
}

const daysAgo = (days: number): Date => new Date(Date.now() - days * DAY_MS)

describe('retention', () => {
  const kept = async () => {
    const { prisma } = turnmill.services.db
    const [records, tokens, prompts, tools] = await Promise.all([
      prisma.interception.findMany({ select: { id: true } }),
      prisma.tokenUsage.findMany({ select: { interceptionId: true } }),
      prisma.userPrompt.findMany({ select: { interceptionId: true } }),
      prisma.toolUsage.findMany({ select: { interceptionId: true } }),
    ])
    return {
      records: records.map(({ id }) => id).sort(),
      tokens: tokens.map(({ interceptionId }) => interceptionId).sort(),
      prompts: prompts.map(({ interceptionId }) => interceptionId).sort(),
      tools: tools.map(({ interceptionId }) => interceptionId).sort(),
    }
  }

  test('forgets records after 90 days and prompts after 30, and nothing that is not settled', async () => {
    const old = { at: daysAgo(91) }
    const [, unsettled = '', middle = '', recent = ''] = await addCalls([
      old,
      { ...old, settled: false },
      { at: daysAgo(31) },
      { at: daysAgo(29) },
    ])
    // In one pass an overdue call is settled and then forgotten: without that, it stays.
    await pruneRecords(turnmill.services.db, turnmill.config, 500)
    const stay = [unsettled, middle, recent].sort()
    expect(await kept()).toEqual({ records: stay, tokens: stay, prompts: [recent], tools: stay })
    await turnmill.services.reconciler.pass()
    await turnmill.services.reconciler.pass()
    expect((await kept()).records).toEqual([middle, recent].sort())
  })

  test('is part of the reconciler’s pass, 500 rows at a time, the oldest first', async () => {
    const ids = await addCalls(Array.from({ length: 501 }, (_, n) => ({ at: new Date(daysAgo(200).getTime() + n * 60_000) }))) // prettier-ignore
    await turnmill.services.reconciler.pass()
    const last = [ids.at(-1)]
    // The prompts go with the records, and by themselves.
    expect(await kept()).toEqual({ records: last, tokens: last, prompts: [], tools: last })
    await turnmill.services.reconciler.pass()
    expect((await kept()).records).toEqual([])
  })
})

const toSql = (value: unknown): string => {
  if (value instanceof Date) return `'${value.toISOString()}'`
  if (typeof value === 'string') return `'${value}'`
  return typeof value === 'number' ? String(value) : 'null'
}

describe('what is asked of the books is found by an index', () => {
  interface Plan {
    'QUERY PLAN': string
  }

  /** The plan that Postgres makes of a statement while there is much to read. */
  async function explain(text: string): Promise<string> {
    const rows = await query<Plan>(turnmill.services.db, statement(`test/explain-${newId()}`, `explain ${text}`)()) // prettier-ignore
    return rows.map((row) => row['QUERY PLAN']).join('\n')
  }

  test('for retention and for periods', async () => {
    const { db } = turnmill.services
    await db.prisma
      .$executeRaw`insert into interceptions (id, api_key_id, user_id, provider_id, provider, model, purpose, chat_id, endpoint, streamed, credential_kind, started_at, deadline_at, settled_at)
      select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7000800000000000' || lpad(to_hex(n % 65536), 4, '0'))::uuid,
        gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'fake', 'm', 'chat', gen_random_uuid(), '/', true, 'none', at, at, at
      from (select n, now() - n * interval '10 minutes' as at from generate_series(1, 20000) n) calls`
    await db.prisma.$executeRaw`insert into user_prompts select id, 'said' from interceptions`
    await db.prisma.$executeRaw`insert into token_usages select id, 1, 1, 0, 0, 0 from interceptions`
    await db.prisma.$executeRawUnsafe('analyze interceptions, user_prompts, token_usages')
    const bind = ({ text, values }: { text: string; values: unknown[] }): string =>
      text.replaceAll(/\$(\d+)/g, (_, n: string) => toSql(values[Number(n) - 1]))
    expect(await explain(bind(pruneInterceptions(90, 500)))).toMatch(/Index Scan using interceptions_pkey/)
    expect(await explain(bind(prunePrompts(30, 500)))).toMatch(/Index (Only )?Scan using user_prompts_pkey/)
    const period = [daysAgo(1), new Date()] as const
    const [chat, key, owner] = [newId(), newId(), newId()]
    expect(await explain(bind(sumCalls('all', 'day')(...period, null, null, null, 10)))).toMatch(/Scan (using|on) interceptions_pkey/) // prettier-ignore
    expect(await explain(bind(sumCalls('chat', 'purpose')(...period, chat, null, null, 10)))).toMatch(/interceptions_chat_id_started_at_idx/) // prettier-ignore
    expect(await explain(bind(sumCalls('key', 'model')(...period, null, key, null, 10)))).toMatch(/interceptions_api_key_id_started_at_idx/) // prettier-ignore
    expect(await explain(bind(sumCalls('user', null)(...period, null, null, owner, 10)))).toMatch(/interceptions_user_id_started_at_idx/) // prettier-ignore
  })
})
