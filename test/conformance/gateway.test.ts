/** The official SDKs against a mock of their providers, and against the gateway in front of the same mock: no difference. */
import { once } from 'node:events'
import http from 'node:http'
import Anthropic from '@anthropic-ai/sdk'
import { LLMock } from '@copilotkit/aimock'
import OpenAI from 'openai'
import { createProvider } from '../../src/models/index.ts'
import { Secret } from '../../src/protocol/secret.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

const CENTRAL = 'sk-central-conformance-0001'

let mock: LLMock
let turnmill: Turnmill
let user: TestUser

beforeAll(async () => {
  mock = new LLMock({ port: 0, host: '127.0.0.1', chunkSize: 4, logLevel: 'silent' })
  const usage = { input_tokens: 11, output_tokens: 5 }
  mock.on(
    { userMessage: 'call a tool' },
    { toolCalls: [{ name: 'look_up', arguments: '{"of":"x"}', id: 'call_1' }], usage },
  )
  mock.on(
    { userMessage: 'be wrong' },
    { error: { message: 'that is wrong', type: 'invalid_request_error' }, status: 400 },
  )
  mock.on(
    { userMessage: 'be busy' },
    { error: { message: 'later', type: 'rate_limit_error' }, status: 429, retryAfter: 7 },
  )
  mock.on({ userMessage: 'break' }, { error: { message: 'broken', type: 'server_error' }, status: 500 })
  mock.on(
    { userMessage: 'go on' },
    { content: 'word '.repeat(300), usage },
    { streamingProfile: { ttft: 1, tps: 100 } },
  )
  mock.on({}, { content: 'an answer of the mock', usage })
  await mock.start()
  turnmill = await startTurnmill({ workers: 0 })
  const common = { enabled: true, allowByok: false, attribution: true, keys: [new Secret(CENTRAL)] }
  const { db, encryption } = turnmill.services
  await createProvider(db, encryption, {
    ...common,
    name: 'mock-openai',
    type: 'openai',
    baseUrl: `${mock.url}/v1`,
  })
  await createProvider(db, encryption, {
    ...common,
    name: 'mock-anthropic',
    type: 'anthropic',
    baseUrl: mock.url,
  })
  user = await turnmill.addUser()
})
afterAll(async () => {
  await turnmill.stop()
  await mock.stop()
})

const targets = {
  'the mock itself': () => ({ openai: `${mock.url}/v1`, anthropic: mock.url, apiKey: CENTRAL }),
  'the gateway': () => ({
    openai: `${turnmill.address}/v1/gateway/mock-openai/v1`,
    anthropic: `${turnmill.address}/v1/gateway/mock-anthropic`,
    apiKey: user.token,
  }),
}

const openAi = ({ openai: baseURL, apiKey }: ReturnType<(typeof targets)['the gateway']>) =>
  new OpenAI({ baseURL, apiKey, maxRetries: 0 })
const anthropic = ({ anthropic: baseURL, apiKey }: ReturnType<(typeof targets)['the gateway']>) =>
  new Anthropic({ baseURL, apiKey, maxRetries: 0 })

const TOOL = { type: 'object' as const, properties: { of: { type: 'string' } } }
const model = 'a-model'

async function all<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = []
  for await (const item of stream) items.push(item)
  return items
}

/** Resolves with what it was rejected with. */
const failure = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => {
      throw new Error('it succeeded, expected it to fail')
    },
    (error: unknown) => error,
  )

