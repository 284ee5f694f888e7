import { TurnmillError } from '../../src/protocol/errors.ts'
import type { MessageView, TurnView } from '../../src/protocol/views.ts'
import type { Behaviour, UpstreamRequest } from '../support/fake-upstream.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

const USES = 2

const isAsked = ({ body }: UpstreamRequest): boolean =>
  JSON.stringify(body).includes('You advise an assistant')

const askFor = (...ids: string[]): Behaviour => ({
  type: 'answer',
  toolCalls: ids.map((id) => ({ id, name: 'ask_advisor', args: [`{"question":"what of ${id}?"}`] })),
})

const resultsOf = (messages: readonly MessageView[]) =>
  messages.flatMap(({ parts }) => parts.filter((part) => part.type === 'tool-result'))

describe('a turn that asks its advisor', () => {
  let turnmill: Turnmill
  let user: TestUser
  beforeAll(async () => {
    turnmill = await startTurnmill({ environment: { TURNMILL_ADVISOR_USES: String(USES) } })
  })
  afterAll(() => turnmill.stop())
  beforeEach(async () => {
    turnmill.upstream.reset()
    user = await turnmill.addUser()
  })

  const requests = () => turnmill.upstream.requests

  /** The steps of the turn, one after the other, and what the advisor says. */
  function script(steps: readonly Behaviour[], advice: Behaviour = { type: 'answer', text: 'Look twice.' }) {
    let step = 0
    turnmill.upstream.script((request) =>
      isAsked(request) ? advice : (steps[step++] ?? { type: 'answer', text: 'done' }),
    )
  }

  async function run(): Promise<{ turn: TurnView; messages: MessageView[] }> {
    const { chat, turn } = await user.client.create('go')
    const ended = await user.client.ended(chat.id, turn.id)
    return { turn: ended, messages: await user.client.messages(chat.id) }
  }

  test('is told the beginning of advice that is longer than the output of a tool may be', async () => {
    script([askFor('one')], { type: 'answer', text: 'Look twice. '.repeat(50_000) })
    const { turn, messages } = await run()
    expect(turn.state).toBe('completed')
    const [result] = resultsOf(messages)
    expect(result).toMatchObject({ isError: false, output: expect.stringMatching(/^\{"advice":"Look twice/) })
    expect(String(result?.output).length).toBeLessThan(270_000)
    expect(result?.output).toMatch(/bytes were left out/)
  })

  test('makes one call without tools, by the model of that purpose, under the turn’s key', async () => {
    const { admin, provider } = turnmill
    const made = await admin.client.request<{ id: string }>('POST', '/v1/model-configs', {
      providerId: provider.id, model: 'wise-1', prices: { input: 3, output: 5 },
    }) // prettier-ignore
    await user.client.request('PUT', '/v1/me/model-overrides/advisor', { modelConfigId: made.body.id })
    script([askFor('one')])
    const { turn, messages } = await run()
    expect(turn.state).toBe('completed')
    expect(requests().map(({ body }) => body['model'])).toEqual(['fake-1', 'wise-1', 'fake-1'])
    expect(requests().map(({ headers }) => headers['x-turnmill-key-id'])).toEqual(
      requests().map(() => user.apiKeyId),
    )
    const advisor = requests()[1]
    expect(advisor?.body['tools']).toBeUndefined()
    expect(advisor?.text).toBe('what of one?')
    expect(JSON.stringify(advisor?.body)).toContain('go')
    expect(resultsOf(messages)).toMatchObject([
      { toolCallId: 'one', isError: false, output: { advice: 'Look twice.' } },
    ])
    expect(turn.usage).toMatchObject({ inputTokens: 36, outputTokens: 21 })
  })

  test('may ask twice, whatever else it asks for in the same step', async () => {
    script([askFor('one', 'two', 'three'), askFor('four')])
    const { turn, messages } = await run()
    expect(turn).toMatchObject({ state: 'completed', error: null })
    expect(requests().filter(isAsked)).toHaveLength(USES)
    expect(resultsOf(messages).map(({ toolCallId, isError }) => [toolCallId, isError])).toEqual([
      ['one', false],
      ['two', false],
      ['three', true],
      ['four', true],
    ])
  })

  test.each(['before', 'after'] as const)(
    'pays once where the connection breaks %s that is written down',
    async (when) => {
      script([askFor('one')])
      const { chats } = turnmill.services
      const { addSpent } = chats
      chats.addSpent = async (...values) => {
        chats.addSpent = addSpent
        if (when === 'after') await addSpent(...values)
        throw new TurnmillError('database_unavailable', 'the connection broke')
      }
      const { turn } = await run()
      expect(turn).toMatchObject({
        state: 'completed',
        epoch: 1,
        usage: { inputTokens: 36, outputTokens: 21 },
      })
      expect(requests().filter(isAsked)).toHaveLength(1)
    },
  )

  test('goes on where the advisor fails, and pays for what that took', async () => {
    script([askFor('one')], { type: 'answer', ending: 'error', error: { type: 'server_error' } })
    const { turn, messages } = await run()
    expect(turn.state).toBe('completed')
    expect(requests().filter(isAsked)).toHaveLength(1)
    expect(resultsOf(messages)).toMatchObject([
      { isError: true, output: expect.stringContaining('scripted') },
    ])
  })

  test('is told where the advisor says nothing, or asks for tools that it has not', async () => {
    script([askFor('one')], { type: 'answer', toolCalls: [{ id: 'x', name: 'rm_rf', args: ['{}'] }] })
    const { turn, messages } = await run()
    expect(turn).toMatchObject({ state: 'completed', usage: { inputTokens: 36 } })
    expect(resultsOf(messages)).toMatchObject([
      { isError: true, output: expect.stringContaining('said nothing') },
    ])
  })

  test('goes on where a question is none', async () => {
    script([{ type: 'answer', toolCalls: [{ id: 'one', name: 'ask_advisor', args: ['{"question":" "}'] }] }])
    const { turn, messages } = await run()
    expect(turn.state).toBe('completed')
    expect(requests()).toHaveLength(2)
    expect(resultsOf(messages)).toMatchObject([{ isError: true }])
  })

  test('fails closed where its key is deleted before the advisor is asked', async () => {
    const reader = await turnmill.addKey(user.userId)
    script([askFor('one')])
    const { pool } = turnmill.services.db
    const { chats } = turnmill.services
    const before = chats.startCalls
    chats.startCalls = async (claim, calls) => {
      chats.startCalls = before
      await before(claim, calls)
      await pool.query('delete from api_keys where id = $1', [user.apiKeyId])
    }
    const { chat, turn } = await user.client.create('go')
    const ended = await reader.client.ended(chat.id, turn.id)
    // The gateway or the renewal of the lease finds it out, whichever comes first.
    const code = expect.stringMatching(/^(gateway_unauthorized|missing_key)$/) as string
    expect(ended).toMatchObject({ state: 'failed', error: { code } })
    expect(requests()).toHaveLength(1)
  })

  test('is stopped while the advisor is asked, at the provider too', async () => {
    script([askFor('one')], { type: 'silence', after: 'headers' })
    const { chat, turn } = await user.client.create('go')
    const asked = await turnmill.upstream.waitForRequest(2)
    await user.client.request('POST', `/v1/chats/${chat.id}/interrupt`)
    expect(await user.client.ended(chat.id, turn.id)).toMatchObject({ state: 'interrupted' })
    expect(await asked.closed).toMatchObject({ early: true })
    expect(requests()).toHaveLength(2)
    script([])
    await user.client.send(chat.id, 'again')
    expect(await user.client.settled(chat.id)).toMatchObject({ status: 'idle' })
    expect(resultsOf(await user.client.messages(chat.id))).toMatchObject([{ isError: true }])
  })
})
