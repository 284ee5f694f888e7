import { z } from 'zod'
import type { WireFormat } from '../../src/protocol/routes.ts'
import { defineTool } from '../../src/tools/index.ts'
import type { ChatEvent } from '../../src/streams/index.ts'
import { hold, type Behaviour, type ScriptedCall } from '../support/fake-upstream.ts'
import { toolsIn } from '../support/sent-tools.ts'
import { ahead, call, createToolBench, ledgerOf, toolCall, toolResult } from '../support/tool-bench.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

const FORMATS: readonly WireFormat[] = ['openai-responses', 'openai-chat', 'anthropic-messages']

const bench = createToolBench()

/** Answers that no provider could be sent as they are. */
const ODD: Record<string, () => unknown> = {
  throws: () => {
    throw new Error('no such town')
  },
  hangs: () => new Promise(() => undefined),
  megabytes: () => 'x'.repeat(5_000_000),
  undefined: () => undefined,
  cycle: () => {
    const cycle: Record<string, unknown> = {}
    cycle['self'] = cycle
    return cycle
  },
  halves: () => ({ ['k\u0000']: 'a\u0000b\ud800' }),
}

const odd = defineTool({
  name: 'odd',
  description: 'Answers oddly.',
  inputSchema: z.object({ how: z.enum(Object.keys(ODD)) }),
  timeoutMs: 300,
  execute: ({ how }) => ODD[how]?.(),
})

const start = (options: Parameters<typeof startTurnmill>[0] = {}): Promise<Turnmill> =>
  startTurnmill({ tools: [...bench.tools, odd], ...options })

/** Steps in a row; after the last one, plain answers. */
function scriptSteps(turnmill: Turnmill, ...steps: (readonly ScriptedCall[] | Behaviour)[]): void {
  turnmill.upstream.script(({ number }) => {
    const step = steps[number - 1]
    if (step === undefined) return { type: 'answer', text: 'All done.' }
    return 'type' in step ? step : { type: 'answer', toolCalls: step }
  })
}

/** What a watcher was shown, in few words. */
function describeEvent(event: ChatEvent): string[] {
  if (event.type === 'part') return [`${event.step} ${event.part.type}`]
  return event.type === 'message' ? [`${event.message.step} message ${event.message.role}`] : []
}