describe.each(Object.keys(targets) as (keyof typeof targets)[])('%s', (target) => {
  const says = (content: string) => ({ model, messages: [{ role: 'user' as const, content }] })

  describe('with the SDK of OpenAI', () => {
    const client = (): OpenAI => openAi(targets[target]())

    test('answers a chat completion', async () => {
      const answer = await client().chat.completions.create(says('hi'))
      expect(answer.choices[0]?.message.content).toBe('an answer of the mock')
      expect(answer.usage).toMatchObject({ prompt_tokens: 11, completion_tokens: 5 })
    })

    test('streams a chat completion, without a usage that nobody has asked for', async () => {
      const chunks = await all(await client().chat.completions.create({ ...says('hi'), stream: true }))
      expect(chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('')).toBe(
        'an answer of the mock',
      )
      expect(chunks.some(({ choices }) => choices.length === 0)).toBe(false)
    })

    test('streams the usage where it is asked for', async () => {
      const options = { ...says('hi'), stream: true, stream_options: { include_usage: true } } as const
      const chunks = await all(await client().chat.completions.create(options))
      expect(chunks.at(-1)?.usage).toMatchObject({ prompt_tokens: 11, completion_tokens: 5 })
    })

    test.each([false, true])('asks for a tool (streamed: %s)', async (stream) => {
      const tools = [{ type: 'function' as const, function: { name: 'look_up', parameters: TOOL } }]
      const request = { ...says('call a tool'), tools }
      const names = stream
        ? (await all(await client().chat.completions.create({ ...request, stream }))).map(
            ({ choices }) => choices[0]?.delta.tool_calls?.[0]?.function?.name ?? '',
          )
        : (await client().chat.completions.create({ ...request })).choices.map(({ message }) => {
            const call = message.tool_calls?.[0]
            return call?.type === 'function' ? call.function.name : ''
          })
      expect(names.join('')).toBe('look_up')
    })

    test('answers and streams a response', async () => {
      const answer = await client().responses.create({ model, input: 'hi' })
      expect(answer.output_text).toBe('an answer of the mock')
      const events = await all(await client().responses.create({ model, input: 'hi', stream: true }))
      const text = events
        .map((event) => (event.type === 'response.output_text.delta' ? event.delta : ''))
        .join('')
      expect(text).toBe('an answer of the mock')
      expect(events.at(-1)?.type).toBe('response.completed')
    })

    test('lists the models', async () => {
      expect((await client().models.list()).object).toBe('list')
    })

    test('gives the errors of the provider', async () => {
      const wrong = await failure(client().chat.completions.create(says('be wrong')))
      expect(wrong).toBeInstanceOf(OpenAI.BadRequestError)
      expect((wrong as Error).message).toContain('that is wrong')
      const busy = await failure(client().chat.completions.create(says('be busy')))
      expect(busy).toBeInstanceOf(OpenAI.RateLimitError)
      expect((busy as InstanceType<typeof OpenAI.RateLimitError>).headers.get('retry-after')).toBe('7')
      expect(await failure(client().responses.create({ model, input: 'break' }))).toBeInstanceOf(
        OpenAI.InternalServerError,
      )
    })

    test('can be left in the middle of an answer', async () => {
      const stream = await client().chat.completions.create({ ...says('go on'), stream: true })
      const chunks = []
      for await (const chunk of stream) if (chunks.push(chunk) === 3) break
      expect(chunks).toHaveLength(3)
      expect((await client().chat.completions.create(says('hi'))).choices).toHaveLength(1)
    })
  })

  describe('with the SDK of Anthropic', () => {
    const client = (): Anthropic => anthropic(targets[target]())
    const asks = (content: string) => ({ ...says(content), max_tokens: 100 })

    test('answers a message', async () => {
      const answer = await client().messages.create(asks('hi'))
      expect(answer.content).toMatchObject([{ type: 'text', text: 'an answer of the mock' }])
      expect(answer.usage).toMatchObject({ input_tokens: 11, output_tokens: 5 })
    })

    test('streams a message', async () => {
      const message = await client().messages.stream(asks('hi')).finalMessage()
      expect(message.content).toMatchObject([{ type: 'text', text: 'an answer of the mock' }])
      expect(message.stop_reason).toBe('end_turn')
    })

    test.each([false, true])('asks for a tool (streamed: %s)', async (stream) => {
      const request = { ...asks('call a tool'), tools: [{ name: 'look_up', input_schema: TOOL }] }
      const message = stream
        ? await client().messages.stream(request).finalMessage()
        : await client().messages.create(request)
      expect(message.content).toMatchObject([{ type: 'tool_use', name: 'look_up', input: { of: 'x' } }])
    })

    test('gives the errors of the provider', async () => {
      const wrong = await failure(client().messages.create(asks('be wrong')))
      expect(wrong).toBeInstanceOf(Anthropic.BadRequestError)
      expect(await failure(client().messages.create(asks('be busy')))).toBeInstanceOf(
        Anthropic.RateLimitError,
      )
      expect(await failure(client().messages.create(asks('break')))).toBeInstanceOf(
        Anthropic.InternalServerError,
      )
    })

    test('can be left in the middle of an answer', async () => {
      const stream = await client().messages.create({ ...asks('go on'), stream: true })
      const events = []
      for await (const event of stream) if (events.push(event) === 3) break
      expect(events).toHaveLength(3)
    })
  })
})

