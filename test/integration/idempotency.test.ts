import { createApp } from '../../src/app.ts'
import { createChats, type AdmittedTurn } from '../../src/chats/index.ts'
import { joinTransaction, query, statement, type Database } from '../../src/db/index.ts'
import { TurnmillError } from '../../src/protocol/errors.ts'
import { newId } from '../../src/protocol/ids.ts'
import type { ChatView, TurnView } from '../../src/protocol/views.ts'
import type { Answer, Started, TestClient } from '../support/client.ts'
import { hold } from '../support/fake-upstream.ts'
import { PNG } from '../support/images.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

interface Problem {
  code: string
}

let turnmill: Turnmill
let user: TestUser
let db: Database
beforeAll(async () => {
  turnmill = await startTurnmill({ backend: 'redis' })
  db = turnmill.services.db
})
afterAll(() => turnmill.stop())
beforeEach(async () => {
  turnmill.upstream.reset()
  user = await turnmill.addUser()
})

interface Sent {
  method?: 'POST' | 'PATCH'
  path: string
  body?: unknown
  key: string
}

/** Sends a keyed request once. */
const send = <T>(client: TestClient, { method = 'POST', path, body, key }: Sent): Promise<Answer<T>> =>
  client.request<T>(method, path, body, { 'idempotency-key': key })

const isReplayed = (answer: Answer<unknown>): boolean => answer.headers.get('idempotency-replayed') === 'true'

/** Sends a keyed request twice and gives its answer, which was the same both times. */
async function sendTwice<T>(client: TestClient, sent: Sent): Promise<Answer<T>> {
  const first = await send<T>(client, sent)
  const second = await send<T>(client, sent)
  expect([isReplayed(first), isReplayed(second)]).toEqual([false, true])
  expect([second.status, second.body]).toEqual([first.status, first.body])
  expect(second.headers.get('content-type')).toBe(first.headers.get('content-type'))
  return first
}

/** A chat whose first turn is held before its first part. */
async function busyChat(client: TestClient = user.client) {
  const gate = hold()
  turnmill.upstream.script((request) =>
    request.text === 'first' ? { type: 'answer', gate, gateAt: 0 } : { type: 'answer' },
  )
  const started = await client.create('first')
  await turnmill.upstream.waitForRequest(1)
  return { ...started, gate, path: `/v1/chats/${started.chat.id}/messages` }
}

async function idleChat() {
  const { chat, message, turn } = await user.client.create('first')
  await user.client.ended(chat.id, turn.id)
  return { chat, message, path: `/v1/chats/${chat.id}/messages` }
}

const countKeys = (key: string): Promise<number> =>
  db.prisma.idempotencyKey.count({ where: { apiKeyId: user.apiKeyId, key } })
const countChats = (userId = user.userId): Promise<number> => db.prisma.chat.count({ where: { userId } })