describe.each(FORMATS)('a turn with tools over %s', (wireFormat) => {
  let turnmill: Turnmill
  let user: TestUser
  beforeAll(async () => {
    turnmill = await start({ wireFormat })
  })
  afterAll(() => turnmill.stop())
  beforeEach(async () => {
    turnmill.upstream.reset()
    bench.reset()
    user = await turnmill.addUser()
  })

  test('runs the calls of a step, shows the model their results and ends with its answer', async () => {
    const gate = hold()
    scriptSteps(
      turnmill,
      {
        type: 'answer',
        text: 'Let me see.',
        toolCalls: [call('call_a', 'held'), call('call_b', 'echo', { text: 'b' })],
        gate,
        gateAt: 0,
      },
      [call('call_c', 'echo', { text: 'c' })],
    )
    const { chat, turn } = await user.client.create('go')
    const watch = user.client.watch(chat.id)
    await watch.until((event) => event.type === 'status' && event.status === 'running')
    // A watcher that is late is shown the message alone.
    ahead(turnmill.services.chats, 'commitStep', async () => {
      let ends = 0
      await watch.until((event) => event.type === 'part' && event.part.type === 'tool-input-end' && ++ends === 2) // prettier-ignore
    })
    gate.release()
    // The second call ends before the first one.
    await bench.waitForCall(2)
    bench.gate.release()
    await watch.until((event) => event.type === 'turn')
    watch.close()

    const messages = await user.client.messages(chat.id)
    expect(messages.map(({ step, role, parts, finishReason }) => ({ step, role, parts, finishReason }))).toEqual([
      { step: 0, role: 'user', parts: [{ type: 'text', text: 'go' }], finishReason: null },
      {
        step: 1,
        role: 'assistant',
        parts: [
          { type: 'text', text: 'Let me see.' },
          toolCall('call_a', 'held'),
          toolCall('call_b', 'echo', { text: 'b' }),
        ],
        finishReason: 'tool_calls',
      },
      {
        step: 1,
        role: 'tool',
        parts: [toolResult('call_a', 'held', 'let go'), toolResult('call_b', 'echo', { said: 'b' })],
        finishReason: null,
      },
      { step: 2, role: 'assistant', parts: [toolCall('call_c', 'echo', { text: 'c' })], finishReason: 'tool_calls' },
      { step: 2, role: 'tool', parts: [toolResult('call_c', 'echo', { said: 'c' })], finishReason: null },
      { step: 3, role: 'assistant', parts: [{ type: 'text', text: 'All done.' }], finishReason: 'stop' },
    ]) // prettier-ignore

    expect(await ledgerOf(turnmill, turn.id)).toEqual([
      { step: 1, callId: 'call_a', state: 'done', output: 'let go', isError: false },
      { step: 1, callId: 'call_b', state: 'done', output: { said: 'b' }, isError: false },
      { step: 2, callId: 'call_c', state: 'done', output: { said: 'c' }, isError: false },
    ])

    const [ended] = await user.client.turns(chat.id)
    // Three steps of 12 and 7 tokens, at one and two micro-dollars each.
    expect(ended).toMatchObject({
      state: 'completed',
      epoch: 1,
      usage: { inputTokens: 36, outputTokens: 21 },
      costMicros: 78,
    })

    const sent = turnmill.upstream.requests.map(toolsIn)
    expect(sent.map(({ offered }) => offered)).toEqual([1, 2, 3].map(() => ['echo', 'charge', 'held', 'lookup', 'picture', 'danger', 'odd'])) // prettier-ignore
    expect(sent[2]).toMatchObject({
      calls: [
        { id: 'call_a', name: 'held', input: {} },
        { id: 'call_b', name: 'echo', input: { text: 'b' } },
        { id: 'call_c', name: 'echo', input: { text: 'c' } },
      ],
      results: [
        { id: 'call_a', text: 'let go' },
        { id: 'call_b', text: '{"said":"b"}' },
        { id: 'call_c', text: '{"said":"c"}' },
      ],
      endsWithResults: true,
    })

    const shown = watch.events.flatMap(({ event }) => describeEvent(event))
    const delta = ['1 tool-input-delta', '1 tool-input-delta']
    const ofFirst = shown.filter((what) => what.startsWith('1') && !what.includes('text'))
    // Where a call ends is seen by what follows it: in Chat Completions, that is the end of the answer.
    expect(ofFirst.filter((what) => !what.includes('end'))).toEqual([
      '1 tool-input-start', ...delta, '1 tool-input-start', ...delta, '1 message assistant', '1 message tool',
    ]) // prettier-ignore
    expect(ofFirst.slice(0, -2).filter((what) => what.includes('end'))).toHaveLength(2)
    expect(shown.filter((what) => what.includes('message'))).toEqual([
      '0 message user', '1 message assistant', '1 message tool', '2 message assistant', '2 message tool', '3 message assistant',
    ]) // prettier-ignore
  })

  test('tells the model of every call that came to nothing, and the chat goes on', async () => {
    const hows = Object.keys(ODD)
    scriptSteps(turnmill, [
      call('no_tool', 'rm_rf', { path: '/' }),
      call('no_fit', 'echo', { text: 7 }),
      { id: 'no_json', name: 'echo', args: ['{"text": "a', 'nd then'] },
      { id: 'no_object', name: 'echo', args: ['[1, 2]'] },
      ...hows.map((how) => call(how, 'odd', { how })),
      call('fine', 'echo', { text: 'a\u0000b' }),
    ])
    const { chat, turn } = await user.client.create('go')
    await expect(user.client.ended(chat.id, turn.id)).resolves.toMatchObject({
      state: 'completed',
      epoch: 1,
      error: null,
    })
    const results = toolsIn(turnmill.upstream.requests[1]!).results
    expect(results.map(({ id }) => id)).toEqual([
      'no_tool', 'no_fit', 'no_json', 'no_object', ...hows, 'fine',
    ]) // prettier-ignore
    const textOf = new Map(results.map(({ id, text }) => [id, text]))
    expect(textOf.get('no_tool')).toContain('There is no tool named rm_rf')
    expect(textOf.get('no_fit')).toContain('text')
    expect(textOf.get('no_json')).toContain('no JSON')
    expect(textOf.get('no_object')).toContain('no object')
    expect(textOf.get('throws')).toContain('no such town')
    expect(textOf.get('hangs')).toContain('did not answer within 300 ms')
    expect(textOf.get('megabytes')).toContain('bytes were left out')
    expect(Buffer.byteLength(textOf.get('megabytes') ?? '')).toBeLessThan(300_000)
    expect(textOf.get('undefined')).toBe('null')
    expect(textOf.get('cycle')).toContain('cannot be told')
    expect(textOf.get('halves')).toBe('{"k\ufffd":"a\ufffdb\ufffd"}')
    expect(textOf.get('fine')).toBe('{"said":"a\ufffdb"}')

    const [, , committed] = await user.client.messages(chat.id)
    const failed = committed!.parts.flatMap((part) => (part.type === 'tool-result' && part.isError ? [part.toolCallId] : [])) // prettier-ignore
    expect(failed).toEqual(['no_tool', 'no_fit', 'no_json', 'no_object', 'throws', 'hangs', 'cycle'])

    await user.client.send(chat.id, 'and now?')
    await expect(user.client.settled(chat.id)).resolves.toMatchObject({ status: 'idle', lastError: null })
    expect(turnmill.upstream.requests.at(-1)?.text).toBe('and now?')
  })

  test('keeps calls apart whose provider counts their ids anew in each answer', async () => {
    const again = [call('call_0', 'charge'), call('call_1', 'echo', { text: 'x' })]
    scriptSteps(turnmill, again, again, again)
    const { chat, turn } = await user.client.create('go')
    const watch = user.client.watch(chat.id)
    await watch.until((event) => event.type === 'turn')
    watch.close()
    expect(await ledgerOf(turnmill, turn.id)).toHaveLength(6)
    expect(bench.count('charge')).toBe(3)
    const last = toolsIn(turnmill.upstream.requests[3]!)
    expect(new Set(last.calls.map(({ id }) => id)).size).toBe(6)
    expect(last.results.map(({ id }) => id)).toEqual(last.calls.map(({ id }) => id))

    // I9: a call is shown under the id that it is committed under.
    const committed = (await user.client.messages(chat.id)).flatMap(({ step, parts }) =>
      parts.flatMap((part) => (part.type === 'tool-call' ? [`${step} ${part.toolCallId}`] : [])),
    )
    const shown = watch.events.flatMap(({ event }) =>
      event.type === 'part' && event.part.type === 'tool-input-start'
        ? [`${event.step} ${event.part.toolCallId}`]
        : [],
    )
    expect(committed).toEqual(expect.arrayContaining(shown))

    turnmill.upstream.reset()
    scriptSteps(turnmill, again)
    await user.client.send(chat.id, 'once more')
    await expect(user.client.settled(chat.id)).resolves.toMatchObject({ status: 'idle' })
    expect(bench.count('charge')).toBe(4)
    const { calls, results } = toolsIn(turnmill.upstream.requests[1]!)
    expect(new Set(calls.map(({ id }) => id)).size).toBe(8)
    expect(results.map(({ id }) => id)).toEqual(calls.map(({ id }) => id))
  })
})

