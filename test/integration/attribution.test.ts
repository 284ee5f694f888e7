import type { UpstreamRequest } from '../support/fake-upstream.ts'
import { hold } from '../support/fake-upstream.ts'
import { CENTRAL_KEY, startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

const OWN_KEY = 'the-users-own-provider-key-42'

const ROUTES = [
  { route: 'gateway', byok: false },
  { route: 'gateway', byok: true },
  { route: 'direct', byok: false },
  { route: 'direct', byok: true },
] as const

/** Design, section 7: whose key goes onto the turn, and from there to the provider. */
describe.each(ROUTES)('the key of a call on the $route route, own provider key: $byok', ({ route, byok }) => {
  let turnmill: Turnmill
  let sender: TestUser
  let logged = ''

  beforeAll(async () => {
    turnmill = await startTurnmill({
      backend: 'redis',
      allowByok: byok,
      environment: { TURNMILL_CHAT_AI_GATEWAY_ROUTING_ENABLED: String(route === 'gateway') },
      onLog: (line) => (logged += line),
    })
    sender = await turnmill.addUser()
    const put = await sender.client.request('PUT', '/v1/me/provider-keys/fake', { key: OWN_KEY })
    expect(put.status).toBe(byok ? 200 : 403)
  })
  afterAll(() => turnmill.stop())
  beforeEach(() => turnmill.upstream.reset())

  const keysSeen = (): unknown[] =>
    turnmill.upstream.requests.map((request) => request.headers['x-turnmill-key-id'])

  const expectCredential = (requests: readonly UpstreamRequest[]): void => {
    const expected = `Bearer ${byok ? OWN_KEY : CENTRAL_KEY}`
    expect(requests.map((request) => request.headers.authorization)).toEqual(requests.map(() => expected))
  }

  test('is the caller’s for create and send', async () => {
    const other = await turnmill.addKey(sender.userId)
    const { chat, turn } = await sender.client.create('by the first key')
    await sender.client.ended(chat.id, turn.id)
    await other.client.send(chat.id, 'by the second key')
    await sender.client.settled(chat.id)
    expect(keysSeen()).toEqual([sender.apiKeyId, other.apiKeyId])
    expectCredential(turnmill.upstream.requests)
  })

  test('is the editor’s for edit', async () => {
    const editor = await turnmill.addKey(sender.userId)
    const { chat, message, turn } = await sender.client.create('before')
    await sender.client.ended(chat.id, turn.id)
    const edited = await editor.client.edit(chat.id, message.id, 'after')
    expect(edited.turn).toMatchObject({ apiKeyId: editor.apiKeyId, trigger: 'edit' })
    await sender.client.settled(chat.id)
    expect(keysSeen()).toEqual([sender.apiKeyId, editor.apiKeyId])
    expectCredential(turnmill.upstream.requests)
  })

  test('is the sender’s for a queued message that is promoted by itself', async () => {
    const queuer = await turnmill.addKey(sender.userId)
    const gate = hold()
    turnmill.upstream.script((request) =>
      request.number === 1 ? { type: 'answer', gate, gateAt: 0 } : { type: 'answer' },
    )
    const { chat } = await sender.client.create('runs')
    await turnmill.upstream.waitForRequest(1)
    const sent = await queuer.client.send(chat.id, 'waits')
    expect(sent).toMatchObject({ queuedMessage: { apiKeyId: queuer.apiKeyId } })
    gate.release()
    await turnmill.upstream.waitForRequest(2)
    await sender.client.settled(chat.id)
    expect(keysSeen()).toEqual([sender.apiKeyId, queuer.apiKeyId])
    expectCredential(turnmill.upstream.requests)
    const turns = await sender.client.turns(chat.id)
    expect(turns.map((turn) => [turn.trigger, turn.apiKeyId])).toEqual([['promote', queuer.apiKeyId], ['create', sender.apiKeyId]]) // prettier-ignore
  })

  test('shows in no log, and neither does any credential', async () => {
    const { chat, turn } = await sender.client.create('once more')
    await sender.client.ended(chat.id, turn.id)
    expect(logged).not.toContain(OWN_KEY)
    expect(logged).not.toContain(CENTRAL_KEY)
    expect(logged).not.toContain(sender.token)
  })
})

describe('direct routing', () => {
  test('needs no key ID', async () => {
    const turnmill = await startTurnmill({
      workers: 0,
      environment: { TURNMILL_CHAT_AI_GATEWAY_ROUTING_ENABLED: 'false' },
    })
    try {
      const { client, apiKeyId } = await turnmill.addUser()
      const reader = await turnmill.addKey(
        (await client.request<{ userId: string }>('GET', '/v1/me')).body.userId,
      )
      const { chat, turn } = await client.create('hi')
      await turnmill.services.db.prisma.apiKey.delete({ where: { id: apiKeyId } })
      turnmill.addWorker()
      await expect(reader.client.ended(chat.id, turn.id)).resolves.toMatchObject({
        state: 'completed',
        apiKeyId: null,
      })
      expect(turnmill.upstream.requests[0]?.headers['x-turnmill-key-id']).toBeUndefined()
    } finally {
      await turnmill.stop()
    }
  })
})

describe('a user’s own provider key', () => {
  test('is not used for a chat of somebody else’s turn, nor once the provider refuses such keys', async () => {
    const turnmill = await startTurnmill({ allowByok: true })
    try {
      const { client } = await turnmill.addUser()
      await client.request('PUT', '/v1/me/provider-keys/fake', { key: OWN_KEY })
      await turnmill.admin.client.request('PATCH', `/v1/providers/${turnmill.provider.id}`, {
        allowByok: false,
      })
      const { chat, turn } = await client.create('hi')
      await client.ended(chat.id, turn.id)
      const stranger = await turnmill.addUser()
      const theirs = await stranger.client.create('hi')
      await stranger.client.ended(theirs.chat.id, theirs.turn.id)
      expect(turnmill.upstream.requests.map((request) => request.headers.authorization)).toEqual([
        `Bearer ${CENTRAL_KEY}`,
        `Bearer ${CENTRAL_KEY}`,
      ])
    } finally {
      await turnmill.stop()
    }
  })
})
