/** A call is held to what it may cost, whatever its body says and its provider reports. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { query, statement } from '../../src/db/index.ts'
import { createModelConfig, createProvider } from '../../src/models/index.ts'
import { Secret } from '../../src/protocol/secret.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

type Answer = (response: ServerResponse, body: string, request: IncomingMessage) => void

const [FIRST_KEY, SECOND_KEY] = ['central-key-of-bounds-0001', 'central-key-of-bounds-0002']
let provider: Server
let answer: Answer
let asked: string[]
let turnmill: Turnmill
let user: TestUser

beforeAll(async () => {
  provider = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const body = Buffer.concat(chunks).toString()
      asked.push(body)
      answer(response, body, request)
    })
  })
  await new Promise<void>((resolve) => provider.listen(0, '127.0.0.1', resolve))
  turnmill = await startTurnmill({ workers: 0 })
  const origin = `http://127.0.0.1:${(provider.address() as AddressInfo).port}`
  const types = [
    ['real', 'openai', `${origin}/v1`],
    ['compatible', 'openai-compatible', `${origin}/v1`],
    ['claude', 'anthropic', `${origin}/v1`],
  ] as const
  for (const [name, type, baseUrl] of types) await addProvider(name, type, baseUrl)
})
afterAll(async () => {
  provider.closeAllConnections()
  provider.close()
  await turnmill.stop()
})
beforeEach(async () => {
  asked = []
  user = await turnmill.addUser()
})

async function addProvider(
  name: string,
  type: 'openai' | 'openai-compatible' | 'anthropic',
  baseUrl: string,
) {
  const { db, encryption } = turnmill.services
  const { id } = await createProvider(db, encryption, {
    name, type, baseUrl, enabled: true, allowByok: false, attribution: false,
    keys: [new Secret(FIRST_KEY), new Secret(SECOND_KEY)],
  }) // prettier-ignore
  await createModelConfig(db, {
    providerId: id, model: 'm', displayName: 'm', enabled: true, isDefault: false, contextWindow: null, maxOutputTokens: 50,
    options: {}, prices: { input: 1_000_000, output: 2_000_000, cacheRead: 500_000, cacheWrite: null },
  }) // prettier-ignore
}

const CHAT = '/v1/gateway/real/v1/chat/completions'
const COMPATIBLE = '/v1/gateway/compatible/v1/chat/completions'
const RESPONSES = '/v1/gateway/real/v1/responses'
const MESSAGES = '/v1/gateway/claude/v1/messages'
const HELLO = { model: 'm', max_tokens: 10, messages: [{ role: 'user', content: 'hello' }] }

const post = (path: string, body: object | string, signal?: AbortSignal): Promise<Response> =>
  fetch(turnmill.address + path, {
    method: 'POST',
    headers: { authorization: `Bearer ${user.token}`, 'content-type': 'application/json' },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    ...(signal === undefined ? {} : { signal }),
  })

/** Sends and reads to the end, however that looks. */
const callTo = async (path: string, body: object | string): Promise<string> =>
  (await post(path, body)).text().catch(() => '')

const limitTo = (limitMicros: number) =>
  turnmill.admin.client.request('POST', '/v1/budgets', {
    subject: 'key',
    subjectId: user.apiKeyId,
    period: 'total',
    limitMicros,
  })

interface Booked {
  settled: boolean
  cost: number
  input: number
  output: number
  estimated: boolean
}

const readCalls = statement(
  'test/bounds',
  `select i.settled_at is not null as settled, i.cost_micros::float8 as cost, i.estimated, u.input_tokens::float8 as input,
    u.output_tokens::float8 as output
  from interceptions i left join token_usages u on u.interception_id = i.id where i.api_key_id = $1 order by i.started_at`,
)

