/** One suite for all provider adapters: what `StreamModel` promises, whichever wire format is beneath. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { LLMock } from '@copilotkit/aimock'
import type { ErrorCode } from '../../src/protocol/errors.ts'
import { TurnmillError } from '../../src/protocol/errors.ts'
import type { StreamPart } from '../../src/protocol/parts.ts'
import type { WireFormat } from '../../src/protocol/routes.ts'
import { providerAdapters } from '../../src/providers/index.ts'
import type { AnswerBehaviour, Behaviour, FakeUpstream, UpstreamError } from '../support/fake-upstream.ts'
import { hold, startFakeUpstream } from '../support/fake-upstream.ts'
import type { CallFields } from '../support/model-calls.ts'
import { collect, modelCall, run, runToError, runToFinish, TEST_CREDENTIAL } from '../support/model-calls.ts'

const WIRE_FORMATS = Object.keys(providerAdapters) as WireFormat[]

let upstream: FakeUpstream

beforeAll(async () => {
  upstream = await startFakeUpstream()
})
beforeEach(() => upstream.reset())
afterAll(() => upstream.stop())

describe.each(WIRE_FORMATS)('%s', (wireFormat) => {
  const adapter = providerAdapters[wireFormat]
  const script = (behaviour: Behaviour) => upstream.script(behaviour)
  const answer = (fields: Omit<AnswerBehaviour, 'type'>) => script({ type: 'answer', ...fields })
  const here = (fields: Partial<CallFields> = {}): CallFields => ({
    baseUrl: upstream.baseUrl(wireFormat),
    ...fields,
  })

  describe('an answer', () => {
    test('streams its text in one block', async () => {
      const { parts, text, end } = await run(adapter, here())
      expect(text).toBe('echo: hello')
      expect(parts.map(({ type }) => type)).toEqual([
        'text-start',
        ...Array<string>(4).fill('text-delta'),
        'text-end',
        'finish',
      ])
      expect(end).toMatchObject({ reason: 'stop', providerModel: 'test-model' })
      expect(end).toHaveProperty('responseId', expect.stringMatching(/fake$/))
    })

    test('streams reasoning before the text, in a block of its own', async () => {
      answer({ reasoning: ['let me ', 'see'], chunks: ['done'] })
      const { parts, text, reasoning } = await run(adapter, here({ request: { reasoningEffort: 'low' } }))
      expect({ text, reasoning }).toEqual({ text: 'done', reasoning: 'let me see' })
      expect(parts.findIndex(({ type }) => type === 'reasoning-end')).toBeLessThan(
        parts.findIndex(({ type }) => type === 'text-start'),
      )
    })

    test('counts usage without overlaps', async () => {
      answer({ usage: { input: 100, cacheRead: 40, cacheWrite: 5, output: 30, reasoning: 20 } })
      const { usage } = await runToFinish(adapter, here())
      expect(usage).toEqual({
        inputTokens: 100,
        outputTokens: 30,
        cacheReadTokens: 40,
        cacheWriteTokens: 5,
        reasoningTokens: 20,
        estimated: false,
      })
    })

    test('marks usage as estimated where the provider reports none', async () => {
      answer({ text: 'twelve chars', usage: null })
      const { usage } = await runToFinish(adapter, here())
      expect(usage).toMatchObject({ inputTokens: 2, outputTokens: 3, estimated: true })
    })

    test.each(['length', 'refusal'] as const)('finishes with reason %s', async (finish) => {
      answer({ finish })
      expect(await runToFinish(adapter, here())).toMatchObject({ reason: finish })
    })

    test('may be empty', async () => {
      answer({ chunks: [] })
      const { parts, end } = await run(adapter, here())
      expect(parts).toEqual([end])
      expect(end).toMatchObject({ type: 'finish', reason: 'stop' })
    })

    test('finishes although the provider keeps its stream open, and then closes the connection', async () => {
      answer({ ending: 'lingering' })
      await runToFinish(adapter, here())
      const request = await upstream.waitForRequest(1)
      expect(await request.closed).toMatchObject({ early: true })
    })

    test('is read to the end of its body, so that the connection can be used again', async () => {
      const body = scriptedBody([await recordAnswer(wireFormat)])
      await runToFinish(adapter, here({ fetch: answering(body.stream) }))
      expect(await body.ended).toBe('read')
    })
  })

  describe('text', () => {
    test('holds no NUL byte', async () => {
      answer({ reasoning: ['x\u0000y'], chunks: ['a\u0000b'] })
      const { text, reasoning } = await run(adapter, here())
      expect({ text, reasoning }).toEqual({ text: 'a\uFFFDb', reasoning: 'x\uFFFDy' })
    })

    test('joins a surrogate pair that was split over two deltas', async () => {
      answer({ chunks: ['a\uD83D', '\uDE00b'] })
      const { parts, text } = await run(adapter, here())
      expect(text).toBe('a😀b')
      for (const part of parts) if (part.type === 'text-delta') expect(part.text.isWellFormed()).toBe(true)
    })

    test.each([
      ['in the middle', ['a\uDE00', 'b'], 'a\uFFFDb'],
      ['before another', ['a\uD83D', 'b'], 'a\uFFFDb'],
      ['at the end', ['a', '\uD83D'], 'a\uFFFD'],
    ])('replaces a lone surrogate %s', async (_where, chunks, expected) => {
      answer({ chunks })
      expect((await run(adapter, here())).text).toBe(expected)
    })

    test('survives any cut of its bytes', async () => {
      answer({ chunks: ['größe ', '😀'] })
      const bytes = new TextEncoder().encode(await recordAnswer(wireFormat))
      const body = scriptedBody(Array.from(bytes, (byte) => Uint8Array.of(byte)))
      expect((await run(adapter, here({ fetch: answering(body.stream) }))).text).toBe('größe 😀')
    })
  })

  describe('events without data', () => {
    const EMPTY = ['event: ping\n\n', 'event: ping\ndata:\n\n', 'data: \n\n', 'id: 7\n\n', 'data\n\n', 'event: ping\r\ndata:\r\n\r\n', ': ping\n\n'] // prettier-ignore

    test.each(EMPTY)('are none: %j', async (empty) => {
      answer({ chunks: ['grö', 'ße'] })
      const events = (await recordAnswer(wireFormat)).split(/(?<=\n\n)/)
      expect(events.length).toBeGreaterThan(2)
      const body = scriptedBody(events.flatMap((event) => [empty, event]))
      expect((await run(adapter, here({ fetch: answering(body.stream) }))).text).toBe('größe')
    })

    test('are none wherever the stream is cut', async () => {
      answer({ chunks: ['grö', 'ße'] })
      const events = (await recordAnswer(wireFormat)).split(/(?<=\n\n)/)
      const bytes = new TextEncoder().encode(EMPTY.join('') + events.join(EMPTY.join('')))
      const body = scriptedBody(Array.from(bytes, (byte) => Uint8Array.of(byte)))
      expect((await run(adapter, here({ fetch: answering(body.stream) }))).text).toBe('größe')
    })
  })

  describe('an abort', () => {
    test('before the call makes no request', async () => {
      const error = await runToError(adapter, here({ signal: AbortSignal.abort() }))
      expect(error).toMatchObject({ code: 'worker_stopped' })
      expect(upstream.requests).toHaveLength(0)
    })

    test('before the first byte closes the socket at the provider', async () => {
      script({ type: 'silence', after: 'request' })
      const stop = new AbortController()
      const call = runToError(adapter, here({ signal: stop.signal }))
      const request = await upstream.waitForRequest(1)
      await expectClosedBy(stop, request.closed)
      expect(await call).toMatchObject({ code: 'worker_stopped' })
    })

    test('after the headers closes the socket at the provider', async () => {
      script({ type: 'silence', after: 'headers' })
      const stop = new AbortController()
      const { fetch, answered } = watchedFetch()
      const call = runToError(adapter, here({ signal: stop.signal, fetch }))
      await answered
      const request = await upstream.waitForRequest(1)
      await expectClosedBy(stop, request.closed)
      expect(await call).toMatchObject({ code: 'worker_stopped' })
    })

    test('in the middle of the answer closes the socket at the provider', async () => {
      answer({ chunks: ['one', 'two'], gate: hold(), gateAt: 1 })
      const stop = new AbortController()
      const stream = adapter(modelCall(here({ signal: stop.signal })))
      const parts = partsOf(stream)
      await untilDelta(parts)
      const request = await upstream.waitForRequest(1)
      await expectClosedBy(stop, request.closed)
      expect((await collect(parts.rest())).end).toMatchObject({ error: { code: 'worker_stopped' } })
    })

    test('wins over an ending that has already arrived', async () => {
      const stop = new AbortController()
      const parts = partsOf(adapter(modelCall(here({ signal: stop.signal }))))
      await untilDelta(parts)
      stop.abort()
      expect((await collect(parts.rest())).end).toMatchObject({ error: { code: 'worker_stopped' } })
    })

    test('ends a body that does not come from a socket', async () => {
      const stop = new AbortController()
      const body = scriptedBody([], { endless: true })
      const call = runToError(adapter, here({ signal: stop.signal, fetch: answering(body.stream) }))
      await body.pulled
      stop.abort()
      expect(await call).toMatchObject({ code: 'worker_stopped' })
      expect(await body.ended).toBe('cancelled')
    })

    test('ends a call whose fetch does not look at the signal, and cancels the answer that comes late', async () => {
      const stop = new AbortController()
      const late = Promise.withResolvers<Response>()
      const called = Promise.withResolvers<undefined>()
      const fetch = () => {
        called.resolve(undefined)
        return late.promise
      }
      const call = runToError(adapter, here({ signal: stop.signal, fetch }))
      await called.promise
      stop.abort()
      expect(await call).toMatchObject({ code: 'worker_stopped' })
      const body = scriptedBody([], { endless: true })
      late.resolve(new Response(body.stream))
      expect(await body.ended).toBe('cancelled')
    })

    test('after the finish adds nothing', async () => {
      const stop = new AbortController()
      const types: string[] = []
      for await (const part of adapter(modelCall(here({ signal: stop.signal })))) {
        types.push(part.type)
        if (part.type === 'finish') stop.abort()
      }
      expect(types.at(-1)).toBe('finish')
      expect(types).not.toContain('error')
    })
  })

  test('a reader that leaves in the middle closes the socket at the provider at once', async () => {
    answer({ chunks: ['one', 'two'], gate: hold(), gateAt: 1 })
    const { fetch, answered } = watchedFetch()
    for await (const part of adapter(modelCall(here({ fetch })))) if (part.type === 'text-delta') break
    expect((await answered).aborted).toBe(true)
    const request = await upstream.waitForRequest(1)
    expect(await request.closed).toMatchObject({ early: true })
  })

  describe('a stream that is none, or not whole', () => {
    test.each(['missing', 'cut', 'malformed'] as const)('ends as broken: %s', async (ending) => {
      answer({ chunks: ['one', 'two'], ending })
      const { text, end } = await run(adapter, here())
      expect(text).toBe('onetwo')
      expect(end).toMatchObject({
        type: 'error',
        error: { code: 'provider_stream_broken', recovery: 'retry' },
      })
    })

    test.each([
      ['a page', '<html>Welcome</html>', 'text/html'],
      ['a JSON object', '{"object": "list"}', 'application/json'],
      ['nothing', '', 'text/event-stream'],
      [
        'events of another kind',
        'event: hello\ndata: {"type": "hello", "choices": 3}\n\n',
        'text/event-stream',
      ],
    ])('ends as broken: %s', async (_what, body, contentType) => {
      script({ type: 'body', body, contentType })
      expect(await runToError(adapter, here())).toMatchObject({ code: 'provider_stream_broken' })
    })

    test('ends as broken: events whose data is no object', async () => {
      script({ type: 'body', body: 'event: message\ndata: [1]\n\nevent: message\ndata: null\n\n' })
      expect(await runToError(adapter, here())).toMatchObject({ code: 'provider_stream_broken' })
    })

    test('closes the socket at once when it is given up', async () => {
      answer({ toolCalls: [{ id: 'a', name: 'b', args: ['x'.repeat(1_000_001)] }], ending: 'lingering' })
      const { fetch, answered } = watchedFetch()
      await runToError(adapter, here({ fetch }))
      expect((await answered).aborted).toBe(true)
      const request = await upstream.waitForRequest(1)
      expect(await request.closed).toMatchObject({ early: true })
    })
  })

  describe('an error event in the stream', () => {
    const cases: [Partial<UpstreamError>, ErrorCode][] = [
      [{ type: 'overloaded_error' }, 'provider_overloaded'],
      [{ type: 'server_error', code: 'rate_limit_exceeded' }, 'provider_overloaded'],
      [{ type: 'invalid_request_error' }, 'provider_rejected'],
      [{ type: 'authentication_error' }, 'provider_auth_failed'],
      [{ type: 'invalid_request_error', code: 'context_length_exceeded' }, 'context_too_long'],
      [{ type: 'insufficient_quota', code: 'insufficient_quota' }, 'provider_quota_exhausted'],
      [{ type: 'request_too_large' }, 'context_too_long'],
      [{ type: 'never_heard_of' }, 'provider_stream_broken'],
    ]
    test.each(cases)('%j is %s', async (error, code) => {
      answer({ chunks: ['one'], ending: 'error', error: { ...error, message: 'sorry' } })
      const { text, end } = await run(adapter, here())
      expect(text).toBe('one')
      expect(end).toMatchObject({ error: { code, message: expect.stringContaining('sorry') } })
    })
  })

  describe('an HTTP error', () => {
    const cases: [status: number, error: Partial<UpstreamError>, code: ErrorCode][] = [
      [400, { type: 'invalid_request_error' }, 'provider_rejected'],
      [401, { type: 'authentication_error' }, 'provider_auth_failed'],
      [402, { type: 'billing_error' }, 'provider_quota_exhausted'],
      [403, { type: 'permission_error' }, 'provider_auth_failed'],
      [404, { type: 'not_found_error' }, 'provider_rejected'],
      [408, { type: 'timeout_error' }, 'provider_overloaded'],
      [409, { type: 'conflict_error' }, 'provider_overloaded'],
      [413, { type: 'request_too_large' }, 'context_too_long'],
      [413, {}, 'context_too_long'],
      [422, { type: 'invalid_request_error' }, 'provider_rejected'],
      [429, { type: 'rate_limit_error', code: 'rate_limit_exceeded' }, 'provider_overloaded'],
      [429, { type: 'insufficient_quota', code: 'insufficient_quota' }, 'provider_quota_exhausted'],
      [429, { type: 'rate_limit_error', code: 'enforced_spend_limit_reached' }, 'provider_quota_exhausted'],
      [400, { message: 'Your credit balance is too low to access the API.' }, 'provider_quota_exhausted'],
      [400, { code: 'context_length_exceeded' }, 'context_too_long'],
      [400, { message: 'prompt is too long: 210000 tokens > 200000 maximum' }, 'context_too_long'],
      [400, { message: "This model's maximum context length is 8192 tokens." }, 'context_too_long'],
      [
        400,
        { message: 'input length and `max_tokens` exceed context limit: 9 + 9 > 10' },
        'context_too_long',
      ],
      [400, { message: 'Input is too long for requested model.' }, 'context_too_long'],
      [
        400,
        { message: "This model's maximum prompt length is 131072 but the request contains 140000 tokens." },
        'context_too_long',
      ],
      [
        422,
        { message: '`inputs` tokens + `max_new_tokens` must be <= 4097. Given: 5000 `inputs` tokens' },
        'context_too_long',
      ],
      [400, { message: 'Please reduce the length of the messages or completion.' }, 'context_too_long'],
      [400, { message: 'The parameter `name` is too long.' }, 'provider_rejected'],
      [500, { type: 'api_error' }, 'provider_overloaded'],
      [502, {}, 'provider_overloaded'],
      [503, {}, 'provider_overloaded'],
      [529, { type: 'overloaded_error' }, 'provider_overloaded'],
    ]
    test.each(cases)('%i %j is %s', async (status, error, code) => {
      script({ type: 'status', status, error: { message: 'refused', ...error } })
      const thrown = await runToError(adapter, here())
      expect(thrown).toMatchObject({ code, retryAfterMs: undefined })
      expect(thrown.message).toContain(String(status))
    })

    test('without a JSON body counts by its status', async () => {
      script({
        type: 'status',
        status: 502,
        body: '<html>Bad Gateway</html>',
        headers: { 'content-type': 'text/html' },
      })
      expect(await runToError(adapter, here())).toMatchObject({ code: 'provider_overloaded' })
    })

    test('is made of one request: the SDK does not retry', async () => {
      script({ type: 'status', status: 500 })
      await runToError(adapter, here())
      expect(upstream.requests).toHaveLength(1)
    })

    test('tells the status and the code, and is cut to a readable length', async () => {
      script({ type: 'status', status: 422, error: { type: 'odd_error', message: 'a'.repeat(5_000) } })
      const { message } = await runToError(adapter, here())
      expect(message).toMatch(/test-model of provider mill answered 422.*odd_error/)
      expect(message.length).toBeLessThanOrEqual(300)
    })

    test('repeats no credential', async () => {
      const credential = 'a key of no known form'
      const leaks = `${credential} sk-proj-abcdef123456 Bearer abc.def x-api-key: zzz999 tm_0123456789_secret`
      script({ type: 'status', status: 401, error: { message: `Incorrect: ${leaks}` } })
      const { message } = await runToError(adapter, here({ credential }))
      for (const leak of [credential, 'abcdef123456', 'abc.def', 'zzz999', '0123456789', 'secret'])
        expect(message).not.toContain(leak)
    })

    test('holds no text that Postgres refuses', async () => {
      script({ type: 'status', status: 400, error: { message: 'a\u0000b\uD83D' } })
      expect((await runToError(adapter, here())).message).toContain('a\uFFFDb\uFFFD')
    })

    test('keeps nothing of the SDK as its cause', async () => {
      script({ type: 'status', status: 401 })
      expect((await runToError(adapter, here())).cause).toBeUndefined()
    })
  })

  describe('Retry-After', () => {
    const cases: [value: string, expected: number | undefined][] = [
      ['2', 2_000],
      ['0', 0],
      ['86400', 86_400_000],
      ['-1', undefined],
      ['abc', undefined],
      ['', undefined],
      ['Wed, 21 Oct 2015 07:28:00 GMT', undefined],
    ]
    test.each(cases)('%j waits %p ms', async (value, expected) => {
      script({ type: 'status', status: 429, headers: { 'retry-after': value } })
      expect((await runToError(adapter, here())).retryAfterMs).toBe(expected)
    })

    test('takes a date in the future', async () => {
      const date = new Date(Date.now() + 90_000).toUTCString()
      script({ type: 'status', status: 503, headers: { 'retry-after': date } })
      const { retryAfterMs } = await runToError(adapter, here())
      expect(retryAfterMs).toBeGreaterThan(60_000)
      expect(retryAfterMs).toBeLessThanOrEqual(90_000)
    })

    test('prefers the finer retry-after-ms', async () => {
      script({ type: 'status', status: 429, headers: { 'retry-after': '2', 'retry-after-ms': '1500' } })
      expect((await runToError(adapter, here())).retryAfterMs).toBe(1_500)
    })
  })

  test.each([301, 302, 303, 307, 308])('does not follow a redirect with %i', async (status) => {
    const elsewhere = await startFakeUpstream()
    script({ type: 'status', status, headers: { location: `${elsewhere.url}/v1/messages` } })
    const error = await runToError(adapter, here())
    expect(error).toMatchObject({
      code: 'provider_rejected',
      message: expect.stringContaining(String(status)),
    })
    expect(elsewhere.requests).toHaveLength(0)
    await elsewhere.stop()
  })

  test('reports a refused connection as unreachable', async () => {
    const error = await runToError(adapter, here({ baseUrl: await closedAddress() }))
    expect(error).toMatchObject({
      code: 'provider_unreachable',
      message: expect.stringContaining('ECONNREFUSED'),
    })
  })

  describe('the gateway', () => {
    test('refuses with a code and in words of its own', async () => {
      const fetch = () =>
        Promise.resolve(
          Response.json(
            { error: { code: 'key_revoked', message: 'the key is revoked' } },
            { status: 409, headers: { 'x-turnmill-error': 'key_revoked' } },
          ),
        )
      const error = await runToError(adapter, here({ fetch }))
      expect(error).toMatchObject({
        code: 'key_revoked',
        message: 'the key is revoked',
      })
    })

    test('refuses a history that is too large for it as one that is too long', async () => {
      const headers = { 'x-turnmill-error': 'payload_too_large' }
      const fetch = () => Promise.resolve(Response.json({ error: {} }, { status: 413, headers }))
      expect(await runToError(adapter, here({ fetch }))).toMatchObject({ code: 'context_too_long' })
    })

    test('cannot name a code that is none', async () => {
      script({ type: 'status', status: 500, headers: { 'x-turnmill-error': 'toString' } })
      expect(await runToError(adapter, here())).toMatchObject({ code: 'provider_overloaded' })
    })

    test.each(['answer', 'body'])('may throw an error of ours instead of its %s', async (where) => {
      const error = new TurnmillError('gateway_unavailable', 'no gateway here')
      const body = scriptedBody([], { error })
      const fetch = where === 'answer' ? () => Promise.reject(error) : answering(body.stream)
      expect(await runToError(adapter, here({ fetch }))).toBe(error)
    })
  })

  describe('the environment', () => {
    const ambient = {
      OPENAI_API_KEY: 'ambient-key',
      OPENAI_ADMIN_KEY: 'ambient-admin',
      OPENAI_ORG_ID: 'ambient-org',
      OPENAI_PROJECT_ID: 'ambient-project',
      OPENAI_BASE_URL: 'http://ambient.invalid/v1',
      OPENAI_CUSTOM_HEADERS:
        'X-Custom: ambient-custom\nAuthorization: Bearer ambient-bearer\nUser-Agent: ambient',
      ANTHROPIC_API_KEY: 'ambient-key',
      ANTHROPIC_AUTH_TOKEN: 'ambient-token',
      ANTHROPIC_BASE_URL: 'http://ambient.invalid',
      ANTHROPIC_CUSTOM_HEADERS:
        'X-Custom: ambient-custom\nX-Api-Key: ambient-bearer\nAnthropic-Version: ambient',
    }
    const before = { ...process.env }
    beforeAll(() => void Object.assign(process.env, ambient))
    afterAll(() => {
      for (const name of Object.keys(ambient)) Reflect.deleteProperty(process.env, name)
      Object.assign(process.env, before)
    })

    test.each([TEST_CREDENTIAL, ''])('is never sent, with credential %j', async (credential) => {
      await runToFinish(adapter, here({ credential }))
      const { headers, body } = await upstream.waitForRequest(1)
      expect(JSON.stringify({ headers, body })).not.toContain('ambient')
      const { authorization, 'x-api-key': apiKey } = headers
      const sent = wireFormat === 'anthropic-messages' ? apiKey : authorization?.replace('Bearer ', '')
      expect(sent ?? '').toBe(credential)
    })

    test('says nothing of the machine either', async () => {
      await runToFinish(adapter, here())
      const { headers } = await upstream.waitForRequest(1)
      expect(Object.keys(headers).filter((name) => name.startsWith('x-stainless'))).toEqual([])
    })
  })

  test('a credential that is no header value is refused without being told', async () => {
    const error = await runToError(adapter, here({ credential: 'sk-test\ncredential-0002' }))
    expect(error.code).toBe('provider_auth_failed')
    expect(error.message).not.toContain('credential-0002')
  })

  test('speaks to a mock that is not ours', async () => {
    const mock = new LLMock({ port: 0, host: '127.0.0.1' })
    mock.onMessage('hello', { content: 'Hello from afar.', reasoning: 'A greeting.' })
    await mock.start()
    try {
      const baseUrl = wireFormat === 'anthropic-messages' ? mock.url : `${mock.url}/v1`
      const model = wireFormat === 'anthropic-messages' ? 'claude-haiku-4-5' : 'gpt-5'
      const call = await run(adapter, here({ baseUrl, request: { model, reasoningEffort: 'low' } }))
      expect(call).toMatchObject({
        text: 'Hello from afar.',
        reasoning: 'A greeting.',
        end: { reason: 'stop' },
      })
      expect(call.end.usage?.estimated).toBe(false)
    } finally {
      await mock.stop()
    }
  })
})

// --- helpers

/** The bytes that the fake upstream answers with now, to be replayed by an in-process fetch. */
async function recordAnswer(wireFormat: WireFormat): Promise<string> {
  const url = `${upstream.baseUrl(wireFormat)}${wireFormat === 'anthropic-messages' ? '/v1' : ''}/${pathOf(wireFormat)}`
  const response = await fetch(url, { method: 'POST', body: JSON.stringify({ model: 'test-model' }) })
  return response.text()
}