describe('the gateway alone', () => {
  const gateway = targets['the gateway']

  test('takes no key but its own, and says so as the provider would', async () => {
    for (const apiKey of [CENTRAL, 'tm_x', user.token.slice(0, -1)]) {
      const given = { ...gateway(), apiKey }
      expect(await failure(openAi(given).models.list())).toBeInstanceOf(OpenAI.AuthenticationError)
      const asked = anthropic(given).messages.create({
        model,
        max_tokens: 5,
        messages: [{ role: 'user', content: 'x' }],
      })
      expect(await failure(asked)).toBeInstanceOf(Anthropic.AuthenticationError)
    }
  })

  test('says the same of every key that cannot be used, and what to do', async () => {
    const revoked = await turnmill.addKey(user.userId)
    await turnmill.admin.client.request('DELETE', `/v1/api-keys/${revoked.apiKeyId}`)
    const unknown = user.token.replace(/^tm_.{32}/, `tm_${'0'.repeat(32)}`)
    const wrong = user.token.replace(/.{43}$/, 'A'.repeat(43))
    const messages = new Set<string>()
    for (const token of [null, 'Bearer', CENTRAL, unknown, wrong, revoked.token])
      for (const name of ['authorization', 'x-api-key']) {
        const value = name === 'authorization' && token !== 'Bearer' ? `Bearer ${token}` : token
        const response = await fetch(`${turnmill.address}/v1/gateway/mock-openai/v1/models`, {
          headers: token === null || value === null ? {} : { [name]: value },
        })
        expect(response.status).toBe(401)
        messages.add(((await response.json()) as { error: { message: string } }).error.message)
      }
    expect([...messages]).toEqual([expect.stringContaining('POST /v1/api-keys makes a new one')])
  })

  test('refuses two different keys in one request', async () => {
    const other = await turnmill.addUser()
    const path = '/v1/gateway/mock-openai/v1/models'
    const both = await user.client.request('GET', path, undefined, { 'x-api-key': other.token })
    expect(both).toMatchObject({
      status: 401,
      body: {
        error: {
          message: expect.stringMatching(/^Authorization and x-api-key do not carry the same key, expected/),
        },
      },
    })
    const same = await user.client.request('GET', path, undefined, { 'x-api-key': user.token })
    expect(same.status).toBe(200)
  })

  test.each([
    ['without a scheme', (token: string) => token],
    ['with words after the key', (token: string) => `Bearer ${token} x`],
    ['of another scheme', (token: string) => `Basic ${Buffer.from(`u:${token}`).toString('base64')}`],
    ['without a key', () => 'Bearer'],
    ['that is empty', () => ''],
  ])('refuses an authorization %s, whatever key is beside it', async (_, write) => {
    const other = await turnmill.addUser()
    const response = await fetch(`${turnmill.address}/v1/gateway/mock-anthropic/v1/models`, {
      headers: { authorization: write(other.token), 'x-api-key': user.token },
    })
    expect(response.status).toBe(401)
  })

  test('needs the scope gateway:use', async () => {
    const reader = await turnmill.addKey(user.userId, ['chats:read'])
    const given = { ...gateway(), apiKey: reader.token }
    expect(await failure(openAi(given).models.list())).toBeInstanceOf(OpenAI.PermissionDeniedError)
  })

  test.each([
    ['GET', '/v1/gateway/mock-openai/v1/files'],
    ['POST', '/v1/gateway/mock-openai/v1/messages'],
    ['POST', '/v1/gateway/mock-openai/v1/chat/completions/../files'],
    ['GET', '/v1/gateway/nobody/v1/models/x'],
  ])('has no %s %s', async (method, path) => {
    const { status } = await user.client.request(
      method,
      path,
      method === 'POST' ? { model, messages: [] } : undefined,
    )
    expect(status).toBe(404)
  })

  /** A target as no client of ours writes it. */
  const ask = async (method: string, target: string, headers: Record<string, string> = {}) => {
    const { hostname: host, port } = new URL(turnmill.address)
    const request = http.request({ host, port, method, path: target, headers }).end()
    const [response] = (await once(request, 'response')) as [http.IncomingMessage]
    const text = Buffer.concat(await response.toArray()).toString()
    return { status: response.statusCode, body: JSON.parse(text) as unknown }
  }
  const shapes = {
    openai: (code: string) => ({ error: { code, param: null } }),
    anthropic: (code: string) => ({ type: 'error', error: { code } }),
  }

  test.each(['PUT', 'PATCH', 'DELETE', 'OPTIONS'])('refuses %s as the provider would', async (method) => {
    expect(await ask(method, '/v1/gateway/mock-openai/v1/chat/completions')).toMatchObject({
      status: 404,
      body: shapes.openai('not_found'),
    })
    expect(await ask(method, '/v1/gateway/mock-anthropic/v1/messages')).toMatchObject({
      status: 404,
      body: shapes.anthropic('not_found'),
    })
  })

  test('refuses a target that cannot be read as the provider would, and elsewhere with a problem', async () => {
    const refusal = { status: 400, body: shapes.openai('invalid_request') }
    expect(await ask('GET', '/v1/gateway/mock-openai/v1/%zz')).toMatchObject(refusal)
    expect(await ask('GET', `${turnmill.address}/v1/gateway/mock-openai/v1/%zz`)).toMatchObject(refusal)
    expect(await ask('POST', '/v1/gateway/mock-anthropic/v1/messages/%zz')).toMatchObject({
      status: 400,
      body: shapes.anthropic('invalid_request'),
    })
    expect(await ask('GET', '/v1/chats/%zz')).toMatchObject({
      status: 400,
      body: { code: 'invalid_request' },
    })
  })

  test('refuses in the shape of the provider whatever the query is', async () => {
    expect(await ask('POST', '/v1/gateway/mock-anthropic/v1/messages?beta=true')).toMatchObject({
      status: 401,
      body: shapes.anthropic('unauthenticated'),
    })
  })

  test.each([
    [{ 'anthropic-version': '2023-06-01', authorization: 'Bearer tm_x' }, 'anthropic'],
    [{ 'x-api-key': 'tm_x' }, 'anthropic'],
    [{ authorization: 'Bearer tm_x' }, 'openai'],
  ] as const)('refuses a list of models as the client of %j expects', async (headers, shape) => {
    for (const provider of ['mock-anthropic', 'nobody'])
      expect(await ask('GET', `/v1/gateway/${provider}/v1/models`, headers)).toMatchObject({
        status: 401,
        body: shapes[shape]('unauthenticated'),
      })
  })

  test('refuses a list of models in the shape of a provider that is known', async () => {
    const { db, encryption } = turnmill.services
    const baseUrl = mock.url
    const off = { name: 'off', type: 'anthropic', baseUrl, enabled: false, allowByok: false } as const
    await createProvider(db, encryption, { ...off, attribution: false, keys: [new Secret(CENTRAL)] })
    const headers = { authorization: `Bearer ${user.token}` }
    expect(await ask('GET', '/v1/gateway/off/v1/models', headers)).toMatchObject({
      status: 409,
      body: shapes.anthropic('provider_disabled'),
    })
    expect(await ask('GET', '/v1/gateway/nobody/v1/models', headers)).toMatchObject({
      body: shapes.openai('provider_missing'),
    })
  })

  test.each(['openai', 'anthropic'] as const)(
    'is not asked again by the SDK of %s for nothing',
    async (kind) => {
      const { metrics } = turnmill.services
      const refusals = async (): Promise<string> =>
        /gateway_refusals_total\{code="provider_missing"\} (\d+)/.exec((await metrics.render()).text)?.[1] ??
        '0'
      const before = Number(await refusals())
      const origin = `${turnmill.address}/v1/gateway/nobody`
      const options = { apiKey: user.token, maxRetries: 2 }
      const messages = [{ role: 'user' as const, content: 'hi' }]
      const asked =
        kind === 'openai'
          ? new OpenAI({ ...options, baseURL: `${origin}/v1` }).responses.create({ model, input: 'hi' })
          : new Anthropic({ ...options, baseURL: origin }).messages.create({
              model,
              messages,
              max_tokens: 10,
            })
      expect(await failure(asked)).toMatchObject({ status: 409 })
      expect(Number(await refusals()) - before).toBe(1)
    },
  )

  test('takes a whole URL as the target', async () => {
    const target = `${turnmill.address}/v1/gateway/mock-openai/v1/models?limit=1`
    expect(await ask('GET', target, { authorization: `Bearer ${user.token}` })).toMatchObject({
      status: 200,
      body: { object: 'list' },
    })
  })

  test.each(['', '[]', 'null', '{"model":'])('refuses the body %j', async (body) => {
    const response = await fetch(`${turnmill.address}/v1/gateway/mock-openai/v1/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${user.token}`, 'content-type': 'application/json' },
      body,
    })
    expect(response.status).toBe(400)
    expect(await response.json()).toMatchObject({
      error: { type: 'invalid_request_error', code: 'invalid_request' },
    })
  })

  test('ends a running answer soon after its key was revoked', async () => {
    const leaver = await turnmill.addUser()
    const client = openAi({ ...gateway(), apiKey: leaver.token })
    const stream = await client.chat.completions.create({
      model,
      stream: true,
      messages: [{ role: 'user', content: 'go on' }],
    })
    const chunks = []
    const reading = (async () => {
      for await (const chunk of stream) chunks.push(chunk)
    })()
    await leaver.client.request('DELETE', `/v1/api-keys/${leaver.apiKeyId}`)
    await expect(reading).rejects.toThrow()
    expect(chunks.length).toBeLessThan(300)
  })
})
