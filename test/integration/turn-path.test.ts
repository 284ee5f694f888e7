import type { ChatEvent } from '../../src/streams/index.ts'
import { hold } from '../support/fake-upstream.ts'
import { holdCommit, isText, textShown, untilTextEndsWith } from '../support/shown.ts'
import { BACKENDS, CENTRAL_KEY, startTurnmill, type Turnmill } from '../support/turnmill.ts'

describe.each(BACKENDS)('a turn on the %s backend', (backend) => {
  let turnmill: Turnmill
  beforeAll(async () => {
    turnmill = await startTurnmill({ backend })
  })
  afterAll(() => turnmill.stop())
  beforeEach(() => turnmill.upstream.reset())

  test('goes from an accepted message to a streamed and committed answer', async () => {
    const { client, apiKeyId } = await turnmill.addUser()
    const gate = hold()
    turnmill.upstream.script({
      type: 'answer',
      chunks: ['Hello', ', ', 'world'],
      gate,
      gateAt: 1,
      usage: { input: 11, output: 3 },
    })
    const { chat, message, turn } = await client.create('hi')
    expect(chat).toMatchObject({ status: 'pending', activeTurnId: turn.id, lastTurnId: turn.id })
    expect(message).toMatchObject({ role: 'user', parts: [{ type: 'text', text: 'hi' }], apiKeyId })
    expect(turn).toMatchObject({ number: 1, state: 'pending', trigger: 'create', apiKeyId })

    const watch = client.watch(chat.id)
    await watch.until(isText)
    const commit = holdCommit(turnmill.services.chats)
    gate.release()
    await untilTextEndsWith(watch, 'world')
    commit.release()
    await watch.until((event) => event.type === 'status' && event.status === 'idle')
    watch.close()

    const events = watch.events.map(({ event }) => event)
    expect(textShown(events)).toBe('Hello, world')
    const committed = events.findIndex(
      (event) => event.type === 'message' && event.message.role === 'assistant',
    )
    expect(events.findLastIndex((event) => event.type === 'part')).toBeLessThan(committed)
    expect(events[committed]).toMatchObject({
      message: { parts: [{ type: 'text', text: 'Hello, world' }], step: 1, turnId: turn.id },
    })
    expect(events.find((event) => event.type === 'turn')).toMatchObject({
      turnId: turn.id,
      state: 'completed',
    })

    const [row] = await client.turns(chat.id)
    expect(row).toMatchObject({
      state: 'completed',
      epoch: 1,
      usage: { inputTokens: 11, outputTokens: 3, estimated: false },
      costMicros: 17,
    })
    expect(row?.firstPartAt).not.toBeNull()
    expect(turnmill.upstream.requests).toHaveLength(1)
    expect(turnmill.upstream.requests[0]?.headers).toMatchObject({
      authorization: `Bearer ${CENTRAL_KEY}`,
      'x-turnmill-key-id': apiKeyId,
      'x-turnmill-turn-id': turn.id,
    })
  })

  test('shows the model the whole history', async () => {
    const { client } = await turnmill.addUser()
    const { chat, turn } = await client.create('first')
    await client.ended(chat.id, turn.id)
    await client.send(chat.id, 'second')
    await client.settled(chat.id)
    const messages = await client.messages(chat.id)
    expect(messages.map((message) => [message.role, message.parts])).toEqual([
      ['user', [{ type: 'text', text: 'first' }]],
      ['assistant', [{ type: 'text', text: 'echo: first' }]],
      ['user', [{ type: 'text', text: 'second' }]],
      ['assistant', [{ type: 'text', text: 'echo: second' }]],
    ])
    expect(JSON.stringify(turnmill.upstream.requests[1]?.body)).toMatch(/first.*echo: first.*second/s)
  })

  test('gives a late watcher the same transcript as an early one', async () => {
    const { client } = await turnmill.addUser()
    const gate = hold()
    turnmill.upstream.script({ type: 'answer', chunks: ['a', 'b', 'c'], gate, gateAt: 2 })
    const { chat } = await client.create('hi')
    const early = client.watch(chat.id)
    await early.until(isText)
    const late = client.watch(chat.id)
    await late.until(isText)
    const commit = holdCommit(turnmill.services.chats)
    gate.release()
    await Promise.all([untilTextEndsWith(early, 'c'), untilTextEndsWith(late, 'c')])
    commit.release()
    const isSettled = (event: ChatEvent): boolean => event.type === 'status' && event.status === 'idle'
    await Promise.all([early.until(isSettled), late.until(isSettled)])
    const after = client.watch(chat.id)
    await after.until((event) => event.type === 'queue')
    for (const watch of [early, late, after]) watch.close()

    expect(textShown(early.events.map(({ event }) => event))).toBe('abc')
    expect(textShown(late.events.map(({ event }) => event))).toBe('abc')
    const transcript = (events: { event: ChatEvent }[]) =>
      events.flatMap(({ event }) =>
        event.type === 'message' ? [[event.message.role, event.message.parts]] : [],
      )
    expect(transcript(late.events)).toEqual(transcript(early.events))
    expect(transcript(after.events)).toEqual(transcript(early.events))
  })
})

describe.each(['openai-responses', 'openai-chat', 'anthropic-messages'] as const)(
  'a turn in %s',
  (wireFormat) => {
    test('reaches the provider through the gateway and comes back', async () => {
      const turnmill = await startTurnmill({ wireFormat })
      try {
        const { client } = await turnmill.addUser()
        const { chat, turn } = await client.create('hello')
        await expect(client.ended(chat.id, turn.id)).resolves.toMatchObject({
          state: 'completed',
          error: null,
        })
        expect(turnmill.upstream.requests.map((request) => request.wireFormat)).toEqual([wireFormat])
      } finally {
        await turnmill.stop()
      }
    })
  },
)