describe('a request sent twice under one key (A5)', () => {
  test('creates one chat, whose turn runs once', async () => {
    const { status, body } = await sendTwice<Started & { chat: ChatView }>(user.client, {
      path: '/v1/chats',
      body: { content: 'hi' },
      key: 'k',
    })
    expect(status).toBe(201)
    await user.client.ended(body.chat.id, body.turn.id)
    expect(await countChats()).toBe(1)
    expect(turnmill.upstream.requests).toHaveLength(1)
    expect(await user.client.turns(body.chat.id)).toMatchObject([{ epoch: 1, state: 'completed' }])
  })

  test('sends one message to an idle chat', async () => {
    const { chat, path } = await idleChat()
    await expect(
      sendTwice(user.client, { path, body: { content: 'second' }, key: 'k' }),
    ).resolves.toMatchObject({
      status: 202,
      body: { turn: { number: 2 } },
    })
    await user.client.settled(chat.id)
    expect(await user.client.turns(chat.id)).toHaveLength(2)
    expect(await user.client.messages(chat.id)).toHaveLength(4)
  })

  test('queues one message of a busy chat', async () => {
    const { chat, path, gate } = await busyChat()
    await expect(
      sendTwice(user.client, { path, body: { content: 'second' }, key: 'k' }),
    ).resolves.toMatchObject({ body: { queuedMessage: { chatId: chat.id } } })
    expect(await db.prisma.queuedMessage.count({ where: { chatId: chat.id } })).toBe(1)
    gate.release()
    await user.client.settled(chat.id)
  })

  test('edits once', async () => {
    const { chat, message, path } = await idleChat()
    const sent = {
      method: 'PATCH',
      path: `${path}/${message.id}`,
      body: { content: 'edited' },
      key: 'k',
    } as const
    await expect(sendTwice(user.client, sent)).resolves.toMatchObject({ status: 202 })
    await user.client.settled(chat.id)
    expect(await user.client.turns(chat.id)).toHaveLength(2)
  })

  test('retries once', async () => {
    turnmill.upstream.script({ type: 'answer', ending: 'error' })
    const { chat, turn } = await user.client.create('hi')
    await user.client.ended(chat.id, turn.id)
    turnmill.upstream.script({ type: 'answer' })
    const { body } = await sendTwice<{ turn: TurnView }>(user.client, {
      path: `/v1/chats/${chat.id}/retry`,
      key: 'k',
    })
    expect(body.turn).toMatchObject({ number: 2, trigger: 'retry' })
    await expect(user.client.ended(chat.id, body.turn.id)).resolves.toMatchObject({ state: 'completed' })
    expect(await user.client.turns(chat.id)).toHaveLength(2)
  })

  test('stops once, and a stop that was answered does not stop what runs later', async () => {
    const { chat, path, gate } = await busyChat()
    await sendTwice(user.client, { path: `/v1/chats/${chat.id}/interrupt`, key: 'k' })
    await user.client.settled(chat.id)
    gate.release()
    await user.client.send(chat.id, 'second')
    const again = await send(user.client, { path: `/v1/chats/${chat.id}/interrupt`, key: 'k' })
    expect(isReplayed(again)).toBe(true)
    await user.client.settled(chat.id)
    const turns = await user.client.turns(chat.id)
    expect({ path, states: turns.map((turn) => turn.state) }).toMatchObject({
      states: ['completed', 'interrupted'],
    })
  })

  test('makes one API key; its token is given again and lies nowhere in plain', async () => {
    const { body } = await sendTwice<{ token: string }>(user.client, {
      path: '/v1/api-keys',
      body: { name: 'n' },
      key: 'k',
    })
    expect(body.token).toMatch(/^tm_/)
    expect(await db.prisma.apiKey.count({ where: { userId: user.userId } })).toBe(2)
    // The secret may hold an underscore of its own.
    const secret = body.token.slice('tm_'.length + 33)
    expect(secret).toHaveLength(43)
    const { rows } = await db.pool.query<{ row: string }>(
      'select k::text as row from idempotency_keys k where api_key_id = $1',
      [user.apiKeyId],
    )
    expect(rows).toHaveLength(1)
    expect(rows[0]?.row).not.toContain(secret)
    expect(rows[0]?.row).not.toContain('apiKey')
  })

  test('makes one user, one provider and one model config', async () => {
    const { client } = turnmill.admin
    const name = `p-${newId()}`
    const provider = { name, type: 'openai', baseUrl: 'https://example.com', keys: ['sk-0123456789'] }
    const { status, body } = await sendTwice<{ id: string }>(client, {
      path: '/v1/providers',
      body: provider,
      key: newId(),
    })
    expect(status).toBe(201)
    expect(await db.prisma.providerKey.count({ where: { providerId: body.id } })).toBe(1)
    const path = '/v1/model-configs'
    const config = { providerId: body.id, model: 'm', isDefault: true }
    const made = await sendTwice<{ id: string }>(client, { path, body: config, key: newId() })
    expect(made).toMatchObject({ status: 201, body: { isDefault: true } })
    expect(await db.prisma.modelConfig.count({ where: { providerId: body.id } })).toBe(1)
    const own = `${path}/${turnmill.modelConfig.id}`
    const change = { method: 'PATCH', path: own, body: { isDefault: true }, key: newId() } as const
    await expect(sendTwice(client, change)).resolves.toMatchObject({ status: 200, body: { isDefault: true } })
    await sendTwice(client, { path: '/v1/users', body: { name }, key: newId() })
    expect(await db.prisma.user.count({ where: { name } })).toBe(1)
  })
})

