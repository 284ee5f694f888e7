import { textOf } from '../../src/protocol/messages.ts'
import type { QueuedMessageView } from '../../src/protocol/views.ts'
import { hold, type Gate } from '../support/fake-upstream.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

let turnmill: Turnmill
let user: TestUser
let chatId: string
let gate: Gate
let queued: QueuedMessageView[]

beforeAll(async () => {
  turnmill = await startTurnmill({ backend: 'redis' })
})
afterAll(() => turnmill.stop())

/** A chat whose turn is held, with a, b and c in its queue. */
beforeEach(async () => {
  turnmill.upstream.reset()
  user = await turnmill.addUser()
  gate = hold()
  turnmill.upstream.script((request) =>
    request.text === 'first' ? { type: 'answer', gate, gateAt: 0 } : { type: 'answer' },
  )
  const started = await user.client.create('first')
  chatId = started.chat.id
  await turnmill.upstream.waitForRequest(1)
  queued = []
  for (const content of ['a', 'b', 'c']) {
    const sent = await user.client.send(chatId, content)
    if ('queuedMessage' in sent) queued.push(sent.queuedMessage)
  }
})

const path = (index: number, suffix = ''): string => `/v1/chats/${chatId}/queue/${queued[index]?.id}${suffix}`

const waiting = async (): Promise<unknown[]> =>
  (
    await user.client.request<{ items: QueuedMessageView[] }>('GET', `/v1/chats/${chatId}/queue`)
  ).body.items.map(({ parts }) => textOf(parts))

/** What the chat was asked, in order, once it has settled. */
async function asked(): Promise<unknown[]> {
  gate.release()
  await user.client.settled(chatId)
  const messages = await user.client.messages(chatId)
  return messages.filter((message) => message.role === 'user').map(({ parts }) => textOf(parts))
}

describe('a queued message', () => {
  test.each([
    [0, 2, ['b', 'c', 'a']],
    [2, 0, ['c', 'a', 'b']],
    [1, 0, ['b', 'a', 'c']],
    [0, 99, ['b', 'c', 'a']],
    [1, 1, ['a', 'b', 'c']],
  ])('number %i moved to place %i leaves %j, and runs in that order', async (index, position, order) => {
    expect(await user.client.request('PATCH', path(index), { position })).toMatchObject({ status: 200 })
    expect(await waiting()).toEqual(order)
    expect(await asked()).toEqual(['first', ...order])
  })

  test('edited runs with its new text under the editor’s key', async () => {
    const editor = await turnmill.addKey(user.userId)
    const answer = await editor.client.request('PATCH', path(0), { content: 'A', position: 1 })
    expect(answer).toMatchObject({ status: 200, body: { parts: [{ text: 'A' }], apiKeyId: editor.apiKeyId } })
    expect(await asked()).toEqual(['first', 'b', 'A', 'c'])
    expect(turnmill.upstream.requests.map((request) => [request.text, request.headers['x-turnmill-key-id']])).toEqual([
      ['first', user.apiKeyId], ['b', user.apiKeyId], ['A', editor.apiKeyId], ['c', user.apiKeyId],
    ]) // prettier-ignore
  })

  test('deleted never runs, and cannot be touched again', async () => {
    expect(await user.client.request('DELETE', path(1))).toMatchObject({ status: 204 })
    for (const [method, suffix, body] of [
      ['DELETE', '', undefined],
      ['PATCH', '', { position: 0 }],
      ['POST', '/promote', undefined],
    ] as const)
      expect(await user.client.request(method, path(1, suffix), body)).toMatchObject({
        status: 404,
        body: { code: 'not_found' },
      })
    expect(await asked()).toEqual(['first', 'a', 'c'])
  })

  test('promoted by hand stops what runs and is next, under its sender’s key', async () => {
    const promoter = await turnmill.addKey(user.userId)
    expect(await promoter.client.request('POST', path(2, '/promote'))).toMatchObject({ status: 202 })
    const request = await turnmill.upstream.waitForRequest(1)
    await expect(request.closed).resolves.toMatchObject({ early: true })
    expect(await asked()).toEqual(['first', 'c', 'a', 'b'])
    expect(turnmill.upstream.requests[1]).toMatchObject({
      text: 'c',
      headers: { 'x-turnmill-key-id': user.apiKeyId },
    })
    expect((await user.client.turns(chatId)).at(-1)).toMatchObject({ number: 1, state: 'interrupted' })
  })

  test('that was promoted already is no longer in the queue', async () => {
    expect(await asked()).toEqual(['first', 'a', 'b', 'c'])
    expect(await user.client.request('POST', path(0, '/promote'))).toMatchObject({ status: 404 })
  })
})

describe('a failed chat', () => {
  test('is retried under the caller’s key, as a new turn over the same message', async () => {
    turnmill.upstream.script({ type: 'status', status: 400 })
    const fresh = await user.client.create('refused')
    await expect(user.client.ended(fresh.chat.id, fresh.turn.id)).resolves.toMatchObject({ state: 'failed' })
    turnmill.upstream.script({ type: 'answer' })
    const caller = await turnmill.addKey(user.userId)
    const retried = await caller.client.request<{ turn: { id: string } }>(
      'POST',
      `/v1/chats/${fresh.chat.id}/retry`,
    )
    expect(retried).toMatchObject({
      status: 202,
      body: {
        turn: { trigger: 'retry', number: 2, apiKeyId: caller.apiKeyId, userMessageId: fresh.message.id },
      },
    })
    await expect(user.client.settled(fresh.chat.id)).resolves.toMatchObject({
      status: 'idle',
      lastError: null,
    })
    const calls = turnmill.upstream.requests.filter((request) => request.text === 'refused')
    expect(calls.map((request) => request.headers['x-turnmill-key-id'])).toEqual([
      user.apiKeyId,
      caller.apiKeyId,
    ])
    expect((await user.client.messages(fresh.chat.id)).map(({ role }) => role)).toEqual(['user', 'assistant'])
    expect(await user.client.request('POST', `/v1/chats/${fresh.chat.id}/retry`)).toMatchObject({
      status: 409,
      body: { code: 'move_refused' },
    })
  })
})