const pathOf = (wireFormat: WireFormat): string =>
  ({ 'openai-responses': 'responses', 'openai-chat': 'chat/completions', 'anthropic-messages': 'messages' })[
    wireFormat
  ]

interface ScriptedBody {
  stream: ReadableStream<Uint8Array>
  /** Resolves when it was read from beyond its chunks. */
  pulled: Promise<unknown>
  /** Resolves with how it ended. */
  ended: Promise<'read' | 'cancelled'>
}

/** A body that is no socket: gives its chunks, then ends, errs or stays silent. */
function scriptedBody(
  chunks: readonly (string | Uint8Array)[],
  { endless = false, error }: { endless?: boolean; error?: Error } = {},
): ScriptedBody {
  const pulled = Promise.withResolvers<undefined>()
  const ended = Promise.withResolvers<'read' | 'cancelled'>()
  const rest = chunks.map((chunk) => (typeof chunk === 'string' ? new TextEncoder().encode(chunk) : chunk))
  const stream = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const chunk = rest.shift()
        if (chunk !== undefined) {
          controller.enqueue(chunk)
          return
        }
        pulled.resolve(undefined)
        if (error !== undefined) throw error
        if (endless) await new Promise(() => undefined)
        controller.close()
        ended.resolve('read')
      },
      cancel: () => ended.resolve('cancelled'),
    },
    { highWaterMark: 0 },
  )
  return { stream, pulled: pulled.promise, ended: ended.promise }
}

