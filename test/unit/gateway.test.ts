import { once } from 'node:events'
import { connect, type AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import Fastify from 'fastify'
import type { ApiServer } from '../../src/api/context.ts'
import { registerGatewayRoutes } from '../../src/api/gateway-routes.ts'
import { readAsked } from '../../src/gateway/asked.ts'
import { createBreakers, UnavailableError } from '../../src/gateway/breaker.ts'
import { findTarget, searchToProvider } from '../../src/gateway/endpoints.ts'
import { headersFromProvider, headersToProvider } from '../../src/gateway/headers.ts'
import { exceedsItsBytes } from '../../src/gateway/input-size.ts'
import { hideUsage } from '../../src/gateway/hide-usage.ts'
import { createMeter } from '../../src/gateway/meter.ts'
import { refuse } from '../../src/gateway/refusals.ts'
import { isUnreachable } from '../../src/gateway/unreachable.ts'
import { guardBody, guardHeaders, type BodyGuard, type ProviderAnswer } from '../../src/models/index.ts'
import { ERRORS, TurnmillError, type ErrorCode } from '../../src/protocol/errors.ts'
import type { GatewayRequest, GatewayResponse } from '../../src/protocol/routes.ts'
import { Secret } from '../../src/protocol/secret.ts'
import { NO_USAGE } from '../../src/protocol/usage.ts'
import { createLogger } from '../../src/telemetry/logger.ts'

const bytes = (text: string): Uint8Array<ArrayBuffer> => new Uint8Array(Buffer.from(text))

/** Reads SSE text in pieces of a size. */
function measure(text: string, size = 7, contentType = 'text/event-stream') {
  const meter = createMeter('openai-chat', contentType)
  const all = bytes(text)
  for (let at = 0; at < all.length; at += size) meter.read(all.subarray(at, at + size))
  meter.end()
  return meter
}

const event = (value: unknown, space: number): string =>
  `data: ${JSON.stringify(value, null, space).replaceAll('\n', ' ')}\n\n`

const BOUND = { inputTokens: 77 }
const usedIn = (text: string) => measure(text).usage?.total({ input: BOUND.inputTokens, output: null })

describe('the meter', () => {
  test('counts what has passed once, also of events under another type', () => {
    const passed = event({ choices: [{ delta: { content: 'x'.repeat(400) } }] }, 0)
    const usage = measure(passed, 7, 'text/plain').usage?.total({ input: 77, output: null })
    expect(usage).toMatchObject({ outputTokens: 100, estimated: true })
  })

  test.each([0, 1])('counts what has passed, however its JSON is spaced (%i)', (space) => {
    const passed = event({ choices: [{ delta: { content: 'x'.repeat(400) } }] }, space)
    expect(usedIn(passed)).toMatchObject({ outputTokens: 100, estimated: true })
  })

  test.each([
    [{}],
    [{ prompt_tokens: '5', completion_tokens: '7' }],
    [{ prompt_tokens: 1e308 }],
    [{ prompt_tokens: -1 }],
    [null],
    [[]],
  ])('takes no report for one that counts nothing: %j', (usage) => {
    expect(usedIn(event({ choices: [], usage }, 0))).toEqual({ ...NO_USAGE, ...BOUND, estimated: true })
  })

  test('takes input that turns out to have been in a cache for the same input', () => {
    const first = event({ choices: [], usage: { prompt_tokens: 1000, completion_tokens: 1 } }, 0)
    const details = { prompt_tokens_details: { cached_tokens: 900 } }
    const last = event({ choices: [], usage: { prompt_tokens: 1000, completion_tokens: 5, ...details } }, 0)
    const usage = { inputTokens: 100, cacheReadTokens: 900, outputTokens: 5 }
    expect(usedIn(first + last)).toMatchObject(usage)
    expect(usedIn(last + first)).toMatchObject(usage)
  })

  test('takes the highest of cumulative counts, once', () => {
    const chunk = (output: number) =>
      event({ choices: [], usage: { prompt_tokens: 10, completion_tokens: output } }, 0)
    const usage = { inputTokens: 10, outputTokens: 9, estimated: false }
    expect(usedIn(chunk(1) + chunk(5) + chunk(9))).toMatchObject(usage)
    expect(usedIn(chunk(9) + chunk(1))).toMatchObject(usage)
  })

  test('keeps names of tools storable', () => {
    const call = { id: 'call-1', function: { name: `${'x'.repeat(199)}😀` } }
    const [tool] = measure(event({ choices: [{ delta: { tool_calls: [call] } }] }, 0)).tools()
    expect(tool?.name.isWellFormed()).toBe(true)
  })
})

describe('what a body asks for', () => {
  const asked = (body: Record<string, unknown>) =>
    readAsked('openai-chat', { model: 'm', messages: [], ...body })

  test.each([
    [{ n: '100' }],
    [{ n: 1.5 }],
    [{ max_tokens: 10, max_completion_tokens: '100000' }],
    [{ max_tokens: -1 }],
    [{ max_tokens: 1e300 }],
  ])('is refused where nobody could say how much: %j', (body) => {
    expect(() => asked(body)).toThrow('expected a whole number from 1')
  })

  test.each([
    [{ stream: 1 }, 'stream is 1, expected true or false'],
    [{ stream: 'true' }, 'stream is "true", expected true or false'],
    [
      { stream: true, stream_options: { include_usage: true, include_Usage: false } },
      'stream_options has include_Usage, expected include_usage',
    ],
  ])('is refused where nobody could say whether it reports: %j', (body, message) => {
    expect(() => asked(body)).toThrow(message)
  })

  test('holds more where its provider adds prompts of its own', () => {
    const own = { type: 'text_editor_20250728', name: 'str_replace_based_edit_tool' }
    const hidden = (body: Record<string, unknown>) => asked(body).input.hiddenTokens
    expect([{}, { tools: [] }, { tools: [{ type: 'function' }] }, { tools: [own, own] }].map(hidden)).toEqual(
      [0, 0, 1000, 3000],
    )
  })

  test.each([
    [
      {
        messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'https://x/y.png' } }] }],
      },
    ],
    [
      {
        messages: [],
        input: [{ role: 'user', content: [{ type: 'input_image', image_url: 'https://x/y.png' }] }],
      },
    ],
    [{ input: [{ type: 'item_reference', id: 'msg_1' }] }],
    [{ messages: [{ role: 'assistant', audio: { id: 'audio_1' } }] }],
    [{ tools: [{ type: 'web_search' }] }],
    [{ tools: [{ type: 'mcp', server_url: 'https://x' }] }],
    [{ web_search_options: {} }],
    [{ previous_response_id: 'resp_1' }],
    [
      {
        messages: [
          {
            role: 'user',
            content: [{ type: 'image_url', image_url: { url: 'data:image/png;base64,AA==' } }],
          },
        ],
      },
    ],
    [
      {
        messages: [
          { role: 'user', content: [{ type: 'document', source: { type: 'base64', data: 'AA==' } }] },
        ],
      },
    ],
    [
      {
        messages: [
          {
            role: 'user',
            content: [{ type: 'file', file: { file_data: 'data:application/pdf;base64,AA==' } }],
          },
        ],
      },
    ],
  ])('may be more than it holds: %j', (body) => {
    expect(exceedsItsBytes(asked(body).input)).toBe(true)
  })

  test.each([
    [
      {
        tools: [
          { type: 'function', function: { name: 'f' } },
          { name: 'g', input_schema: {} },
        ],
      },
    ],
  ])('is otherwise what it holds: %j', (body) => {
    expect(exceedsItsBytes(asked(body).input)).toBe(false)
  })
})