describe('the ids of calls', () => {
  test('are each call’s own where a provider gives what we made of another one', async () => {
    const turnmill = await start()
    try {
      bench.reset()
      const { client } = await turnmill.addUser()
      const charges = (...ids: string[]) => ids.map((id) => call(id, 'charge'))
      scriptSteps(turnmill, charges('a', 'a'), charges('a', 'a-2', 'call_1'), charges('a-2', 'a-3', 'a'))
      const { chat, turn } = await client.create('go')
      await expect(client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'completed' })
      expect(bench.count('charge')).toBe(8)
      const { calls, results } = toolsIn(turnmill.upstream.requests.at(-1)!)
      expect(new Set(calls.map(({ id }) => id)).size).toBe(8)
      expect(results.map(({ id }) => id)).toEqual(calls.map(({ id }) => id))
    } finally {
      await turnmill.stop()
    }
  })
})

describe('a step of very many calls', () => {
  const withCalls = async (
    count: number,
    work: (turnmill: Turnmill, user: TestUser) => Promise<void>,
  ): Promise<void> => {
    const turnmill = await start()
    try {
      bench.reset()
      const calls = Array.from({ length: count }, (_, index) => call(`c${index}`, 'charge'))
      scriptSteps(turnmill, calls)
      await work(turnmill, await turnmill.addUser())
    } finally {
      await turnmill.stop()
    }
  }

  test('is run as far as its results can be kept', () =>
    withCalls(200, async (turnmill, { client }) => {
      const { chat, turn } = await client.create('go')
      await expect(client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'completed' })
      const { results } = toolsIn(turnmill.upstream.requests.at(-1)!)
      expect(results).toHaveLength(200)
      expect(bench.count('charge')).toBe(128)
      expect(results.at(-1)?.text).toContain('only the first 128 calls')
      await client.send(chat.id, 'and now?')
      await expect(client.settled(chat.id)).resolves.toMatchObject({ status: 'idle', lastError: null })
    }))

  test('fails where it has no end, and the chat goes on', () =>
    withCalls(1100, async (_, { client }) => {
      const { chat, turn } = await client.create('go')
      await expect(client.ended(chat.id, turn.id)).resolves.toMatchObject({
        state: 'failed',
        error: { code: 'provider_rejected' },
      })
      await client.send(chat.id, 'and now?')
      await expect(client.settled(chat.id)).resolves.toMatchObject({ status: 'idle', lastError: null })
    }))
})

