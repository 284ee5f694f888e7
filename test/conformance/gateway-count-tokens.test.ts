/** Anthropic's count of tokens: the same from the provider and from the gateway in front of it, and free of charge. */
import Anthropic from '@anthropic-ai/sdk'
import { query, statement } from '../../src/db/index.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

let turnmill: Turnmill
let user: TestUser

beforeAll(async () => {
  turnmill = await startTurnmill({ workers: 0, wireFormat: 'anthropic-messages' })
  user = await turnmill.addUser()
})
afterAll(() => turnmill.stop())
beforeEach(() => turnmill.upstream.reset())

const targets = {
  'the provider itself': () => ({ baseURL: turnmill.upstream.url, apiKey: 'any' }),
  'the gateway': () => ({ baseURL: `${turnmill.address}/v1/gateway/fake`, apiKey: user.token }),
}

describe.each(Object.keys(targets) as (keyof typeof targets)[])('%s', (target) => {
  const count = () =>
    new Anthropic({ ...targets[target](), maxRetries: 0 }).messages.countTokens({
      model: 'fake-1',
      messages: [{ role: 'user', content: 'hi' }],
    })

  test('counts tokens', async () => {
    turnmill.upstream.script({ type: 'body', body: '{"input_tokens":7}', contentType: 'application/json' })
    await expect(count()).resolves.toMatchObject({ input_tokens: 7 })
    expect(turnmill.upstream.requests.map(({ path }) => path)).toEqual(['/v1/messages/count_tokens'])
  })

  test('gives the errors of the provider', async () => {
    turnmill.upstream.script({ type: 'status', status: 400, body: '{"type":"error","error":{"type":"invalid_request_error","message":"no"}}' }) // prettier-ignore
    await expect(count()).rejects.toBeInstanceOf(Anthropic.BadRequestError)
  })
})

const readCalls = statement(
  'test/count-tokens',
  `select i.cost_micros::int as cost, u.interception_id as used from interceptions i
  left join token_usages u on u.interception_id = i.id where i.endpoint = '/v1/messages/count_tokens' and i.settled_at is not null`,
)

test('the books have such calls, without usage and cost', async () => {
  for (;;) {
    const calls = await query(turnmill.services.db, readCalls())
    if (calls.length === 2) {
      expect(calls).toEqual(Array(2).fill({ cost: 0, used: null }))
      return
    }
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
})