const answering = (body: ReadableStream<Uint8Array>) => () =>
  Promise.resolve(new Response(body, { headers: { 'content-type': 'text/event-stream' } }))

/** A fetch that tells when it has answered, and by which signal it can be stopped. */
function watchedFetch() {
  const answered = Promise.withResolvers<AbortSignal>()
  const watched: typeof fetch = async (input, init) => {
    const response = await fetch(input, init)
    answered.resolve(init?.signal ?? AbortSignal.any([]))
    return response
  }
  return { fetch: watched, answered: answered.promise }
}

/** Stop reaches the provider's socket in every window: how fast, a benchmark says. */
async function expectClosedBy(stop: AbortController, closed: Promise<{ early: boolean; at: number }>) {
  const stoppedAt = performance.now()
  stop.abort()
  const { early, at } = await closed
  expect(early).toBe(true)
  expect(at - stoppedAt).toBeLessThan(5000)
}

/** A stream that can be read in two goes. */
function partsOf(stream: AsyncIterable<StreamPart>) {
  const iterator = stream[Symbol.asyncIterator]()
  const seen: StreamPart[] = []
  return {
    async next(): Promise<StreamPart> {
      const result = await iterator.next()
      if (result.done === true) throw new Error('the stream ended too early')
      seen.push(result.value)
      return result.value
    },
    async *rest(): AsyncGenerator<StreamPart, void> {
      yield* seen
      for await (const part of { [Symbol.asyncIterator]: () => iterator }) yield part
    },
  }
}

async function untilDelta(parts: { next(): Promise<StreamPart> }): Promise<void> {
  while ((await parts.next()).type !== 'text-delta');
}

/** An address on which nobody listens any more. */
async function closedAddress(): Promise<string> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return `http://127.0.0.1:${port}`
}