describe('fifty at once under one key (A5)', () => {
  const fifty = async (client: TestClient, sent: Sent): Promise<Answer<Record<string, unknown>>> => {
    const answers = await Promise.all(
      Array.from({ length: 50 }, () => send<Record<string, unknown>>(client, sent)),
    )
    expect(new Set(answers.map(({ status, body }) => JSON.stringify([status, body]))).size).toBe(1)
    expect(answers.filter((answer) => !isReplayed(answer))).toHaveLength(1)
    return answers[0]!
  }

  test('create one chat', async () => {
    expect(await fifty(user.client, { path: '/v1/chats', body: { content: 'hi' }, key: 'k' })).toMatchObject({
      status: 201,
    })
    expect(await countChats()).toBe(1)
    expect(await db.prisma.turn.count({ where: { userId: user.userId } })).toBe(1)
  })

  test('send one message, under a named model', async () => {
    const { chat, path } = await idleChat()
    const body = { content: 'second', modelConfigId: turnmill.modelConfig.id }
    expect(await fifty(user.client, { path, body, key: 'k' })).toMatchObject({ status: 202 })
    await user.client.settled(chat.id)
    expect(await user.client.messages(chat.id)).toHaveLength(4)
  })

  test('make one API key', async () => {
    const sent = { path: '/v1/api-keys', body: { name: 'n' }, key: 'k' }
    expect(await fifty(user.client, sent)).toMatchObject({ status: 201 })
    expect(await db.prisma.apiKey.count({ where: { userId: user.userId } })).toBe(2)
  })
})