describe('a model that takes no tools', () => {
  test('is told so where it asks for one, which is not run', async () => {
    const turnmill = await start()
    try {
      bench.reset()
      const { admin, modelConfig } = turnmill
      const path = `/v1/model-configs/${modelConfig.id}`
      expect((await admin.client.request('PATCH', path, { options: { tools: false } })).status).toBe(200)
      const { client } = await turnmill.addUser()
      scriptSteps(turnmill, [call('a', 'charge')])
      const { chat, turn } = await client.create('go')
      await expect(client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'completed' })
      expect(bench.count('charge')).toBe(0)
      const { offered, results } = toolsIn(turnmill.upstream.requests.at(-1)!)
      expect(offered).toEqual([])
      expect(results).toMatchObject([{ id: 'a', text: expect.stringContaining('No tools were offered') }])
    } finally {
      await turnmill.stop()
    }
  })
})

describe('a failed attempt at a later step', () => {
  test.each([
    ['is tried again at once', { type: 'status', status: 503 }],
    ['waits without a slot', { type: 'status', status: 429, headers: { 'retry-after': '2' } }],
  ] as const)('keeps what was committed: it %s', async (_, failure) => {
    const turnmill = await start({ reconcile: true })
    try {
      bench.reset()
      const { client } = await turnmill.addUser()
      scriptSteps(turnmill, [call('call_a', 'charge')], failure, [call('call_b', 'echo', { text: 'b' })])
      const { chat, turn } = await client.create('go')
      await expect(client.ended(chat.id, turn.id)).resolves.toMatchObject({
        state: 'completed',
        usage: { inputTokens: 36, outputTokens: 21 },
      })
      expect(bench.count('charge')).toBe(1)
      const messages = await client.messages(chat.id)
      expect(messages.map(({ step, role }) => `${step} ${role}`)).toEqual([
        '0 user', '1 assistant', '1 tool', '2 assistant', '2 tool', '3 assistant',
      ]) // prettier-ignore
      const [, second, third] = turnmill.upstream.requests.map(toolsIn)
      expect(third).toEqual(second)
    } finally {
      await turnmill.stop()
    }
  })
})