function pass(guard: BodyGuard, text: string, size: number): string {
  const all = bytes(text)
  const passed: Uint8Array[] = []
  for (let at = 0; at < all.length; at += size) passed.push(guard.pass(all.subarray(at, at + size)))
  return Buffer.concat([...passed, guard.rest()]).toString()
}

describe('usage that nobody has asked for', () => {
  test.each(['\n\n', '\r\n\r\n', '\r\r', '\n\r\n'])(
    'is taken out of a stream whose events end with %j',
    (end) => {
      const usage = `data: {"choices":[],"usage":{"prompt_tokens":1}}${end}`
      const [before, after] = [`data: {"choices":[{}]}${end}`, `data: [DONE]${end}`]
      for (const size of [1, 3, 1000])
        expect(pass(hideUsage(), before + usage + after, size)).toBe(before + after)
    },
  )

  test.each([
    'data: {"error":{"code":502},"choices":[],"usage":{"prompt_tokens":1}}\n\n',
    'data: {"error":{"code":502},"usage":{"prompt_tokens":1}}\n\n',
    'event: error\ndata: {"message":"gone","usage":{"prompt_tokens":1}}\n\n',
    'data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":1}}\n\n',
    'data: {"choices":[]',
  ])('is not taken out with what else is said: %j', (said) => {
    for (const size of [1, 1000]) expect(pass(hideUsage(), said, size)).toBe(said)
  })
})

