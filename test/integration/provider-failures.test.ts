import type { Behaviour } from '../support/fake-upstream.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

let turnmill: Turnmill
let user: TestUser
beforeAll(async () => {
  turnmill = await startTurnmill({
    backend: 'redis',
    environment: {
      TURNMILL_SILENCE_TIMEOUT_MS: '3000',
      TURNMILL_FIRST_PART_TIMEOUT_MS: '3000',
      // How a failure ends a turn; that most are tried again first is seen in retries.test.ts.
      TURNMILL_RETRY_ATTEMPTS: '1',
    },
  })
  user = await turnmill.addUser()
})
afterAll(() => turnmill.stop())
beforeEach(() => turnmill.upstream.reset())

const FAILURES: [what: string, behaviour: Behaviour, code: string][] = [
  ['refuses the credential', { type: 'status', status: 401 }, 'provider_auth_failed'],
  ['is overloaded', { type: 'status', status: 429, headers: { 'retry-after': '2' } }, 'provider_overloaded'],
  ['breaks down', { type: 'status', status: 500 }, 'provider_overloaded'],
  ['refuses the request', { type: 'status', status: 400 }, 'provider_rejected'],
  [
    'answers with a page',
    { type: 'status', status: 200, headers: { 'content-type': 'text/html' }, body: '<html>' },
    'provider_stream_broken',
  ],
  [
    'redirects',
    { type: 'status', status: 307, headers: { location: 'http://127.0.0.1:9/' } },
    'provider_rejected',
  ],
  ['leaves in the middle', { type: 'answer', ending: 'cut' }, 'provider_stream_broken'],
  ['ends without an ending', { type: 'answer', ending: 'missing' }, 'provider_stream_broken'],
  ['sends an error in the middle', { type: 'answer', ending: 'error' }, 'provider_stream_broken'],
  ['falls silent after some text', { type: 'answer', ending: 'silence' }, 'provider_timeout'],
  ['says nothing', { type: 'silence', after: 'request' }, 'provider_timeout'],
  ['says nothing after the headers', { type: 'silence', after: 'headers' }, 'provider_timeout'],
]

describe('a provider that', () => {
  test.each(FAILURES)(
    '%s fails the turn with a code, and the chat takes the next message',
    async (_, behaviour, code) => {
      turnmill.upstream.script((request) => (request.text === 'bad' ? behaviour : { type: 'answer' }))
      const { chat, turn } = await user.client.create('bad')
      const watch = user.client.watch(chat.id)
      await watch.until((event) => event.type === 'status' && event.status === 'failed')
      watch.close()
      const [row] = await user.client.turns(chat.id)
      expect(row).toMatchObject({ id: turn.id, state: 'failed', error: { code } })
      expect(row?.error?.message).not.toContain('central-provider-key')

      // What was shown of a failed attempt is withdrawn, and no message came of it.
      const events = watch.events.map(({ event }) => event)
      const shown = events.some((event) => event.type === 'part')
      expect(events.some((event) => event.type === 'reset' && event.scope === 'preview')).toBe(shown)
      expect(await user.client.messages(chat.id)).toHaveLength(1)

      await user.client.send(chat.id, 'good')
      await expect(user.client.settled(chat.id)).resolves.toMatchObject({ status: 'idle', lastError: null })
      const messages = await user.client.messages(chat.id)
      expect(messages.at(-1)).toMatchObject({
        role: 'assistant',
        parts: [{ type: 'text', text: 'echo: good' }],
      })
    },
  )

  test('does not exist fails the turn as provider_unreachable', async () => {
    await turnmill.admin.client.request('PATCH', `/v1/providers/${turnmill.provider.id}`, {
      baseUrl: 'http://127.0.0.1:9/v1',
    })
    const { chat, turn } = await user.client.create('anybody there')
    await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({
      state: 'failed',
      error: { code: 'provider_unreachable' },
    })
    await turnmill.admin.client.request('PATCH', `/v1/providers/${turnmill.provider.id}`, {
      baseUrl: turnmill.upstream.baseUrl('openai-responses'),
    })
  })

  test('is disabled fails the turn as provider_disabled, without a request', async () => {
    await turnmill.admin.client.request('PATCH', `/v1/providers/${turnmill.provider.id}`, { enabled: false })
    const { chat, turn } = await user.client.create('hello')
    await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({
      state: 'failed',
      error: { code: 'provider_disabled' },
    })
    expect(turnmill.upstream.requests).toHaveLength(0)
    await turnmill.admin.client.request('PATCH', `/v1/providers/${turnmill.provider.id}`, { enabled: true })
  })

  test('is nobody’s choice fails the turn as model_config_missing', async () => {
    await turnmill.admin.client.request('PATCH', `/v1/model-configs/${turnmill.modelConfig.id}`, {
      enabled: false,
    })
    const { chat, turn } = await user.client.create('hello')
    await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({
      state: 'failed',
      error: { code: 'model_config_missing' },
    })
    await turnmill.admin.client.request('PATCH', `/v1/model-configs/${turnmill.modelConfig.id}`, {
      enabled: true,
    })
  })
})
