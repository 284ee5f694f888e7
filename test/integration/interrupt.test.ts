import { once } from 'node:events'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { textOf } from '../../src/protocol/messages.ts'
import { settledUsage } from '../support/chat-usage.ts'
import { hold } from '../support/fake-upstream.ts'
import { endLease } from '../support/leases.ts'
import { BACKENDS, startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

describe.each(BACKENDS)('interrupt on the %s backend', (backend) => {
  let turnmill: Turnmill
  let user: TestUser
  beforeAll(async () => {
    turnmill = await startTurnmill({
      backend,
      environment: { TURNMILL_LEASE_MS: '20000', TURNMILL_LEASE_RENEWAL_MS: '10000' },
    })
  })
  afterAll(() => turnmill.stop())
  beforeEach(async () => {
    turnmill.upstream.reset()
    user = await turnmill.addUser()
  })

  const interrupt = (chatId: string) => user.client.request('POST', `/v1/chats/${chatId}/interrupt`)

  const transcript = async (chatId: string) =>
    (await user.client.messages(chatId)).map(({ role, parts, finishReason }) => [
      role,
      textOf(parts),
      finishReason,
    ])

  test('mid-stream closes the provider’s socket at once, keeps what there is and promotes the queue', async () => {
    turnmill.upstream.script((request) =>
      request.text === 'first'
        ? { type: 'answer', chunks: ['Once upon', ' a time', '!'], gate: hold(), gateAt: 2 }
        : { type: 'answer' },
    )
    const { chat, turn } = await user.client.create('first')
    const watch = user.client.watch(chat.id)
    await watch.until(
      (event) =>
        event.type === 'part' && event.part.type === 'text-delta' && event.part.text.includes('time'),
    )
    watch.close()
    await user.client.send(chat.id, 'second')
    const request = await turnmill.upstream.waitForRequest(1)
    // The renewal is ten seconds away: only the notification can be this fast.
    const before = performance.now()
    expect(await interrupt(chat.id)).toMatchObject({ status: 202, body: { id: chat.id } })
    await expect(request.closed).resolves.toMatchObject({ early: true })
    expect(performance.now() - before).toBeLessThan(5000)
    await user.client.settled(chat.id)
    expect(await transcript(chat.id)).toEqual([
      ['user', 'first', null],
      ['assistant', 'Once upon a time', 'interrupted'],
      ['user', 'second', null],
      ['assistant', 'echo: second', 'stop'],
    ])
    const turns = await user.client.turns(chat.id)
    expect(turns[1]).toMatchObject({
      id: turn.id,
      state: 'interrupted',
      error: null,
      usage: { estimated: true },
    })
    expect(turns[0]).toMatchObject({ state: 'completed', trigger: 'promote' })
  })

  test('before the first byte closes the provider’s socket and keeps nothing', async () => {
    turnmill.upstream.script({ type: 'silence', after: 'request' })
    const { chat, turn } = await user.client.create('first')
    const request = await turnmill.upstream.waitForRequest(1)
    await interrupt(chat.id)
    await expect(request.closed).resolves.toMatchObject({ early: true })
    await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'interrupted' })
    expect(await transcript(chat.id)).toEqual([['user', 'first', null]])
    await expect(user.client.settled(chat.id)).resolves.toMatchObject({ status: 'idle', lastError: null })
  })

  test('while the connection is being made waits for it no longer, and costs nothing', async () => {
    const silent = createServer().listen(0, '127.0.0.1')
    await once(silent, 'listening')
    const { port } = silent.address() as AddressInfo
    const provider = `/v1/providers/${turnmill.provider.id}`
    const { admin, upstream } = turnmill
    await admin.client.request('PATCH', provider, { baseUrl: `https://127.0.0.1:${port}/v1` })
    try {
      const { chat, turn } = await user.client.create('first')
      const [socket] = (await once(silent, 'connection')) as [Socket]
      const before = performance.now()
      await interrupt(chat.id)
      await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({
        state: 'interrupted',
        usage: null,
      })
      const { calls } = await settledUsage(user, chat.id)
      expect(performance.now() - before).toBeLessThan(900)
      expect(calls).toMatchObject({ calls: 1, estimated: 0, costMicros: 0 })
      socket.destroy()
    } finally {
      silent.close()
      await admin.client.request('PATCH', provider, { baseUrl: upstream.baseUrl('openai-responses') })
    }
  })

  test('of a turn that waits ends it, promotes the queue, and its job finds nothing to do', async () => {
    const gate = hold()
    turnmill.upstream.script((request) =>
      request.text.startsWith('running') ? { type: 'answer', gate, gateAt: 0 } : { type: 'answer' },
    )
    const running = await Promise.all(
      Array.from({ length: 5 }, (_, index) => user.client.create(`running ${index}`)),
    )
    await turnmill.upstream.waitForRequest(5)
    const { chat, turn } = await user.client.create('waits for a slot')
    await user.client.send(chat.id, 'queued')
    const answer = await interrupt(chat.id)
    expect(answer).toMatchObject({ status: 202, body: { status: 'pending' } })
    gate.release()
    for (const started of running) await user.client.ended(started.chat.id, started.turn.id)
    await user.client.settled(chat.id)
    expect(await transcript(chat.id)).toEqual([['user', 'waits for a slot', null], ['user', 'queued', null], ['assistant', 'echo: queued', 'stop']]) // prettier-ignore
    expect((await user.client.turns(chat.id)).find(({ id }) => id === turn.id)).toMatchObject({
      state: 'interrupted',
      epoch: 0,
    })
  })

  test('of a chat that does nothing changes nothing', async () => {
    const { chat, turn } = await user.client.create('first')
    await user.client.ended(chat.id, turn.id)
    const before = (await user.client.request('GET', `/v1/chats/${chat.id}`)).body
    expect(await interrupt(chat.id)).toMatchObject({ status: 202, body: before })
  })

  test('twice is once', async () => {
    turnmill.upstream.script({ type: 'silence', after: 'headers' })
    const { chat, turn } = await user.client.create('first')
    await turnmill.upstream.waitForRequest(1)
    const answers = await Promise.all([interrupt(chat.id), interrupt(chat.id), interrupt(chat.id)])
    expect(answers.map(({ status }) => status)).toEqual([202, 202, 202])
    await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'interrupted' })
  })

  test('by a message that does not want to wait runs that message next', async () => {
    turnmill.upstream.script((request) =>
      request.text === 'first' ? { type: 'silence', after: 'headers' } : { type: 'answer' },
    )
    const { chat, turn } = await user.client.create('first')
    await turnmill.upstream.waitForRequest(1)
    const sent = await user.client.request('POST', `/v1/chats/${chat.id}/messages`, {
      content: 'at once',
      whenBusy: 'interrupt',
    })
    expect(sent).toMatchObject({ status: 202, body: { queuedMessage: { parts: [{ text: 'at once' }] } } })
    await user.client.settled(chat.id)
    expect(await transcript(chat.id)).toEqual([['user', 'first', null], ['user', 'at once', null], ['assistant', 'echo: at once', 'stop']]) // prettier-ignore
    expect((await user.client.turns(chat.id)).find(({ id }) => id === turn.id)).toMatchObject({
      state: 'interrupted',
    })
  })

  test('whose worker is gone is ended by the next one, without a call', async () => {
    const lonely = await startTurnmill({ backend, workers: 0, reconcile: true })
    try {
      const { client, apiKeyId } = await lonely.addUser()
      const { chat, turn } = await client.create('first')
      await lonely.services.chats.claim({
        turnId: turn.id,
        jobId: 'x',
        attemptsMade: 0,
        compare: { chatId: chat.id, apiKeyId },
      })
      expect(await client.request('POST', `/v1/chats/${chat.id}/interrupt`)).toMatchObject({
        body: { status: 'interrupting' },
      })
      await endLease(lonely, turn.id)
      lonely.addWorker()
      await expect(client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'interrupted', epoch: 2 })
      expect(lonely.upstream.requests).toHaveLength(0)
    } finally {
      await lonely.stop()
    }
  })
})