describe('an answer that repeats a credential', () => {
  const guard = async (credential: string, text: string, size: number): Promise<string> => {
    const all = bytes(text)
    const source = new ReadableStream<Uint8Array>({
      start: (controller) => {
        for (let at = 0; at < all.length; at += size) controller.enqueue(all.subarray(at, at + size))
        controller.close()
      },
    })
    return new Response(
      guardBody(source, new Secret(credential)) as ReadableStream<Uint8Array<ArrayBuffer>>,
    ).text()
  }

  test.each([1, 5, 1000])('loses it, in chunks of %i', async (size) => {
    expect(await guard('sk-secret-0001', 'a sk-secret-0001 b sk-secret-0001', size)).toBe(
      'a <redacted> b <redacted>',
    )
  })

  test('may hold nothing else', async () => {
    expect(await guard('sk-secret-0001', 'sk-secret-0001'.repeat(50_000), 1_000_000)).toBe(
      '<redacted>'.repeat(50_000),
    )
  })

  test('stays as it is where the credential is a word', async () => {
    expect(await guard('none', 'there are none', 3)).toBe('there are none')
  })

  test.each([1, 3, 1000])('takes it out as JSON writers escape it, too, in pieces of %i', async (size) => {
    const told = 'a sk\\/secret&0001 b sk/secret\\u00260001 c sk/secret&0001'
    expect(await guard('sk/secret&0001', told, size)).toBe('a <redacted> b <redacted> c <redacted>')
  })

  test('loses it in headers', () => {
    const headers = new Headers({ 'x-request-id': 'of sk-secret-0001', 'retry-after': '1' })
    expect([...guardHeaders(headers, [new Secret('sk-secret-0001')])]).toEqual([['retry-after', '1']])
  })
})

describe('headers', () => {
  test('pass to a provider where they are allowed, under the name as it is meant to be written', () => {
    const given = new Headers({
      connection: 'keep-alive, X_Stainless_Lang',
      authorization: 'Bearer x',
      'x-forwarded-for': '10.0.0.1',
      'x-turnmill-key-id': 'forged',
      x_turnmill_key_id: 'forged',
      Anthropic_Version: '2023-06-01',
      'openai-beta': 'a',
      openai_beta: 'b',
      'x-stainless-lang': 'js',
      'x-stainless-os': 'Linux',
    })
    expect(Object.fromEntries(headersToProvider(given))).toEqual({
      'anthropic-version': '2023-06-01',
      'openai-beta': 'a',
      'x-stainless-os': 'Linux',
    })
  })

  test('pass back where they are allowed', () => {
    const given = new Headers({
      connection: 'x-ratelimit-reset',
      'set-cookie': 'a=b',
      'x-turnmill-error': 'forged',
      'x-ratelimit-reset': '1',
      'retry-after': '7',
      'x-should-retry': 'false',
      'x-request-id': 'r1',
    })
    expect(Object.fromEntries(headersFromProvider(given))).toEqual({
      'retry-after': '7',
      'x-should-retry': 'false',
      'x-request-id': 'r1',
    })
  })
})