describe('a key', () => {
  test('stands for one method, path and body; how the JSON is written does not matter', async () => {
    const { chat, path } = await idleChat()
    const other = await idleChat()
    const sent = { path, body: { content: 'x', whenBusy: 'queue' }, key: 'k' }
    const first = await send(user.client, sent)
    const refusal = { status: 422, body: { code: 'idempotency_key_reused' } }
    expect(await send(user.client, { ...sent, body: { ...sent.body, content: 'y' } })).toMatchObject(refusal)
    expect(await send(user.client, { ...sent, path: other.path })).toMatchObject(refusal)
    expect(await send(user.client, { path: '/v1/chats', body: { content: 'x' }, key: 'k' })).toMatchObject(
      refusal,
    )
    expect(await send(user.client, { ...sent, path: `${path}?x=1` })).toMatchObject({ body: first.body })
    const respelled = await fetch(turnmill.address + path, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${user.token}`,
        'content-type': 'application/json',
        'idempotency-key': 'k',
      },
      body: ' {"whenBusy" : "queue",\n "content": "\\u0078"}',
    })
    expect(await respelled.json()).toEqual(first.body)
    await user.client.settled(chat.id)
    expect(await user.client.turns(chat.id)).toHaveLength(2)
    expect(await user.client.turns(other.chat.id)).toHaveLength(1)
  })

  test('belongs to one API key, also among those of one user', async () => {
    const second = await turnmill.addKey(user.userId)
    const sent = { path: '/v1/chats', body: { content: 'hi' }, key: 'k' }
    const [mine, theirs] = [await send(user.client, sent), await send(second.client, sent)]
    expect([isReplayed(mine), isReplayed(theirs)]).toEqual([false, false])
    expect(await countChats()).toBe(2)
  })

  test.each([
    ['empty', ''],
    ['too long', 'x'.repeat(256)],
    ['not ASCII', 'é'],
  ])('that is %s is refused, and nothing is written', async (_, key) => {
    const answer = await send(user.client, { path: '/v1/chats', body: { content: 'hi' }, key })
    expect(answer).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
    expect(await countChats()).toBe(0)
  })

  test('may have 255 characters, spaces among them', async () => {
    const key = `a ${'~'.repeat(253)}`
    await sendTwice(user.client, { path: '/v1/chats', body: { content: 'hi' }, key })
  })

  test('is not spent by a body that is refused', async () => {
    const refused = await send(user.client, { path: '/v1/chats', body: { content: '' }, key: 'k' })
    expect(refused.status).toBe(400)
    expect(await send(user.client, { path: '/v1/chats', body: { content: 'hi' }, key: 'k' })).toMatchObject({
      status: 201,
    })
  })
})

describe('a refusal', () => {
  test('that sending again cannot change is kept, without its effect', async () => {
    const { chat, path, gate } = await busyChat()
    const sent = { path, body: { content: 'no', whenBusy: 'reject' }, key: 'k' }
    const refused = await sendTwice<Problem>(user.client, sent)
    expect(refused).toMatchObject({ status: 409, body: { code: 'chat_busy' } })
    gate.release()
    await user.client.settled(chat.id)
    const again = await send(user.client, sent)
    expect([isReplayed(again), again.body]).toEqual([true, refused.body])
    expect(await user.client.messages(chat.id)).toHaveLength(2)
  })

  test('by a constraint of the database is kept as what the handler makes of it', async () => {
    const provider = { name: 'fake', type: 'openai', baseUrl: 'https://example.com' }
    await expect(
      sendTwice(turnmill.admin.client, { path: '/v1/providers', body: provider, key: newId() }),
    ).resolves.toMatchObject({ status: 409, body: { code: 'conflict' } })
  })

  test('that asks to be sent again is not kept', async () => {
    const { chat, path, gate } = await busyChat()
    for (let count = 0; count < 20; count++) await user.client.send(chat.id, `q${count}`)
    const sent = { path, body: { content: 'one more' }, key: 'k' }
    expect(await send(user.client, sent)).toMatchObject({ status: 409, body: { code: 'queue_full' } })
    expect(await countKeys('k')).toBe(0)
    gate.release()
    await user.client.settled(chat.id)
    const again = await send(user.client, sent)
    expect(again).toMatchObject({ status: 202 })
    expect(isReplayed(again)).toBe(false)
    await user.client.settled(chat.id)
  })
})

describe('after 24 hours', () => {
  const age = (key: string) =>
    db.pool.query(
      `update idempotency_keys set created_at = created_at - interval '24 hours' where key = $1`,
      [key],
    )

  test('a key is forgotten and may be used anew; a younger one stays', async () => {
    const [old, young] = [newId(), newId()]
    const sent = { path: '/v1/chats', body: { content: 'hi' }, key: old }
    await send(user.client, sent)
    await send(user.client, { ...sent, key: young })
    await turnmill.services.reconciler.pass()
    expect([await countKeys(old), await countKeys(young)]).toEqual([1, 1])
    await age(old)
    await turnmill.services.reconciler.pass()
    expect([await countKeys(old), await countKeys(young)]).toEqual([0, 1])
    expect(isReplayed(await send(user.client, sent))).toBe(false)
    expect(await countChats()).toBe(3)
  })

  test('a queued message that was promoted or deleted is forgotten, one that waits is not', async () => {
    const { chat, path, gate } = await busyChat()
    await user.client.send(chat.id, 'waits')
    const { body } = await user.client.request<{ queuedMessage: { id: string } }>('POST', path, {
      content: 'deleted',
    })
    await user.client.request('DELETE', `/v1/chats/${chat.id}/queue/${body.queuedMessage.id}`)
    const states = async () =>
      (await db.prisma.queuedMessage.findMany({ where: { chatId: chat.id }, orderBy: { id: 'asc' } })).map(
        (row) => row.state,
      )
    await turnmill.services.reconciler.pass()
    expect(await states()).toEqual(['queued', 'deleted'])
    await db.pool.query(
      `update queued_messages set updated_at = updated_at - interval '24 hours' where chat_id = $1`,
      [chat.id],
    )
    await turnmill.services.reconciler.pass()
    expect(await states()).toEqual(['queued'])
    gate.release()
    await user.client.settled(chat.id)
  })

  test.each([
    ['idempotency_keys', 'created_at', 'true'],
    ['queued_messages', 'updated_at', `state <> 'queued'`],
  ])('the rows of %s are found by an index', async (table, column, condition) => {
    const connection = await db.pool.connect()
    try {
      await connection.query('begin; set local enable_seqscan = off; set local enable_sort = off')
      const { rows } = await connection.query<{ 'QUERY PLAN': string }>(
        `explain select from ${table} where ${condition}
          and ${column} < (select clock_timestamp() - interval '24 hours') order by ${column} limit 500`,
      )
      expect(rows.map((row) => row['QUERY PLAN']).join('\n')).toMatch(/Index Cond: \(\w+ < /)
      await connection.query('rollback')
    } finally {
      connection.release()
    }
  })
})

const terminate = statement('test/terminate', 'select pg_terminate_backend(pg_backend_pid())')

/** An application whose keyed creates run `between` the effect and the commit. */
async function appWith(between: (joined: Database) => Promise<unknown>, told: string[] = []) {
  const { services } = turnmill
  const base = createChats({
    db,
    limits: turnmill.config,
    leaseMs: turnmill.config.leaseMs,
    auxiliary: { titles: false, labels: false },
    onRuns: async () => undefined,
    onAdmitted: async (turns: readonly AdmittedTurn[]) => {
      for (const { turnId } of turns) {
        const visible = await db.prisma.turn.count({ where: { id: turnId } })
        told.push(visible === 1 ? 'admitted after the commit' : 'admitted before the commit')
      }
    },
    onChanged: () => void told.push('changed'),
    onStop: () => void told.push('stop'),
    onFenced: () => undefined,
  })
  const within: typeof base.within = (joined) => {
    const { chats, tell } = base.within(joined)
    const create: typeof chats.create = async (...input) => {
      const created = await chats.create(...input)
      await between(joined)
      return created
    }
    return { chats: { ...chats, create }, tell }
  }
  return createApp({ ...services, chats: { ...base, within } })
}

type App = Awaited<ReturnType<typeof appWith>>

const inject = async (app: App, key: string) => {
  const { statusCode, headers } = await app.inject({
    method: 'POST',
    url: '/v1/chats',
    headers: { authorization: `Bearer ${user.token}`, 'idempotency-key': key },
    payload: { content: 'hi' },
  })
  return { status: statusCode, replayed: headers['idempotency-replayed'] === 'true' }
}

describe('a request that dies between its effect and its commit', () => {
  test('leaves neither (I-K1), and is carried out when it is sent again', async () => {
    const dying = [true]
    const app = await appWith(async (joined) => {
      if (dying.pop() === true) await query(joined, terminate())
    })
    try {
      expect(await inject(app, 'k')).toEqual({ status: 503, replayed: false })
      expect([await countChats(), await countKeys('k')]).toEqual([0, 0])
      expect(await inject(app, 'k')).toEqual({ status: 201, replayed: false })
      expect(await inject(app, 'k')).toEqual({ status: 201, replayed: true })
      expect(await countChats()).toBe(1)
    } finally {
      await app.close()
    }
  })

  test('by a bug answers 500 and keeps nothing', async () => {
    const app = await appWith(() => Promise.reject(new Error('a bug')))
    try {
      expect(await inject(app, 'k')).toEqual({ status: 500, replayed: false })
      expect([await countChats(), await countKeys('k')]).toEqual([0, 0])
    } finally {
      await app.close()
    }
  })

  test('by a refusal that is kept leaves the key and nothing else (I-K3), and tells nothing', async () => {
    const told: string[] = []
    const refuse = () => Promise.reject(new TurnmillError('conflict', 'refused after the effect'))
    const app = await appWith(refuse, told)
    try {
      expect(await inject(app, 'k')).toEqual({ status: 409, replayed: false })
      expect(await inject(app, 'k')).toEqual({ status: 409, replayed: true })
      expect([await countChats(), await countKeys('k'), told]).toEqual([0, 1, []])
    } finally {
      await app.close()
    }
  })

  test('lets its twin, which has waited, do the work (I-K2)', async () => {
    const [reached, gate] = [hold(), hold()]
    const bugs = [true]
    const app = await appWith(async () => {
      if (bugs.pop() !== true) return
      reached.release()
      await gate.opened
      throw new Error('a bug')
    })
    try {
      const first = inject(app, 'k')
      await reached.opened
      const twin = inject(app, 'k')
      const waits = `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
      while ((await db.pool.query(waits)).rowCount === 0);
      gate.release()
      expect(await first).toMatchObject({ status: 500 })
      expect(await twin).toEqual({ status: 201, replayed: false })
      expect(await countChats()).toBe(1)
    } finally {
      await app.close()
    }
  })
})

