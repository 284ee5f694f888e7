/** I11 in a turn: what its calls used is what the provider reported; the rest is estimated, and what the gateway's books say. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { ChatUsage } from '../../src/gateway/index.ts'
import { TurnmillError } from '../../src/protocol/errors.ts'
import type { WireFormat } from '../../src/protocol/routes.ts'
import { settledUsage } from '../support/chat-usage.ts'
import { hold, type AnswerBehaviour, type Behaviour } from '../support/fake-upstream.ts'
import { RENDERERS, type AnswerScript } from '../support/fake-upstream-formats.ts'
import { dataUrl, imageBytes } from '../support/images.ts'
import { isText } from '../support/shown.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

const WIRE_FORMATS: WireFormat[] = ['openai-chat', 'openai-responses', 'anthropic-messages']

let turnmill: Turnmill
let user: TestUser

async function start(wireFormat: WireFormat, environment: Record<string, string> = {}): Promise<void> {
  turnmill = await startTurnmill({ wireFormat, environment })
  user = await turnmill.addUser()
}
afterEach(() => turnmill.stop())

const tokensOf = ({ inputTokens, outputTokens, costMicros }: ChatUsage['turns'] | ChatUsage['calls']) => ({
  inputTokens,
  outputTokens,
  costMicros,
})

/** Some attempts, then the usual answer. */
function script(...attempts: Behaviour[]): void {
  const left = [...attempts]
  turnmill.upstream.script(() => left.shift() ?? { type: 'answer' })
}

/** 100 tokens, as we count them. */
const TEXT = 'word '.repeat(80)

const EVENTS = { 'content-type': 'text/event-stream' }

const ANSWER: AnswerScript = {
  model: 'fake-1',
  reasoning: [],
  chunks: ['A', ' mill'],
  finish: 'stop',
  usage: { input: 33, cacheRead: 0, cacheWrite: 0, output: 44, reasoning: 0 },
  toolCall: null,
  calls: [],
  interleaved: false,
}

const BREAKS: [string, Partial<AnswerBehaviour>][] = [
  ['without its ending', { ending: 'missing' }],
  ['within an event', { ending: 'cut' }],
  ['with an event that is no JSON', { ending: 'malformed', usage: null }],
  ['with an error', { ending: 'error', error: { type: 'overloaded_error' } }],
]