describe('a refusal', () => {
  const refused = (code: ErrorCode, retryAfterMs?: number): GatewayResponse =>
    refuse(new TurnmillError(code, 'no', { retryAfterMs }), {
      path: '/v1/responses',
      headerNames: [],
      type: null,
    })

  test.each(Object.keys(ERRORS) as ErrorCode[])('with %s tells an SDK whether to try again', (code) => {
    expect(refused(code).headers.get('x-should-retry')).toBe(String(ERRORS[code].recovery === 'retry'))
  })

  test('for a budget is final, or comes with how long to wait', () => {
    expect(refused('budget_exceeded').headers.get('x-should-retry')).toBe('false')
    const busy = refused('budget_busy', 1000)
    expect([busy.headers.get('x-should-retry'), busy.headers.get('retry-after')]).toEqual(['true', '1'])
  })

  test.each([
    ['messages', [], null, true],
    ['messages/count_tokens', [], 'openai', true],
    ['messagess', [], null, false],
    ['chat/completions', ['anthropic-version'], null, false],
    ['responses', ['x-api-key'], 'anthropic', false],
    ['models', [], 'anthropic', true],
    ['models', ['anthropic-version', 'x-api-key'], 'openai-compatible', false],
    ['models', ['anthropic-version'], null, true],
    ['models', ['x-api-key'], null, true],
    ['models', ['authorization'], null, false],
    ['files', ['anthropic-version'], null, true],
  ] as const)('of %s, asked for with %j of a provider of type %s', (path, headerNames, type, anthropic) => {
    const error = new TurnmillError('not_found', 'no')
    const { body } = refuse(error, { path: `/v1/gateway/p/v1/${path}`, headerNames, type })
    const common = { type: 'not_found_error', code: 'not_found', message: 'no' }
    expect(JSON.parse(Buffer.from(body as Uint8Array).toString())).toEqual(
      anthropic ? { type: 'error', error: common } : { error: { ...common, param: null } },
    )
  })
})

describe('a query', () => {
  test.each([
    ['GET', 'models', '?limit=20&after_id=m%201&before_id=x', '?limit=20&after_id=m+1&before_id=x'],
    ['GET', 'models', '?after=m&order=desc', '?after=m&order=desc'],
    ['GET', 'models', '?api-version=preview', '?api-version=preview'],
    ['GET', 'models', '?key=k&LIMIT=1&limit%5B%5D=1&beta=true', ''],
    ['POST', 'messages', '?beta=true&limit=1', '?beta=true'],
    ['POST', 'messages/count_tokens', '?beta=true', '?beta=true'],
    ['POST', 'messages', '?access_token=t', ''],
    ['POST', 'chat/completions', '?beta=true&api-version=preview', '?api-version=preview'],
    ['POST', 'responses', '?stream=true', ''],
    ['POST', 'responses', '', ''],
    ['POST', 'responses', '?', ''],
  ])('of %s %s passes to a provider where it is allowed: %s', (method, path, search, passed) => {
    const target = findTarget({ method, target: `/v1/gateway/p/v1/${path}${search}` })
    expect(searchToProvider(target!.endpoint, search)).toBe(passed)
  })
})