describe('what a keyed request tells', () => {
  test('is told once, after the commit, and never by a replay', async () => {
    const told: string[] = []
    const app = await appWith(async () => {
      expect(told).toEqual([])
    }, told)
    try {
      await inject(app, 'k')
      expect(told).toEqual(['changed', 'admitted after the commit'])
      expect(await inject(app, 'k')).toMatchObject({ replayed: true })
      expect(told).toHaveLength(2)
    } finally {
      await app.close()
    }
  })

  test('is told by the run that committed alone, where a deadlock ended an earlier one', async () => {
    const others = [await turnmill.addUser(), await turnmill.addUser()]
    const rename = (joined: Database, place: number) =>
      joined.prisma.user.update({ where: { id: others[place]?.userId ?? '' }, data: { name: newId() } })
    const bothHold = hold()
    let holding = 0
    const cross = async (joined: Database, order: readonly [number, number]): Promise<void> => {
      await rename(joined, order[0])
      if (++holding === 2) bothHold.release()
      await bothHold.opened
      await rename(joined, order[1])
    }
    const told: string[] = []
    const app = await appWith((joined) => cross(joined, [0, 1]), told)
    try {
      const [answer] = await Promise.all([
        inject(app, 'k'),
        joinTransaction(db, (joined) => cross(joined, [1, 0])),
      ])
      expect({ answer, holding, told }).toEqual({
        answer: { status: 201, replayed: false },
        holding: 3,
        told: ['changed', 'admitted after the commit'],
      })
      expect(await countChats()).toBe(1)
    } finally {
      await app.close()
    }
  })
})