describe.each(WIRE_FORMATS)('%s', (wireFormat) => {
  test.each(BREAKS)('an attempt that breaks off %s is charged like in the books', async (_, behaviour) => {
    await start(wireFormat)
    script({ type: 'answer', text: TEXT, ...behaviour })
    const { chat, turn } = await user.client.create('hi')
    expect(await user.client.ended(chat.id, turn.id)).toMatchObject({
      state: 'completed',
      usage: { estimated: true },
    })
    const { turns, calls } = await settledUsage(user, chat.id)
    expect(calls).toMatchObject({ calls: 2, estimated: 1 })
    expect(calls.outputTokens).toBeGreaterThanOrEqual(100)
    expect(tokensOf(turns)).toEqual(tokensOf(calls))
  })

  test('what was streamed of an interrupted answer is charged like in the books', async () => {
    await start(wireFormat)
    const gate = hold()
    script({ type: 'answer', chunks: [TEXT, TEXT, 'rest'], gate, gateAt: 2 })
    const { chat, turn } = await user.client.create('hi')
    const watch = user.client.watch(chat.id)
    await watch.until(isText)
    await user.client.request('POST', `/v1/chats/${chat.id}/interrupt`, {})
    expect(await user.client.ended(chat.id, turn.id)).toMatchObject({
      state: 'interrupted',
      usage: { estimated: true },
    })
    gate.release()
    const { turns, calls } = await settledUsage(user, chat.id)
    expect(calls).toMatchObject({ calls: 1, estimated: 1 })
    expect(tokensOf(turns)).toEqual(tokensOf(calls))
  })

  test('an answer without a report is charged like in the books', async () => {
    await start(wireFormat)
    script({ type: 'answer', text: TEXT, usage: null })
    const { chat, turn } = await user.client.create('hi')
    expect(await user.client.ended(chat.id, turn.id)).toMatchObject({ usage: { estimated: true } })
    const { turns, calls } = await settledUsage(user, chat.id)
    expect(calls).toMatchObject({ calls: 1, estimated: 1, outputTokens: 100 })
    expect(tokensOf(turns)).toEqual(tokensOf(calls))
  })

  const whole = (text: string) => JSON.stringify({ choices: [], output: [], content: [], text })

  test.each([
    [
      'a JSON that breaks off',
      { body: whole(TEXT).slice(0, -9), contentType: 'application/json', cut: true },
    ],
    ['a JSON', { body: whole(TEXT), contentType: 'application/json' }],
    ['a text that breaks off', { body: TEXT, contentType: 'text/plain', cut: true }],
  ])('an attempt that is answered with %s is charged like in the books', async (_, behaviour) => {
    await start(wireFormat)
    script({ type: 'body', ...behaviour })
    const { chat, turn } = await user.client.create('hi')
    await user.client.ended(chat.id, turn.id)
    const { turns, calls } = await settledUsage(user, chat.id)
    expect(calls).toMatchObject({ calls: 2, estimated: 1 })
    expect(tokensOf(turns)).toEqual(tokensOf(calls))
  })

  test('what had passed when the message was edited is charged to the turn that it superseded', async () => {
    for (const routing of ['true', 'false']) {
      await start(wireFormat, { TURNMILL_CHAT_AI_GATEWAY_ROUTING_ENABLED: routing })
      const gate = hold()
      script({ type: 'answer', chunks: [TEXT, TEXT, 'rest'], gate, gateAt: 2 })
      const { chat, turn } = await user.client.create('hi')
      await user.client.watch(chat.id).until(isText)
      const [message] = await user.client.messages(chat.id)
      await user.client.edit(chat.id, message?.id ?? '', 'other')
      await user.client.settled(chat.id)
      const superseded = async () => (await user.client.turns(chat.id)).find(({ id }) => id === turn.id)
      // Its worker is told by the way, and the next turn waits for nothing.
      while ((await superseded())?.usage === null) await sleep(20)
      expect(await superseded()).toMatchObject({ state: 'superseded', usage: { estimated: true } })
      gate.release()
      const { turns, calls } = await settledUsage(user, chat.id)
      if (routing === 'true') expect(tokensOf(turns)).toEqual(tokensOf(calls))
      if (routing === 'true') await turnmill.stop()
    }
  })

  test('a step whose commit nobody was told of is charged once to the turn that an edit superseded', async () => {
    await start(wireFormat)
    const { chats } = turnmill.services
    const { commitStep, addSpent } = chats
    script({ type: 'answer', toolCalls: [{ id: 'a', name: 'none', args: ['{}'] }] })
    const added = Promise.withResolvers<undefined>()
    const supersede = Promise.withResolvers<() => Promise<unknown>>()
    chats.commitStep = async (...values) => {
      chats.commitStep = commitStep
      await commitStep(...values)
      // While the worker waits to write it again.
      const edit = await supersede.promise
      void edit()
      throw new TurnmillError('database_unavailable', 'the connection broke')
    }
    chats.addSpent = async (...values) => {
      await addSpent(...values)
      added.resolve(undefined)
    }
    const { chat, message, turn } = await user.client.create('hi')
    supersede.resolve(() => user.client.edit(chat.id, message.id, 'other'))
    await added.promise
    await user.client.settled(chat.id)
    const superseded = (await user.client.turns(chat.id)).find(({ id }) => id === turn.id)
    expect(superseded).toMatchObject({ state: 'superseded', usage: { inputTokens: 12, outputTokens: 7 } })
    const { turns, calls } = await settledUsage(user, chat.id)
    expect(tokensOf(turns)).toEqual(tokensOf(calls))
  })

  test('an image is charged as one where its answer breaks off, not by its bytes', async () => {
    await start(wireFormat, { TURNMILL_FAMILY_COST_MICROS: '20000' })
    script({ type: 'answer', text: TEXT, ending: 'missing', usage: null })
    const image = dataUrl(imageBytes('image/png', 200_000))
    const content = [
      { type: 'image', image },
      { type: 'text', text: 'what is it?' },
    ]
    const { body } = await user.client.request<Awaited<ReturnType<typeof user.client.create>>>(
      'POST',
      '/v1/chats',
      { content },
    )
    const { chat, turn } = body
    expect(await user.client.ended(chat.id, turn.id)).toMatchObject({ state: 'completed' })
    const { turns, calls } = await settledUsage(user, chat.id)
    expect(tokensOf(turns)).toEqual(tokensOf(calls))
    expect(calls.inputTokens).toBeGreaterThan(1500)
    expect(calls.inputTokens).toBeLessThan(2500)
  })

  test('an answer in an encoding that nobody can read is charged its input', async () => {
    await start(wireFormat)
    script({ type: 'status', status: 200, headers: { ...EVENTS, 'content-encoding': 'zip' }, body: TEXT })
    const { chat, turn } = await user.client.create('hi')
    expect(await user.client.ended(chat.id, turn.id)).toMatchObject({
      state: 'failed',
      error: { code: 'provider_rejected' },
    })
    const { turns, calls } = await settledUsage(user, chat.id)
    expect(calls).toMatchObject({ calls: 1, estimated: 1, outputTokens: 0 })
    expect(calls.inputTokens).toBeGreaterThan(0)
    expect(tokensOf(turns)).toEqual(tokensOf(calls))
  })

  test('what is reported under an escaped name counts, in the books too', async () => {
    await start(wireFormat)
    const { opening, deltas, ending } = RENDERERS[wireFormat].render(ANSWER)
    const body = (opening + deltas.join('') + ending).replaceAll('"usage"', '"us\\u0061ge"')
    script({ type: 'status', status: 200, headers: EVENTS, body })
    const { chat, turn } = await user.client.create('hi')
    await user.client.ended(chat.id, turn.id)
    const { turns, calls } = await settledUsage(user, chat.id)
    expect(calls).toMatchObject({ calls: 1, estimated: 0, inputTokens: 33, outputTokens: 44 })
    expect(tokensOf(turns)).toEqual(tokensOf(calls))
  })

  test('a call that the provider refused costs nothing', async () => {
    await start(wireFormat)
    script({ type: 'status', status: 503 })
    const { chat, turn } = await user.client.create('hi')
    await user.client.ended(chat.id, turn.id)
    const { turns, calls } = await settledUsage(user, chat.id)
    expect(calls).toMatchObject({ calls: 2, estimated: 0 })
    expect(turns.estimated).toBe(0)
    expect(tokensOf(turns)).toEqual(tokensOf(calls))
  })

  test('without a gateway an attempt that breaks off is charged by what has passed', async () => {
    await start(wireFormat, { TURNMILL_CHAT_AI_GATEWAY_ROUTING_ENABLED: 'false' })
    script({ type: 'answer', text: TEXT, ending: 'missing' })
    const { chat, turn } = await user.client.create('hi')
    const { usage } = await user.client.ended(chat.id, turn.id)
    expect(usage).toMatchObject({ estimated: true })
    expect(usage?.outputTokens).toBeGreaterThanOrEqual(100)
  })

  test('the limit of a family counts what broke off, also within its first step', async () => {
    await start(wireFormat, { TURNMILL_FAMILY_COST_MICROS: '1000', TURNMILL_RETRY_ATTEMPTS: '10' })
    turnmill.upstream.script({ type: 'answer', text: 'word '.repeat(400), ending: 'missing' })
    const { chat, turn } = await user.client.create('hi')
    expect(await user.client.ended(chat.id, turn.id)).toMatchObject({
      state: 'failed',
      error: { code: 'cost_limit' },
    })
    expect(turnmill.upstream.requests).toHaveLength(1)
  })
})