describe('a breaker', () => {
  const { now } = Date
  let time = 0
  beforeEach(() => {
    time = 1_000_000
    Date.now = () => time
  })
  afterEach(() => {
    Date.now = now
  })

  const subjectOf = (model: string) => ({ model, labels: { provider: 'p', model: 'other' } })
  const said = (words: string): ProviderAnswer => ({
    status: 200,
    headers: new Headers(),
    body: Readable.from([words]),
  })
  const answer = async (): Promise<ProviderAnswer> => said('ok')
  const fail = (error: Error) => (): Promise<ProviderAnswer> => Promise.reject(error)
  const down = fail(new UnavailableError(null, { cause: new Error('refused') }))

  /** Two failures in a row open it for 1000 ms. */
  function start() {
    const changes: boolean[] = []
    const onChange = (_: unknown, open: boolean): void => void changes.push(open)
    const breakers = createBreakers({ failures: 2, openMs: 1000, onChange })
    const run = (send: () => Promise<ProviderAnswer>, model: string | null = 'm'): Promise<string> =>
      breakers.run(model === null ? null : subjectOf(model), send).then(
        ({ body }) => text(body),
        (error: unknown) => /left alone$/.exec((error as Error).message)?.[0] ?? (error as Error).message,
      )
    return { run, changes }
  }

  test('opens after failures in a row, and closes after the call that finds the model back', async () => {
    const { run, changes } = start()
    expect([await run(down), await run(down), await run(answer)]).toEqual([
      'refused',
      'refused',
      'left alone',
    ])
    time += 1000
    expect([await run(answer), await run(down), await run(answer)]).toEqual(['ok', 'refused', 'ok'])
    expect(changes).toEqual([true, false])
  })

  test('stays open for as long again after a call that finds the model down', async () => {
    const { run, changes } = start()
    for (let count = 0; count < 2; count++) await run(down)
    time += 1000
    expect([await run(down), await run(answer)]).toEqual(['refused', 'left alone'])
    time += 999
    expect(await run(answer)).toBe('left alone')
    time += 1
    expect(await run(answer)).toBe('ok')
    expect(changes).toEqual([true, false])
  })

  test('lets the next call try at once after one that has shown nothing', async () => {
    const { run, changes } = start()
    for (let count = 0; count < 2; count++) await run(down)
    expect(await run(fail(new Error('it left')))).toBe('left alone')
    time += 1000
    for (let count = 0; count < 3; count++) expect(await run(fail(new Error('it left')))).toBe('it left')
    expect(changes).toEqual([true])
    expect([await run(answer), await run(down), await run(answer)]).toEqual(['ok', 'refused', 'ok'])
    expect(changes).toEqual([true, false])
  })

  test('is of one model alone, and of nothing that is no model', async () => {
    const { run } = start()
    for (let count = 0; count < 3; count++) await run(down, null)
    expect(await run(answer, null)).toBe('ok')
    for (let count = 0; count < 2; count++) await run(down)
    expect([await run(answer), await run(answer, 'n'), await run(answer, null)]).toEqual([
      'left alone',
      'ok',
      'ok',
    ])
  })

  test('is forgotten where callers name ever more models, and counts as open no longer', async () => {
    const { run, changes } = start()
    for (let count = 0; count < 2; count++) await run(down)
    time += 1000
    const trying = Promise.withResolvers<ProviderAnswer>()
    const probe = run(() => trying.promise)
    for (let count = 0; count < 1000; count++) await run(answer, `m-${count}`)
    expect(changes).toEqual([true, false])
    trying.reject(new UnavailableError(null, { cause: new Error('refused') }))
    expect([await probe, await run(answer)]).toEqual(['refused', 'ok'])
    expect(changes).toEqual([true, false])
  })

  test('lets one call try at a time', async () => {
    const { run, changes } = start()
    for (let count = 0; count < 2; count++) await run(down)
    time += 1000
    const trying = Promise.withResolvers<ProviderAnswer>()
    const probe = run(() => trying.promise)
    time += 999
    expect(await run(answer)).toBe('left alone')
    trying.resolve(said('back'))
    expect([await probe, await run(answer)]).toEqual(['back', 'ok'])
    expect(changes).toEqual([true, false])
  })

  test('takes no notice of failures of calls that began before it opened, or closed again', async () => {
    const { run, changes } = start()
    const late = Array.from({ length: 4 }, () => Promise.withResolvers<ProviderAnswer>())
    const ends = late.map(({ promise }) => run(() => promise))
    for (let count = 0; count < 2; count++) await run(down)
    time += 1000
    const trying = Promise.withResolvers<ProviderAnswer>()
    const probe = run(() => trying.promise)
    late[0]?.reject(away())
    expect(await ends[0]).toBe('refused')
    trying.resolve(said('back'))
    expect([await probe, await run(answer)]).toEqual(['back', 'ok'])
    for (const { reject } of late.slice(1)) reject(away())
    expect(await Promise.all(ends)).toEqual(Array(4).fill('refused'))
    expect(await run(answer)).toBe('ok')
    expect(changes).toEqual([true, false])
  })

  /** Of two calls that try: the first was silent for too long, the second is under way. */
  async function startSilent() {
    const { run, changes } = start()
    for (let count = 0; count < 2; count++) await run(down)
    time += 1000
    const [first, second] = [Promise.withResolvers<ProviderAnswer>(), Promise.withResolvers<ProviderAnswer>()]
    const firstEnd = run(() => first.promise)
    time += 1000
    const secondEnd = run(() => second.promise)
    expect([await run(answer), await run(answer)]).toEqual(['left alone', 'left alone'])
    return { run, changes, first, second, firstEnd, secondEnd }
  }
  const away = () => new UnavailableError(null, { cause: new Error('refused') })

  test('lets another one try where the one that tries is silent for as long as it was open', async () => {
    const { run, changes, first, second, firstEnd, secondEnd } = await startSilent()
    second.resolve(said('back'))
    expect([await secondEnd, await run(answer)]).toEqual(['back', 'ok'])
    first.reject(away())
    expect([await firstEnd, await run(answer)]).toEqual(['refused', 'ok'])
    expect(changes).toEqual([true, false])
  })

  test('closes after the silent one that finds the model back in the end', async () => {
    const { run, changes, first, second, firstEnd, secondEnd } = await startSilent()
    first.resolve(said('late'))
    expect([await firstEnd, await run(answer)]).toEqual(['late', 'ok'])
    second.reject(away())
    expect([await secondEnd, await run(answer)]).toEqual(['refused', 'ok'])
    expect(changes).toEqual([true, false])
    expect([await run(down), await run(down), await run(answer)]).toEqual([
      'refused',
      'refused',
      'left alone',
    ])
  })

  test.each([
    ['finds it down', away()],
    ['shows nothing', new Error('refused')],
  ])('waits for the one that tries now where the silent one %s', async (_, error) => {
    const { run, first, second, firstEnd, secondEnd } = await startSilent()
    first.reject(error)
    expect([await firstEnd, await run(answer)]).toEqual(['refused', 'left alone'])
    second.reject(away())
    expect([await secondEnd, await run(answer)]).toEqual(['refused', 'left alone'])
    time += 1000
    expect([await run(answer), await run(answer)]).toEqual(['ok', 'ok'])
  })
})

