/** A watcher that drops and comes back, at any API process (I9). */
import { createApp } from '../../src/app.ts'
import type { AddressInfo } from 'node:net'
import type { MessageView } from '../../src/protocol/views.ts'
import type { ChatEvent, LoggedPart } from '../../src/streams/index.ts'
import { createClient, type TestClient, type WatchedEvent } from '../support/client.ts'
import { hold } from '../support/fake-upstream.ts'
import { holdCommit, textShown, untilTextEndsWith } from '../support/shown.ts'
import { BACKENDS, startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

/** What a client holds: messages by id, and the unfinished answer. */
class Transcript {
  readonly messages = new Map<string, MessageView>()
  preview = ''
  readonly seen: WatchedEvent[] = []

  take(watched: WatchedEvent): void {
    this.seen.push(watched)
    const { event } = watched
    if (event.type === 'message') {
      this.messages.set(event.message.id, event.message)
      if (event.message.role === 'assistant') this.preview = ''
    }
    if (event.type === 'reset') {
      this.preview = ''
      if (event.scope === 'history') this.messages.clear()
    }
    if (event.type === 'part' && event.part.type === 'text-delta') this.preview += event.part.text
  }

  get text(): string[] {
    return [...this.messages.values()].map(({ parts }) =>
      parts.map((part) => (part.type === 'text' ? part.text : '')).join(''),
    )
  }

  ids(type: ChatEvent['type']): string[] {
    return this.seen.filter(({ event }) => event.type === type).map(({ id }) => id)
  }
}

describe.each(BACKENDS)('a watcher that comes back, on the %s backend', (backend) => {
  let turnmill: Turnmill
  let user: TestUser
  /** One per API process. */
  let clients: TestClient[]
  let stopOther: () => Promise<void>

  beforeAll(async () => {
    turnmill = await startTurnmill({ backend, reconcile: true })
    const other = await createApp(turnmill.services)
    await other.listen({ host: '127.0.0.1', port: 0 })
    stopOther = () => other.close()
    user = await turnmill.addUser()
    const address = `http://127.0.0.1:${(other.server.address() as AddressInfo).port}`
    clients = [user.client, createClient(address, user.token)]
  })
  afterAll(async () => {
    await stopOther()
    await turnmill.stop()
  })

  /** Watches for some events, leaves, and comes back to the next process with what a browser would send. */
  async function watchInPieces(
    chatId: string,
    { sizes, done }: { sizes: () => number; done: (transcript: Transcript) => boolean },
  ): Promise<Transcript> {
    const transcript = new Transcript()
    let after: string | undefined
    for (let visit = 0; !done(transcript); visit++) {
      const watch = clients[visit % clients.length]!.watch(chatId, after)
      let left = sizes()
      for await (const watched of watch) {
        transcript.take(watched)
        if (--left === 0 || done(transcript)) break
      }
      after = watch.lastId()
      watch.close()
    }
    return transcript
  }

  test.each([1, 2, 3, 7])('after every %i events gets each part once, and the whole answer', async (size) => {
    const words = Array.from({ length: 60 }, (_, index) => `word-${index} `)
    turnmill.upstream.script({ type: 'answer', chunks: words, delayMs: 8 })
    const { chat } = await user.client.create('hi')
    const ended = (transcript: Transcript): boolean => transcript.text.length === 2
    // Each visit begins with the states, which are told as they are; then come the news.
    const transcript = await watchInPieces(chat.id, { sizes: () => size + 2, done: ended })
    expect(transcript.text).toEqual(['hi', words.join('')])
    const parts = transcript.ids('part')
    expect(new Set(parts).size).toBe(parts.length)
    const shown = textShown(transcript.seen.map(({ event }) => event))
    expect(words.join('').startsWith(shown)).toBe(true)
    expect(transcript.ids('reset')).toEqual([])
  })

  test('finds the parts of the worker that holds the turn, whatever one that has lost it still says', async () => {
    const { parts } = turnmill.services
    const { chat } = await user.client.create('hi')
    await user.client.settled(chat.id)
    const part = (epoch: number, seq: number, attempt = 1): LoggedPart => ({
      turn: 2, step: 1, epoch, attempt, seq, snapshotVersion: 9, part: { type: 'text-delta', id: 't', text: `${epoch} ` },
    }) // prettier-ignore
    const read = async () =>
      (await parts.read(chat.id)).map(({ epoch, attempt, seq }) => [epoch, attempt, seq])
    await parts.append(chat.id, [part(9, 1), part(9, 2)])
    await parts.append(chat.id, [part(10, 1), part(10, 2)])
    await parts.append(chat.id, [part(9, 1, 2)])
    await parts.append(chat.id, [part(10, 3)])
    expect(await read()).toEqual([[10, 1, 1], [10, 1, 2], [9, 2, 1], [10, 1, 3]]) // prettier-ignore
    await parts.append(chat.id, [part(10, 1, 2)])
    expect(await read()).toEqual([[10, 2, 1]])
  })

  test('in the middle of an answer goes on with the next part, and gets no message again', async () => {
    const gate = hold()
    turnmill.upstream.script({ type: 'answer', chunks: ['one ', 'two ', 'three'], gate, gateAt: 2 })
    const { chat } = await user.client.create('hi')
    const first = user.client.watch(chat.id)
    await untilTextEndsWith(first, 'two ')
    first.close()
    const second = clients[1]!.watch(chat.id, first.lastId())
    await second.until((event) => event.type === 'queue')
    const commit = holdCommit(turnmill.services.chats)
    gate.release()
    await untilTextEndsWith(second, 'three')
    commit.release()
    await second.until((event) => event.type === 'turn')
    const types = second.events.map(({ event }) => event.type)
    expect(types.filter((type) => type === 'message')).toHaveLength(1)
    expect(textShown(second.events.map(({ event }) => event))).toBe('three')
    second.close()
  })

  test('after its turn has ended gets the answer once, and the end of the turn', async () => {
    const gate = hold()
    turnmill.upstream.script({ type: 'answer', chunks: ['ec', 'ho'], gate, gateAt: 1 })
    const { chat, turn } = await user.client.create('hi')
    const first = user.client.watch(chat.id)
    await first.until((event) => event.type === 'part' && event.part.type === 'text-delta')
    first.close()
    gate.release()
    await user.client.ended(chat.id, turn.id)
    const second = clients[1]!.watch(chat.id, first.lastId())
    await second.until((event) => event.type === 'queue')
    expect(second.events.map(({ event }) => event)).toMatchObject([
      { type: 'message', message: { role: 'assistant', parts: [{ type: 'text', text: 'echo' }] } },
      { type: 'turn', turnId: turn.id, state: 'completed' },
      { type: 'status', status: 'idle' },
      { type: 'queue', queuedMessages: [] },
    ])
    second.close()
  })

  test('after an edit drops what was taken out', async () => {
    turnmill.upstream.script({ type: 'answer', text: 'echo' })
    const { chat, message, turn } = await user.client.create('first')
    await user.client.ended(chat.id, turn.id)
    const transcript = new Transcript()
    const first = user.client.watch(chat.id)
    await first.until((event) => event.type === 'queue')
    first.events.forEach((watched) => transcript.take(watched))
    first.close()
    const edited = await user.client.edit(chat.id, message.id, 'second')
    await user.client.ended(chat.id, edited.turn.id)
    const again = clients[1]!.watch(chat.id, first.lastId())
    await again.until((event) => event.type === 'queue')
    again.events.forEach((watched) => transcript.take(watched))
    again.close()
    expect(transcript.text).toEqual(['second', 'echo'])
    expect(transcript.preview).toBe('')
  })

  test('with nothing new is told how things are', async () => {
    turnmill.upstream.script({ type: 'answer', text: 'echo' })
    const { chat, turn } = await user.client.create('first')
    await user.client.ended(chat.id, turn.id)
    const first = user.client.watch(chat.id)
    await first.until((event) => event.type === 'queue')
    first.close()
    const again = clients[1]!.watch(chat.id, first.lastId())
    await again.until((event) => event.type === 'queue')
    again.close()
    expect(again.events.map(({ event }) => event.type)).toEqual(['status', 'queue'])
    expect(again.lastId()).toBe(first.lastId())
  })

  test.each([
    ['malformed', '1.2.3'],
    ['malformed', 'x'],
    ['malformed', '-1.0.0.0.0.0'],
    ['ahead of the chat', '999999.1.1.1.1.1'],
    ['ahead of the chat', '1.99.1.1.1.5'],
    ['malformed', '1.~.1.1.1.5'],
  ])('with a cursor that is %s (%s) is refused', async (_, cursor) => {
    const { chat } = await user.client.create('hi')
    const stream = `/v1/chats/${chat.id}/stream`
    const refusal = { status: 400, body: { code: 'invalid_request' } }
    expect(await user.client.request('GET', stream, undefined, { 'last-event-id': cursor })).toMatchObject(
      refusal,
    )
    expect(await user.client.request('GET', `${stream}?after=${cursor}`)).toMatchObject(refusal)
  })
})