describe('the limits of a turn', () => {
  const withTurnmill = async (
    environment: Record<string, string>,
    work: (turnmill: Turnmill, user: TestUser) => Promise<void>,
    wireFormat: WireFormat = 'openai-responses',
  ): Promise<void> => {
    const turnmill = await start({ environment, wireFormat })
    try {
      bench.reset()
      await work(turnmill, await turnmill.addUser())
    } finally {
      await turnmill.stop()
    }
  }

  test('its last step is offered no tools', () =>
    withTurnmill({ TURNMILL_TURN_STEPS: '3' }, async (turnmill, { client }) => {
      turnmill.upstream.script((request) =>
        toolsIn(request).offered.length === 0
          ? { type: 'answer', text: 'That is all.' }
          : { type: 'answer', toolCalls: [call(`call_${request.number}`, 'echo', { text: 'again' })] },
      )
      const { chat, turn } = await client.create('go')
      await expect(client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'completed' })
      expect(turnmill.upstream.requests.map((request) => toolsIn(request).offered.length)).toEqual([7, 7, 0])
      expect(bench.count('echo')).toBe(2)
    }))

  test.each(FORMATS)('what a model asks for in its last step all the same is not run: %s', (wireFormat) =>
    withTurnmill(
      { TURNMILL_TURN_STEPS: '2' },
      async (turnmill, { client }) => {
        turnmill.upstream.script(({ number, text }) =>
          text === 'next'
            ? { type: 'answer' }
            : { type: 'answer', text: `Step ${number}.`, toolCalls: [call(`call_${number}`, 'charge')] },
        )
        const { chat, turn } = await client.create('go')
        await expect(client.ended(chat.id, turn.id)).resolves.toMatchObject({
          state: 'failed',
          error: { code: 'step_limit' },
          usage: { inputTokens: 24 },
        })
        expect(bench.count('charge')).toBe(1)
        expect(turnmill.upstream.requests).toHaveLength(2)
        const [, , , last, results] = await client.messages(chat.id)
        expect(last?.parts).toMatchObject([{ type: 'text', text: 'Step 2.' }, { toolCallId: 'call_2' }])
        expect(results?.parts).toMatchObject([{ toolCallId: 'call_2', isError: true }])
        await client.send(chat.id, 'next')
        await expect(client.settled(chat.id)).resolves.toMatchObject({ status: 'idle', lastError: null })
        expect(toolsIn(turnmill.upstream.requests.at(-1)!).results).toHaveLength(2)
      },
      wireFormat,
    ),
  )

  test('running for too long ends it while a tool runs, whose signal aborts', () =>
    withTurnmill({ TURNMILL_TURN_RUNNING_MS: '3000' }, async (turnmill, { client }) => {
      scriptSteps(turnmill, [call('call_a', 'held'), call('call_b', 'charge')])
      const { chat, turn } = await client.create('go')
      await expect(client.ended(chat.id, turn.id)).resolves.toMatchObject({
        state: 'failed',
        error: { code: 'turn_timeout' },
      })
      expect(bench.calls[0]?.signal.aborted).toBe(true)
      await client.send(chat.id, 'next')
      await expect(client.settled(chat.id)).resolves.toMatchObject({ status: 'idle', lastError: null })
      const { results } = toolsIn(turnmill.upstream.requests.at(-1)!)
      expect(results).toEqual([
        expect.objectContaining({ id: 'call_a', text: expect.stringContaining('outcome of this call is unknown') }),
        expect.objectContaining({ id: 'call_b', text: 'charged' }),
      ]) // prettier-ignore
    }))
})