describe('a fetch that failed', () => {
  const failed = (cause: object): TypeError =>
    new TypeError('fetch failed', { cause: Object.assign(new Error('it failed'), cause) })

  test.each([
    { code: 'ECONNREFUSED', syscall: 'connect' },
    { code: 'ENOTFOUND', syscall: 'getaddrinfo' },
    { code: 'EAI_AGAIN', syscall: 'getaddrinfo' },
    { code: 'EHOSTUNREACH', syscall: 'connect' },
    { code: 'ENETUNREACH', syscall: 'connect' },
    { code: 'ETIMEDOUT', syscall: 'connect' },
    { code: 'UND_ERR_CONNECT_TIMEOUT' },
    { code: 'ERR_SSL_WRONG_VERSION_NUMBER' },
    { code: 'ERR_TLS_CERT_ALTNAME_INVALID' },
    { code: 'EPROTO', syscall: 'write' },
    { code: 'CERT_HAS_EXPIRED' },
    { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' },
    { code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' },
  ])('has found nobody: %j', (cause) => {
    expect(isUnreachable(failed(cause))).toBe(true)
    expect(isUnreachable(failed({ cause: failed(cause) }))).toBe(true)
  })

  test.each([
    { code: 'UND_ERR_SOCKET' },
    { code: 'ECONNRESET', syscall: 'read' },
    { code: 'EPIPE', syscall: 'write' },
    { code: 'ETIMEDOUT', syscall: 'read' },
    { code: 'HPE_INVALID_CONSTANT' },
    {},
  ])('was cut off: %j', (cause) => {
    expect(isUnreachable(failed(cause))).toBe(false)
  })

  test('may be its own cause', () => {
    const error = new Error('round')
    error.cause = error
    expect(isUnreachable(error)).toBe(false)
  })
})

describe('the routes for clients outside', () => {
  test('let go of a client that has left while it was authenticated', async () => {
    const app: ApiServer = Fastify()
    const arrived = Promise.withResolvers<undefined>()
    app.decorateRequest('principal', null)
    app.addHook('onRequest', async (request, reply) => {
      arrived.resolve(undefined)
      await once(reply.raw, 'close')
      request.principal = {
        apiKeyId: 'k',
        userId: 'u',
        userName: 'n',
        role: 'member',
        scopes: ['gateway:use'],
      }
    })
    const asked = Promise.withResolvers<boolean>()
    const gateway = async ({ signal }: GatewayRequest): Promise<GatewayResponse> => {
      asked.resolve(signal?.aborted === true)
      return { status: 200, headers: new Headers(), body: new Uint8Array(0) }
    }
    const live = new Set<string>()
    const add = (apiKeyId: string) => {
      live.add(apiKeyId)
      return { signal: new AbortController().signal, remove: () => void live.delete(apiKeyId) }
    }
    registerGatewayRoutes(
      app,
      { gateway, logger: createLogger({ level: 'fatal', role: 'test' }) },
      { add, start: () => undefined, stop: () => undefined },
    )
    await app.listen({ host: '127.0.0.1', port: 0 })
    const socket = connect((app.server.address() as AddressInfo).port, '127.0.0.1')
    socket.write('GET /v1/gateway/p/v1/models HTTP/1.1\r\nhost: x\r\n\r\n')
    await arrived.promise
    socket.destroy()
    expect(await asked.promise).toBe(true)
    expect([...live]).toEqual([])
    await app.close()
  })
})
