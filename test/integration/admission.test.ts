/** How many turns of a user run at once, counted on the rows. */
import { query, statement } from '../../src/db/index.ts'
import { hold } from '../support/fake-upstream.ts'
import { BACKENDS, startTurnmill, type Turnmill } from '../support/turnmill.ts'

const LIMIT = 5

/** $1 user. When each turn began to run and when it ended. */
const runs = statement(
  'test/runs',
  `select extract(epoch from claimed_at) * 1000 as began, extract(epoch from finished_at) * 1000 as ended
  from turns where user_id = $1 and claimed_at is not null`,
)

/** The most that ran at the same moment. An end comes before a beginning of the same millisecond. */
function mostAtOnce(spans: readonly { began: string; ended: string }[]): number {
  const changes = spans
    .flatMap(({ began, ended }) => [
      { at: Number(began), by: 1 },
      { at: Number(ended), by: -1 },
    ])
    .sort((one, other) => one.at - other.at || one.by - other.by)
  let running = 0
  return changes.reduce((most, { by }) => Math.max(most, (running += by)), 0)
}

describe.each(BACKENDS)('200 sends at once by one user on the %s backend', (backend) => {
  let turnmill: Turnmill
  beforeAll(async () => {
    turnmill = await startTurnmill({ backend, environment: { TURNMILL_RUNNING_ROOT_TURNS: String(LIMIT) } })
  })
  afterAll(() => turnmill.stop())

  test(`never run more than ${LIMIT} turns, and all finish`, async () => {
    turnmill.upstream.script({ type: 'answer', delayMs: 2 })
    const { client, userId } = await turnmill.addUser()
    const chats = await Promise.all(Array.from({ length: 20 }, (_, index) => client.create(`chat ${index}`)))
    for (const { chat, turn } of chats) await client.ended(chat.id, turn.id)
    const contents = Array.from({ length: 10 }, (_, index) => `message ${index}`)
    const sent = chats.flatMap(({ chat }) => contents.map((content) => client.send(chat.id, content)))
    expect(await Promise.all(sent)).toHaveLength(200)
    for (const { chat } of chats) expect(await client.settled(chat.id)).toMatchObject({ status: 'idle' })
    for (const { chat } of chats) {
      const answered = (await client.messages(chat.id)).filter(({ role }) => role === 'assistant')
      expect(answered).toHaveLength(11)
    }
    const spans = await query<{ began: string; ended: string }>(turnmill.services.db, runs(userId))
    expect(spans).toHaveLength(220)
    expect(mostAtOnce(spans)).toBeLessThanOrEqual(LIMIT)
    expect(mostAtOnce(spans)).toBeGreaterThan(1)
  })

  test('of one user do not keep another waiting', async () => {
    const gate = hold()
    turnmill.upstream.script(({ text }) => ({
      type: 'answer',
      ...(text === 'one' ? {} : { gate, gateAt: 0 }),
    }))
    const [tenant, other] = [await turnmill.addUser(), await turnmill.addUser()]
    const many = await Promise.all(
      Array.from({ length: 100 }, (_, index) => tenant.client.create(`turn ${index}`)),
    )
    const one = await other.client.create('one')
    await other.client.ended(one.chat.id, one.turn.id)
    const states = await turnmill.services.db.prisma.turn.groupBy({
      by: ['state'],
      where: { userId: tenant.userId },
      _count: true,
    })
    expect(states.find(({ state }) => state === 'pending')?._count).toBe(100 - LIMIT)
    gate.release()
    for (const { chat, turn } of many) await tenant.client.ended(chat.id, turn.id)
  })
})

describe('a fleet that cannot keep up', () => {
  test('takes no further turns until it has caught up, and everything else', async () => {
    const turnmill = await startTurnmill({ workers: 0, environment: { TURNMILL_SHED_AFTER_MS: '100' } })
    try {
      const { client } = await turnmill.addUser()
      const { chat, turn } = await client.create('first')
      const send = () => client.request('POST', `/v1/chats/${chat.id}/messages`, { content: 'next' })
      const create = () => client.request('POST', '/v1/chats', { content: 'x' })
      let refused = await create()
      while (refused.status === 201) refused = await create()
      expect(refused).toMatchObject({ status: 503, body: { code: 'overloaded' } })
      expect(refused.headers.get('retry-after')).toBe('10')
      expect(await send()).toMatchObject({ status: 503 })
      expect(await client.request('GET', `/v1/chats/${chat.id}`)).toMatchObject({ status: 200 })
      expect(await client.request('PATCH', `/v1/chats/${chat.id}`, { title: 'x' })).toMatchObject({
        status: 200,
      })
      turnmill.addWorker()
      await client.ended(chat.id, turn.id)
      await client.settled(chat.id)
      let taken = await send()
      while (taken.status === 503) taken = await send()
      expect(taken.status).toBe(202)
    } finally {
      await turnmill.stop()
    }
  })
})