describe('every POST and PATCH of the API', () => {
  interface LiveOperation {
    parameters?: { in: string; name: string }[]
  }

  /** Bodies that the routes accept; a route that is not named here is sent a message. */
  const bodies: Readonly<Record<string, unknown>> = {
    '/v1/users': { name: 'n' },
    '/v1/users/{id}': { name: 'n' },
    '/v1/api-keys': { name: 'n' },
    '/v1/providers': { name: 'walked', type: 'openai', baseUrl: 'https://example.com' },
    '/v1/providers/{id}': { allowByok: true },
    '/v1/model-configs/{id}': { displayName: 'n' },
    '/v1/chats/{id}': { title: 'n' },
    '/v1/files': PNG,
    '/v1/chats/{id}/tool-results': { results: [{ toolCallId: 'x', output: 1 }] },
  }

  let idle: Turnmill
  beforeAll(async () => {
    // Nothing may take a connection beside the requests that are counted.
    const environment = { TURNMILL_WATCH_POLL_MS: '600000' }
    idle = await startTurnmill({ backend: 'redis', workers: 0, environment })
  })
  afterAll(() => idle.stop())

  async function liveOperations() {
    const { body } = await idle.admin.client.request<{
      paths: Record<string, Record<string, LiveOperation>>
    }>('GET', '/openapi.json')
    return Object.entries(body.paths).flatMap(([url, operations]) =>
      Object.entries(operations).map(([method, operation]) => ({
        method: method.toUpperCase(),
        url,
        documented: (operation.parameters ?? []).some(
          (parameter) => parameter.in === 'header' && parameter.name === 'idempotency-key',
        ),
      })),
    )
  }

  test('documents the header, and no other method does', async () => {
    for (const { method, url, documented } of await liveOperations())
      expect({ method, url, documented }).toEqual({
        method,
        url,
        documented: method === 'POST' || method === 'PATCH',
      })
  })

  test('honours it on the one connection of its transaction (I-K4)', async () => {
    const { client } = idle.admin
    const { chat, message } = await client.create('hi')
    const queued = await client.request<{ queuedMessage: { id: string } }>(
      'POST',
      `/v1/chats/${chat.id}/messages`,
      { content: 'queued' },
    )
    let acquired = 0
    idle.services.db.pool.on('acquire', () => acquired++)
    const ids: Record<string, string> = {
      messageId: message.id,
      queuedId: queued.body.queuedMessage.id,
    }
    const idOf = (url: string): string =>
      url.startsWith('/v1/providers') ? idle.provider.id
        : url.startsWith('/v1/model-configs') ? idle.modelConfig.id
        : chat.id // prettier-ignore
    const walked = (await liveOperations()).filter(({ method }) => method === 'POST' || method === 'PATCH')
    expect(walked.length).toBeGreaterThan(10)
    let replayed = 0
    for (const { method, url } of walked) {
      const path = url.replaceAll(/\{(\w+)\}/g, (_, name: string) => ids[name] ?? idOf(url))
      const body =
        url === '/v1/model-configs'
          ? { providerId: idle.provider.id, model: 'm' }
          : (bodies[url] ?? { content: 'walked' })
      const sent = { method: method as 'POST' | 'PATCH', path, body, key: url + method }
      acquired = 0
      const first = await send<Problem>(client, sent)
      // One to authenticate, one for the transaction.
      expect({ method, url, acquired }).toEqual({ method, url, acquired: first.status === 400 ? 1 : 2 })
      const second = await send<Problem>(client, sent)
      expect({ method, url, status: second.status, code: second.body.code }).toEqual({
        method,
        url,
        status: first.status,
        code: first.body.code,
      })
      expect({ method, url, replayed: isReplayed(second) }).toEqual({
        method,
        url,
        replayed: first.status !== 400,
      })
      if (isReplayed(second)) replayed++
    }
    expect(replayed).toBeGreaterThan(10)
  })

  test('pays nothing where it is not sent', async () => {
    let acquired = 0
    const count = (): void => {
      acquired++
    }
    idle.services.db.pool.on('acquire', count)
    await idle.admin.client.create('hi')
    idle.services.db.pool.off('acquire', count)
    expect(acquired).toBe(2)
  })
})