/** The user's only call, once it is settled. */
async function booked(): Promise<Booked> {
  for (;;) {
    const [call] = await query<Booked>(turnmill.services.db, readCalls(user.apiKeyId))
    if (call?.settled === true) return call
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

const whole =
  (usage: unknown): Answer =>
  (response) => {
    response.writeHead(200, { 'content-type': 'application/json' })
    response.end(JSON.stringify({ choices: [{ message: { role: 'assistant', content: 'hi' } }], usage }))
  }

/** Streams these events, and breaks off. */
const cutAfter =
  (...events: unknown[]): Answer =>
  (response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    for (const event of events) response.write(`data: ${JSON.stringify(event)}\n\n`)
    setTimeout(() => response.destroy(), 50)
  }

const delta = (fields: object) => ({ choices: [{ delta: fields }] })

describe('what a body asks for', () => {
  test('is not more than a call that ends with its answer', async () => {
    expect((await post(RESPONSES, { model: 'm', input: 'hello', background: true })).status).toBe(400)
    expect(asked).toEqual([])
  })

  test.each([
    '{"model":"dear","max_tokens":90000,"model":"m","max_tokens":1,"messages":[]}',
    '{"model":"m","Model":"dear","messages":[]}',
    '{"model":"m","MAX_TOKENS":90000,"messages":[]}',
    '{"model":"m","mo\\u0064el":"dear","messages":[]}',
    '{"model":"m","max_tokens":1,"max_token\u017f":90000,"messages":[]}',
    '{"model":"m","max_tokens":1,"max_token\\u017f":90000,"messages":[]}',
    '{"model":"m","max_tokens":1,"maxTokens":90000,"messages":[]}',
    '{"model":"m","max_tokens":1,"messages":[{"role":"user","content":[],"content":"x"}]}',
    '{"model":"m","max_tokens":1,"messages":[{"content":[{"image_url":{"url":"https://x/y","url":1}}]}]}',
    '{"model":"m","max_tokens":1,"messages":[],"tools":[{"type":"web_search","t\\u0079pe":"function"}]}',
    '{"model":"m","max_tokens":1,"messages":[{"__proto__":{"a":1},"__proto__":{"b":2}}]}',
  ])('is said once: %s', async (body) => {
    expect((await post(CHAT, body)).status).toBe(400)
    expect(asked).toEqual([])
  })

  test.each([{ models: ['dear'] }, { fallbacks: ['dear'] }, { service_tier: 'priority' }])(
    'has no price under a budget where it may be charged at another one: %j',
    async (more) => {
      await limitTo(1_000_000_000)
      expect((await post(CHAT, { ...HELLO, ...more })).status).toBe(409)
      expect(asked).toEqual([])
    },
  )

  test('is reserved for by what an image may be charged for', async () => {
    await limitTo(1000)
    const image = { type: 'image_url', image_url: { url: `data:image/png;base64,${'A'.repeat(100)}` } }
    const body = { ...HELLO, messages: [{ role: 'user', content: [image] }] }
    expect((await post(CHAT, body)).status).toBe(402)
    expect(asked).toEqual([])
  })

  test.each([
    { messages: [{ content: [{ type: 'image_url', Image_URL: { URL: 'https://x/y.png' } }] }] },
    { messages: [{ content: [{ type: 'image_url', imageUrl: { uRl: 'https://x/y.png' } }] }] },
    { messages: [{ content: [{ type: 'input_image', File_Id: 'file-1' }] }] },
    { messages: [{ role: 'assistant', Audio: { ID: 'audio_1' } }] },
    { tools: [{ type: 'function', Type: 'web_search' }] },
  ])('is reserved for however its names are written: %j', async (more) => {
    await limitTo(1000)
    expect((await post(CHAT, { ...HELLO, ...more })).status).toBe(402)
    expect(asked).toEqual([])
  })

  test.each([
    [CHAT, { data_sources: [{}] }],
    [CHAT, { messages: [{ role: 'user', content: [{ type: 'video', video: ['https://x/y'] }] }] }],
    [CHAT, { messages: [{ role: 'user', content: 'x', images: ['https://x/y'] }] }],
    [
      CHAT,
      {
        messages: [
          { role: 'user', content: [{ type: 'image_url', image_url: ['https://x/y', 'https://x/z'] }] },
        ],
      },
    ],
    [CHAT, { tools: [{ google_search: {} }] }],
    [CHAT, { extra_body: { google: { cached_content: 'c' } } }],
    [RESPONSES, { input: [{ id: 'msg_1' }] }],
    [RESPONSES, { input: [{ id: 'msg_1', type: null }] }],
    [RESPONSES, { input: [{ type: 'reasoning', id: 'rs_1', summary: [] }] }],
    [RESPONSES, { input: [{ type: 'image_generation_call', id: 'ig_1' }] }],
    [MESSAGES, { context_management: { edits: [] } }],
    [
      MESSAGES,
      {
        messages: [
          { role: 'user', content: [{ type: 'document', source: { type: 'url', url: 'https://x/y' } }] },
        ],
      },
    ],
  ])('is reserved for where it may stand for more than is known here: %s %j', async (path, more) => {
    await limitTo(1000)
    const { messages: _, max_tokens: limit, ...hello } = HELLO
    const body = path === RESPONSES ? { ...hello, max_output_tokens: limit } : HELLO
    expect((await post(path, { ...body, ...more })).status).toBe(402)
    expect(asked).toEqual([])
  })

  test.each([
    [MESSAGES, { speed: 'fast' }],
    [MESSAGES, { inference_geo: 'us' }],
    [MESSAGES, { tools: [{ type: 'advisor_20260301', name: 'advisor', model: 'dear' }] }],
    [CHAT, { modalities: ['text', 'audio'] }],
    [CHAT, { preset: 'dear' }],
  ])('has no price under a budget where it is charged by another rule: %s %j', async (path, more) => {
    await limitTo(1_000_000_000)
    expect((await post(path, { ...HELLO, ...more })).status).toBe(409)
    expect(asked).toEqual([])
  })

  test('does not go on when its call is over', async () => {
    expect((await post(COMPATIBLE, { ...HELLO, deferred: true })).status).toBe(400)
  })

  test.each<[string, object]>([
    [
      MESSAGES,
      {
        messages: [
          {
            role: 'assistant',
            content: [
              { type: 'tool_use', id: 't', name: 'fetch', input: { url: 'https://x/y', curl: 'abc' } },
            ],
          },
          {
            role: 'user',
            content: [{ type: 'tool_result', tool_use_id: 't', content: [{ type: 'text', text: 'found' }] }],
          },
        ],
      },
    ],
    [
      MESSAGES,
      {
        tools: [
          { type: 'text_editor_20250728', name: 'e' },
          { type: 'bash_20250124', name: 'b' },
          { type: null, name: 'f', input_schema: {} },
        ],
      },
    ],
    [MESSAGES, { max_tokens: 0 }],
    [
      CHAT,
      {
        messages: [
          { role: 'assistant', content: 'x', audio: null, refusal: null, annotations: [] },
          { role: 'tool', tool_call_id: 'a', content: 'x' },
        ],
      },
    ],
    [CHAT, { user: 'u', top_k: 1 }],
    [
      RESPONSES,
      {
        input: [
          {
            type: 'message',
            role: 'assistant',
            id: 'msg_1',
            status: 'completed',
            content: [
              { type: 'output_text', text: 'x', annotations: [{ type: 'url_citation', url: 'https://x' }] },
            ],
          },
          { type: 'reasoning', id: 'rs_1', summary: [], encrypted_content: 'abc' },
          { type: 'function_call', call_id: 'c', name: 'f', arguments: '{"url":"https://x"}' },
          { type: 'function_call_output', call_id: 'c', output: 'x' },
        ],
      },
    ],
  ])('is no more than its text where all of it is known: %s %j', async (path, more) => {
    answer = whole(
      path === CHAT ? { prompt_tokens: 3, completion_tokens: 1 } : { input_tokens: 3, output_tokens: 1 },
    )
    await limitTo(10_000)
    const { messages: _, max_tokens: limit, ...hello } = HELLO
    const body = path === RESPONSES ? { ...hello, max_output_tokens: limit } : HELLO
    expect((await post(path, { ...body, ...more })).status).toBe(200)
  })

  test('may not have a million fields', async () => {
    const fields = Array.from({ length: 200_000 }, (_, index) => `"k${index}":1`)
    expect((await post(CHAT, `{"model":"m","messages":[],${fields.join(',')}}`)).status).toBe(400)
  })

  test.each([
    [{ messages: [{ role: 'user', content: 'Url and url', name: 'x' }] }],
    [
      {
        tools: [
          { type: 'function', function: { name: 'f', parameters: { properties: { url: {}, URL: {} } } } },
        ],
      },
    ],
    [{ metadata: { a: '{"x":1,"x":2}', b: ':' } }],
    [{ metadata: { userId: 'a', user_id: 'b' } }],
  ])('may hold names that are its own affair: %j', async (more) => {
    answer = whole({ prompt_tokens: 3, completion_tokens: 1 })
    await limitTo(10_000)
    expect((await post(CHAT, { ...HELLO, ...more })).status).toBe(200)
  })

  test.each([
    [CHAT, {}, { max_completion_tokens: 50 }],
    [COMPATIBLE, {}, { max_tokens: 50 }],
    [COMPATIBLE, { max_completion_tokens: 7 }, { max_completion_tokens: 7, max_tokens: 7 }],
    [CHAT, { max_tokens: 7 }, { max_tokens: 7 }],
  ])('is bounded by a name that its provider knows: %s %j', async (path, limits, sent) => {
    await limitTo(1000)
    answer = whole({ prompt_tokens: 3, completion_tokens: 1 })
    await callTo(path, { model: 'm', messages: [], ...limits })
    expect(JSON.parse(asked[0] ?? '')).toEqual({ model: 'm', messages: [], ...sent })
  })

  test('passes as it is written, numbers that JavaScript cannot hold too', async () => {
    answer = whole({ prompt_tokens: 3, completion_tokens: 1 })
    await callTo(CHAT, '{"model":"m","stream":true,"seed":9007199254740993,"messages":[]}')
    expect(asked).toEqual([
      '{"model":"m","stream":true,"seed":9007199254740993,"messages":[],"stream_options":{"include_usage":true}}',
    ])
  })
})

describe('what was used', () => {
  test.each([
    [CHAT, { completion_tokens: 7 }],
    [CHAT, { prompt_tokens: '5', completion_tokens: 7 }],
    [CHAT, { prompt_tokens: -5, completion_tokens: 7 }],
    [CHAT, { prompt_tokens: 1e300, completion_tokens: 7 }],
    [MESSAGES, { input_tokens: -5, output_tokens: -7 }],
    [MESSAGES, { input_tokens: 1.5, output_tokens: 1.5 }],
    [MESSAGES, { input_tokens: '55', output_tokens: 5 }],
  ])('is estimated where it is half reported: %s %j', async (path, usage) => {
    answer = whole(usage)
    await callTo(path, HELLO)
    const call = await booked()
    expect(call.estimated).toBe(true)
    expect(call.input).toBeGreaterThanOrEqual(JSON.stringify(HELLO).length)
  })

  test('is what has passed where only the beginning was reported', async () => {
    answer = cutAfter(
      { choices: [], usage: { prompt_tokens: 5, completion_tokens: 1 } },
      ...Array.from({ length: 20 }, () => delta({ content: 'x'.repeat(400) })),
    )
    await callTo(CHAT, { ...HELLO, max_tokens: 10_000, stream: true })
    expect(await booked()).toMatchObject({ estimated: true, input: 5, output: 2000 })
  })

  test('is not complete by what a response begins with', async () => {
    answer = cutAfter({
      type: 'response.created',
      response: { usage: { input_tokens: 5, output_tokens: 0 } },
    })
    await callTo(RESPONSES, { model: 'm', input: 'hello', stream: true })
    expect(await booked()).toMatchObject({ estimated: true })
  })

  test.each([
    ['reasoning', { reasoning: 'x'.repeat(400) }, 2000],
    ['a refusal', { refusal: 'x'.repeat(400) }, 2000],
    ['another script', { content: '字'.repeat(100) }, 2000],
  ])('counts %s', async (_, fields, tokens) => {
    answer = cutAfter(...Array.from({ length: 20 }, () => delta(fields)))
    await callTo(CHAT, { ...HELLO, max_tokens: 10_000, stream: true })
    expect(await booked()).toMatchObject({ estimated: true, output: tokens })
  })

  test('is never estimated above what the answer was bounded to', async () => {
    answer = cutAfter(delta({ content: '字'.repeat(100) }))
    await callTo(CHAT, { ...HELLO, stream: true })
    expect(await booked()).toMatchObject({ estimated: true, output: 10 })
  })
})

test('the path that is asked for holds the version of an API once, and of a query what is allowed', async () => {
  let path: string | undefined
  answer = (response, body, request) => {
    path = request.url
    whole({ input_tokens: 3, output_tokens: 1 })(response, body, request)
  }
  await callTo(MESSAGES, HELLO)
  expect(path).toBe('/v1/messages')
  await callTo(`${MESSAGES}?key=k&beta=true&debug=1`, HELLO)
  expect(path).toBe('/v1/messages?beta=true')
})

test('a body is read as what it was read as here', async () => {
  let type: string | undefined
  answer = (response, body, request) => {
    type = request.headers['content-type']
    whole({ prompt_tokens: 3, completion_tokens: 1 })(response, body, request)
  }
  await fetch(turnmill.address + CHAT, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${user.token}`,
      'content-type': 'application/json; charset=utf-7',
    },
    body: JSON.stringify(HELLO),
  }).then((response) => response.text())
  expect(type).toBe('application/json')
})

describe('what a call goes by', () => {
  /** The provider's id, and that of its model. */
  async function findReal(): Promise<{ id: string; modelConfigId: string }> {
    const { prisma } = turnmill.services.db
    const { id } = await prisma.provider.findUniqueOrThrow({ where: { name: 'real' } })
    const { id: modelConfigId } = await prisma.modelConfig.findFirstOrThrow({ where: { providerId: id } })
    return { id, modelConfigId }
  }
  const change = (path: string, body: object) => turnmill.admin.client.request('PATCH', path, body)
  const ask = async (): Promise<number> => {
    const response = await post(CHAT, HELLO)
    await response.text()
    return response.status
  }

  beforeEach(async () => {
    answer = whole({ prompt_tokens: 10, completion_tokens: 0 })
    // From here on it is known.
    expect(await ask()).toBe(200)
    asked = []
  })

  test('is the price of this moment', async () => {
    const { modelConfigId } = await findReal()
    await change(`/v1/model-configs/${modelConfigId}`, { prices: { input: 7_000_000 } })
    expect(await ask()).toBe(200)
    await change(`/v1/model-configs/${modelConfigId}`, { prices: { input: 1_000_000 } })
    const settled = statement(
      'test/costs',
      `select array_agg(cost_micros::float8 order by started_at) as costs from interceptions where api_key_id = $1 and settled_at is not null`,
    )
    for (;;) {
      const [row] = await query<{ costs: number[] | null }>(turnmill.services.db, settled(user.apiKeyId))
      if (row?.costs?.length !== 2) continue
      expect(row.costs).toEqual([10, 70])
      return
    }
  })

  test('is a budget that was made a moment ago', async () => {
    await limitTo(1)
    expect(await ask()).toBe(402)
    expect(asked).toEqual([])
  })

  test('is a provider that is still enabled', async () => {
    const { id } = await findReal()
    await change(`/v1/providers/${id}`, { enabled: false })
    const status = await ask()
    await change(`/v1/providers/${id}`, { enabled: true })
    expect(status).toBeGreaterThanOrEqual(400)
    expect(asked).toEqual([])
    expect(await ask()).toBe(200)
  })

  test('is the credential that comes first now', async () => {
    const { id } = await findReal()
    const path = `/v1/providers/${id}/keys`
    const { body } = await turnmill.admin.client.request<{ items: { id: string }[] }>('GET', path)
    const keyIds = body.items.map((key) => key.id)
    let used: string | undefined
    answer = (response, text, request) => {
      used = request.headers.authorization
      whole({ prompt_tokens: 10, completion_tokens: 0 })(response, text, request)
    }
    await turnmill.admin.client.request('PUT', `${path}/order`, { keyIds: keyIds.toReversed() })
    expect(await ask()).toBe(200)
    await turnmill.admin.client.request('PUT', `${path}/order`, { keyIds })
    expect(used).toBe(`Bearer ${SECOND_KEY}`)
  })

  test('is a key that may still call', async () => {
    await turnmill.admin.client.request('DELETE', `/v1/api-keys/${user.apiKeyId}`)
    expect([401, 403]).toContain(await ask())
    expect(asked).toEqual([])
  })
})

test('a key that was refused is not told with the answer to the next one', async () => {
  answer = (response, _, request) => {
    const refused = request.headers.authorization?.endsWith(FIRST_KEY) === true
    response.writeHead(refused ? 401 : 403)
    response.end(refused ? '' : `the organisation of ${FIRST_KEY} is suspended`)
  }
  expect(await callTo(CHAT, HELLO)).toBe('the organisation of <redacted> is suspended')
})

test('a call whose caller has left while nobody took the connection costs nothing, and counts against the model', async () => {
  const asking = Promise.withResolvers<undefined>()
  const connecting = Promise.withResolvers<never>()
  const timedOut = Object.assign(new Error('connect timeout'), { code: 'UND_ERR_CONNECT_TIMEOUT' })
  const down = await startTurnmill({
    workers: 0,
    environment: { TURNMILL_BREAKER_FAILURES: '1' },
    sendToProvider: () => {
      asking.resolve(undefined)
      return connecting.promise
    },
  })
  try {
    const leaver = await down.addUser()
    const call = (signal: AbortSignal | null): Promise<Response> =>
      fetch(`${down.address}/v1/gateway/fake/v1/chat/completions`, {
        method: 'POST',
        headers: { authorization: `Bearer ${leaver.token}`, 'content-type': 'application/json' },
        body: JSON.stringify({ ...HELLO, model: 'fake-1' }),
        signal,
      })
    const gone = new AbortController()
    const left = call(gone.signal).catch(() => undefined)
    await asking.promise
    gone.abort()
    await left
    const { interception } = down.services.db.prisma
    while ((await interception.count({ where: { settledAt: { not: null } } })) < 1) await sleep(10)
    expect(await interception.findMany()).toMatchObject([{ costMicros: 0n, estimated: false }])
    // It was settled before the connection was given up.
    connecting.reject(timedOut)
    expect((await call(null)).status).toBe(503)
  } finally {
    await down.stop()
  }
})

test('a call whose caller has left before it was sent costs nothing', async () => {
  const { db } = turnmill.services
  const held = Promise.withResolvers<void>()
  const locked = Promise.withResolvers<void>()
  const lock = db.prisma.$transaction(
    async (tx) => {
      await tx.$executeRawUnsafe('lock table interceptions in share row exclusive mode')
      locked.resolve()
      await held.promise
    },
    { timeout: 30_000, maxWait: 30_000 },
  )
  await locked.promise
  const gone = new AbortController()
  const call = post(CHAT, HELLO, gone.signal).catch(() => undefined)
  await blocked(db)
  gone.abort()
  await call
  await new Promise((resolve) => setTimeout(resolve, 50))
  held.resolve()
  await lock
  expect(await booked()).toMatchObject({ cost: 0 })
  expect(asked).toEqual([])
})

const countBlocked = statement(
  'test/blocked',
  `select count(*)::int as count from pg_locks where not granted and relation = 'interceptions'::regclass`,
)

/** Resolves when somebody waits for the lock. */
async function blocked(db: Turnmill['services']['db']): Promise<void> {
  for (;;) {
    const [row] = await query<{ count: number }>(db, countBlocked())
    if ((row?.count ?? 0) > 0) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
