/** Tools in every wire format: what is offered, the calls as they stream, and calls and results on their way back. */
import { LLMock } from '@copilotkit/aimock'
import type { ImagePart, MessagePart, ModelMessage, ToolCallPart } from '../../src/protocol/messages.ts'
import type { WireFormat } from '../../src/protocol/routes.ts'
import type { ModelRequest } from '../../src/providers/contract.ts'
import { asList, asRecord, providerAdapters } from '../../src/providers/index.ts'
import type { AnswerBehaviour, FakeUpstream, ScriptedCall } from '../support/fake-upstream.ts'
import { startFakeUpstream } from '../support/fake-upstream.ts'
import type { CollectedToolCall } from '../support/model-calls.ts'
import { functionTool, run, runToError, runToFinish, userText } from '../support/model-calls.ts'

const WIRE_FORMATS = Object.keys(providerAdapters) as WireFormat[]
const TOOLS = [functionTool('weather'), functionTool('time')]

let upstream: FakeUpstream

beforeAll(async () => {
  upstream = await startFakeUpstream()
})
beforeEach(() => upstream.reset())
afterAll(() => upstream.stop())

const callOf = (wireFormat: WireFormat, request: Partial<ModelRequest> = {}) => ({
  baseUrl: upstream.baseUrl(wireFormat),
  request: { tools: TOOLS, ...request },
})

/** Body of a request as it arrives. */
async function sent(wireFormat: WireFormat, request: Partial<ModelRequest>) {
  upstream.reset()
  await runToFinish(providerAdapters[wireFormat], callOf(wireFormat, request))
  return (await upstream.waitForRequest(1)).body
}

/** What matters of a call: id, name, input, and what is wrong with it. */
const gist = ({ toolCallId, toolName, input, inputError }: CollectedToolCall) => [
  toolCallId,
  toolName,
  input,
  ...(inputError === undefined ? [] : [inputError]),
]

describe.each(WIRE_FORMATS)('%s', (wireFormat) => {
  const adapter = providerAdapters[wireFormat]

  /** The calls of a scripted answer. */
  async function calls(toolCalls: ScriptedCall[], fields: Omit<AnswerBehaviour, 'type'> = {}) {
    upstream.script({ type: 'answer', toolCalls, ...fields })
    const result = await run(adapter, callOf(wireFormat))
    if (result.end.type === 'error') throw result.end.error
    return { ...result, reason: result.end.reason }
  }

  describe('a call', () => {
    test('streams its arguments after the text, and ends with them parsed', async () => {
      const args = ['{"city":', '"Lviv"}']
      const { parts, text, reason } = await calls([{ id: 'call_1', name: 'weather', args }], { text: 'Hm.' })
      expect(text).toBe('Hm.')
      expect(reason).toBe('tool_calls')
      const start = parts.findIndex(({ type }) => type === 'tool-input-start')
      expect(parts.slice(start)).toMatchObject([
        { type: 'tool-input-start', id: '1', toolCallId: 'call_1', toolName: 'weather' },
        { type: 'tool-input-delta', id: '1', text: '{"city":' },
        { type: 'tool-input-delta', id: '1', text: '"Lviv"}' },
        { type: 'tool-input-end', id: '1', input: { city: 'Lviv' } },
        { type: 'finish' },
      ])
      expect(parts.slice(0, start).map(({ type }) => type)).toContain('text-end')
    })

    test.each([
      ['none', []],
      ['empty text', ['']],
      ['an empty object', ['{}']],
    ])('may have no arguments: %s', async (_what, args) => {
      const { calls: found } = await calls([{ id: 'call_1', name: 'time', args }])
      expect(found.map(gist)).toEqual([['call_1', 'time', {}]])
    })

    test.each([
      ['broken JSON', '{"city": Lviv}', /no JSON/],
      ['half an object', '{"city": "Lv', /no JSON/],
      ['two objects', '{}{}', /no JSON/],
      ['a list', '["Lviv"]', /no object/],
      ['null', 'null', /no object/],
      ['too deep', `${'{"a":'.repeat(150)}1${'}'.repeat(150)}`, /deeper than 100/],
      ['too many values', `{"a":[${'0,'.repeat(10_000)}0]}`, /more than 10000 values/],
    ])('tells what is wrong with its arguments: %s', async (_what, args, why) => {
      const { calls: found, reason } = await calls([{ id: 'call_1', name: 'time', args: [args] }])
      expect(found.map(gist)).toEqual([['call_1', 'time', args, expect.stringMatching(why)]])
      expect(reason).toBe('tool_calls')
    })

    test('that the limit cut off says so, and the whole ones beside it do not', async () => {
      const scripted = [
        { id: 'call_1', name: 'time', args: ['{"a":', '1}'] },
        { id: 'call_2', name: 'time', args: ['{"a":'] },
      ]
      const { calls: found, reason } = await calls(scripted, { finish: 'length' })
      expect(found.map(gist)).toEqual([
        ['call_1', 'time', { a: 1 }],
        ['call_2', 'time', '{"a":', expect.stringMatching(/cut off.*length/)],
      ])
      expect(reason).toBe('length')
    })

    test('that the limit cut off before its arguments is not taken for one without any', async () => {
      const { calls: found } = await calls([{ id: 'call_1', name: 'time', args: [] }], { finish: 'length' })
      expect(found.map(gist)).toEqual([['call_1', 'time', '', expect.stringMatching(/cut off/)]])
    })

    test('holds what Postgres can hold', async () => {
      const args = ['{"a\u0000": "x\uD83D', '\uDE00y", "b": "\\u0000\\ud83d", "c": "\uDE00"}']
      const { calls: found, parts } = await calls([{ id: 'a\u0000b\uD83D', name: 'ti\u0000me', args }])
      // A NUL that is not escaped is no JSON at all.
      expect(found[0]).toMatchObject({ toolCallId: 'a\uFFFDb\uFFFD', toolName: 'ti\uFFFDme' })
      expect(found[0]?.inputError).toMatch(/no JSON/)
      for (const part of parts)
        if (part.type === 'tool-input-delta')
          expect(part.text).toBe(part.text.toWellFormed().replace('\0', ''))
      expect(found[0]?.text).toContain('x😀y')
    })

    test('holds input that Postgres can hold', async () => {
      const args = ['{"a": "x\uD83D', '\uDE00y", "b": "\\u0000\\ud83d", "\\u0000c": ["\uDE00"]}']
      const { calls: found } = await calls([{ id: 'call_1', name: 'time', args }])
      expect(found.map(gist)).toEqual([
        ['call_1', 'time', { a: 'x😀y', b: '\uFFFD\uFFFD', '\uFFFDc': ['\uFFFD'] }],
      ])
    })

    test('may not be endless', async () => {
      const args = Array<string>(11).fill('x'.repeat(100_000))
      upstream.script({ type: 'answer', toolCalls: [{ id: 'call_1', name: 'time', args }] })
      const error = await runToError(adapter, callOf(wireFormat))
      expect(error).toMatchObject({ code: 'provider_rejected' })
      expect(error.message).toMatch(/more than 1000000 characters/)
    })

    test('has an id and a name of at most 256 characters', async () => {
      const { calls: found } = await calls([{ id: 'i'.repeat(300), name: 'n'.repeat(300), args: [] }])
      expect(found[0]).toMatchObject({ toolCallId: 'i'.repeat(256), toolName: 'n'.repeat(256) })
    })

    test('counts where the provider reports no usage', async () => {
      const toolCalls = [{ id: 'call_1', name: 'time', args: ['{"city":', '"Lv"}   '] }]
      const { end } = await calls(toolCalls, { usage: null })
      expect(end.usage).toMatchObject({ outputTokens: 4, estimated: true })
      expect(end.usage?.inputTokens).toBeGreaterThan(50)
    })
  })

  describe('several calls', () => {
    const two: ScriptedCall[] = [
      { id: 'call_1', name: 'weather', args: ['{"city":', '"Lviv"}'] },
      { id: 'call_2', name: 'time', args: ['{"city":', '"Riga"}'] },
    ]

    test.each([false, true])('keep their arguments apart, at the same time: %p', async (interleaved) => {
      const { calls: found } = await calls(two, { interleaved })
      expect(found.map(gist)).toEqual([
        ['call_1', 'weather', { city: 'Lviv' }],
        ['call_2', 'time', { city: 'Riga' }],
      ])
    })

    const many = (count: number): ScriptedCall[] =>
      Array.from({ length: count }, (_, index) => ({ id: `call_${index}`, name: 'time', args: ['{}'] }))

    test('beyond the first 128 are told that they are too many', async () => {
      const { calls: found, reason } = await calls(many(130))
      expect(reason).toBe('tool_calls')
      const refused = found.filter(({ inputError }) => inputError !== undefined)
      expect(refused.map(gist)).toEqual(
        ['call_128', 'call_129'].map((id) => [
          id,
          'time',
          {},
          expect.stringContaining('first 128') as string,
        ]),
      )
    })

    test('without end are no answer', async () => {
      upstream.script({ type: 'answer', toolCalls: many(1001) })
      const error = await runToError(adapter, callOf(wireFormat))
      expect(error).toMatchObject({ code: 'provider_rejected' })
      expect(error.message).toContain('more than 1000 times')
    })

    test('get ids where they have none, or the same', async () => {
      const { calls: found } = await calls([
        { name: 'weather', args: ['{"city":', '"Lviv"}'] },
        { id: 'call_1', name: 'time', args: ['{}'] },
        { id: 'call_1', name: 'time', args: ['{}'] },
        { id: '', name: 'time', args: [] },
      ])
      expect(new Set(found.map(({ toolCallId }) => toolCallId)).size).toBe(4)
      for (const { toolCallId } of found) expect(toolCallId).toMatch(/^call_\d$/)
      expect(found.map(({ input }) => input)).toEqual([{ city: 'Lviv' }, {}, {}, {}])
    })

    test('are called unnamed where they have no name', async () => {
      const { calls: found } = await calls([{ id: 'call_1', args: ['{"a":1}'] }])
      expect(found.map(gist)).toEqual([['call_1', 'unnamed', { a: 1 }]])
    })

    test('count although the answer says that it just stopped', async () => {
      const { reason } = await calls(two, { finish: 'stop' })
      expect(reason).toBe('tool_calls')
    })
  })

  test('a call of a tool that is not among the offered ones is for the caller to answer', async () => {
    const { calls: found } = await calls([{ id: 'call_1', name: 'rm_rf', args: ['{}'] }])
    expect(found.map(gist)).toEqual([['call_1', 'rm_rf', {}]])
  })

  test('nor is a call where no tools were offered a reason to drop the answer', async () => {
    upstream.script({
      type: 'answer',
      text: 'Hm.',
      toolCalls: [{ id: 'call_1', name: 'rm_rf', args: ['{}'] }],
    })
    const { text, calls: found, end } = await run(adapter, callOf(wireFormat, { tools: [] }))
    expect([text, found.map(gist)]).toEqual(['Hm.', [['call_1', 'rm_rf', {}]]])
    expect(end).toMatchObject({ type: 'finish', reason: 'tool_calls' })
  })

  test('a stream that breaks off leaves its call without an end', async () => {
    const toolCalls = [{ id: 'call_1', name: 'time', args: ['{"a":'] }]
    upstream.script({ type: 'answer', toolCalls, ending: 'malformed' })
    const { calls: found, end } = await run(adapter, callOf(wireFormat))
    expect(found).toEqual([])
    expect(end).toMatchObject({ error: { code: 'provider_stream_broken' } })
  })

  test('a call goes to the tool and its result to the model, over a mock that is not ours', async () => {
    const mock = new LLMock({ port: 0, host: '127.0.0.1' })
    mock.on(
      { userMessage: 'Weather?', hasToolResult: false },
      {
        content: 'Let me see.',
        toolCalls: [{ name: 'weather', arguments: '{"city":"Lviv"}', id: 'call_w' }],
      },
    )
    mock.on({ toolCallId: 'call_w', toolResultContains: 'clear' }, { content: 'It is clear.' })
    await mock.start()
    try {
      const isAnthropic = wireFormat === 'anthropic-messages'
      const baseUrl = isAnthropic ? mock.url : `${mock.url}/v1`
      const model = isAnthropic ? 'claude-haiku-4-5' : 'gpt-5'
      const messages = [userText('Weather?')]
      const asked = await run(adapter, { baseUrl, request: { model, messages, tools: TOOLS } })
      expect(asked).toMatchObject({ text: 'Let me see.', end: { reason: 'tool_calls' } })
      expect(asked.calls.map(gist)).toEqual([['call_w', 'weather', { city: 'Lviv' }]])
      const history = [
        ...messages,
        assistant({ type: 'text', text: asked.text }, ...asked.calls.map(toPart)),
        tool(result('call_w', { sky: 'clear' })),
      ]
      const answered = await run(adapter, { baseUrl, request: { model, messages: history, tools: TOOLS } })
      expect(answered).toMatchObject({ text: 'It is clear.', end: { reason: 'stop' }, calls: [] })
    } finally {
      await mock.stop()
    }
  })
})

// --- What only one of the formats can do

const sse = (events: readonly unknown[]): string =>
  events
    .map((event) => {
      const type = asRecord(event).type
      return `${typeof type === 'string' ? `event: ${type}\n` : ''}data: ${JSON.stringify(event)}\n\n`
    })
    .join('')

describe('openai-chat', () => {
  const chunk = (delta: unknown, finish_reason: string | null = null) => ({
    id: 'x',
    model: 'm',
    choices: [{ index: 0, delta, finish_reason }],
  })
  const end = chunk({}, 'tool_calls')
  const call = (fields: Record<string, unknown>) => chunk({ tool_calls: [fields] })

  const answer = (events: readonly unknown[]) => {
    upstream.script({ type: 'body', body: `${sse(events)}data: [DONE]\n\n` })
    return run(providerAdapters['openai-chat'], callOf('openai-chat'))
  }

  test.each<[string, unknown[], unknown[]]>([
    [
      'arguments in the first chunk',
      [call({ index: 0, id: 'a', function: { name: 'time', arguments: '{"a":1}' } })],
      [['a', 'time', { a: 1 }]],
    ],
    [
      'id and name again in every chunk',
      [
        call({ index: 0, id: 'a', function: { name: 'time', arguments: '{"a"' } }),
        call({ index: 0, id: 'a', function: { name: 'time', arguments: ':1}' } }),
      ],
      [['a', 'time', { a: 1 }]],
    ],
    [
      'the name after the arguments began',
      [
        call({ index: 0, function: { arguments: '{"a"' } }),
        call({ index: 0, id: 'a', function: { name: 'time', arguments: ':1}' } }),
      ],
      [['a', 'time', { a: 1 }]],
    ],
    [
      'index 0 for all',
      [
        call({ index: 0, id: 'a', function: { name: 'time', arguments: '{}' } }),
        call({ index: 0, id: 'b', function: { name: 'time', arguments: '{}' } }),
      ],
      [
        ['a', 'time', {}],
        ['b', 'time', {}],
      ],
    ],
    [
      'index 0 for all and no ids',
      [
        call({ index: 0, id: '', function: { name: 'time', arguments: '{}' } }),
        call({ index: 0, id: '', function: { name: 'weather', arguments: '{"a":1}' } }),
      ],
      [
        ['call_1', 'time', {}],
        ['call_2', 'weather', { a: 1 }],
      ],
    ],
    [
      'no index',
      [
        chunk({
          tool_calls: [
            { function: { name: 'time', arguments: '{' } },
            { function: { arguments: '}' } },
            { id: 'b', function: { name: 'time', arguments: { a: 1 } } },
          ],
        }),
      ],
      [
        ['call_1', 'time', {}],
        ['b', 'time', { a: 1 }],
      ],
    ],
    [
      'junk around it',
      [
        chunk({ tool_calls: [null, 3, {}, { index: 0 }] }),
        chunk({ content: null, tool_calls: null }),
        call({ index: 0, id: 'a', function: { name: 'time' } }),
      ],
      [['a', 'time', {}]],
    ],
  ])('takes calls with %s', async (_what, events, expected) => {
    const result = await answer([...events, end])
    expect(result.calls.map(gist)).toEqual(expected)
    expect(result.end).toMatchObject({ reason: 'tool_calls' })
  })

  test('ends as broken where a call was announced and none came', async () => {
    const { end: ended } = await answer([chunk({ content: 'Let me see.' }), end])
    expect(ended).toMatchObject({ error: { code: 'provider_stream_broken', recovery: 'retry' } })
  })

  test.each([[chunk({ function_call: { name: 'time', arguments: '{}' } })], [chunk({}, 'function_call')]])(
    'does not take calls of the deprecated kind: %j',
    async (event) => {
      expect((await answer([event])).end).toMatchObject({ error: { code: 'provider_rejected' } })
    },
  )

  test.each([{ choices: [null] }, { choices: null }, { choices: [{ delta: null }] }, null, 7, []])(
    'leaves out an event that says nothing: %j',
    async (event) => {
      const { text, end: ended } = await answer([chunk({ content: 'hi' }), event, chunk({}, 'stop')])
      expect([text, ended]).toEqual(['hi', expect.objectContaining({ reason: 'stop' })])
    },
  )

  test('takes a finish reason that it does not know for an ordinary end', async () => {
    const { end: ended } = await answer([chunk({ content: 'So.' }, 'constructor')])
    expect(ended).toMatchObject({ reason: 'stop' })
  })

  test('gives back what a compatible server added to a call, to the same model only', async () => {
    const extra_content = { google: { thought_signature: 'c2ln' } }
    const { calls } = await answer([
      call({ index: 0, id: 'a', function: { name: 'time', arguments: '{}' }, extra_content }),
      end,
    ])
    const messages = [userText('x'), assistant(...calls.map(toPart)), tool(result('a', 1))]
    expect((await sent('openai-chat', { messages })).messages).toMatchObject([
      {},
      { tool_calls: [{ id: 'a', extra_content }] },
      {},
    ])
    const other = await sent('openai-chat', { messages, model: 'another' })
    expect(JSON.stringify(other)).not.toContain('c2ln')
  })
})

describe('openai-responses', () => {
  const answer = (events: readonly unknown[]) => {
    const completed = { type: 'response.completed', response: { id: 'r', model: 'm' } }
    upstream.script({ type: 'body', body: sse([...events, completed]) })
    return run(providerAdapters['openai-responses'], callOf('openai-responses'))
  }
  const item = (fields: Record<string, unknown>) => ({
    type: 'function_call',
    call_id: 'a',
    name: 'time',
    ...fields,
  })

  test.each<[string, unknown[]]>([
    [
      'without deltas',
      [
        { type: 'response.output_item.added', item: item({ id: 'fc', arguments: '' }) },
        { type: 'response.function_call_arguments.done', item_id: 'fc', arguments: '{"a":1}' },
        { type: 'response.output_item.done', item: item({ id: 'fc', arguments: '{"a":1}' }) },
      ],
    ],
    [
      'that are done at once',
      [{ type: 'response.output_item.done', item: item({ id: 'fc', arguments: '{"a":1}' }) }],
    ],
    [
      'that are done twice',
      [
        { type: 'response.output_item.done', item: item({ id: 'fc', arguments: '{"a":1}' }) },
        { type: 'response.output_item.done', item: item({ id: 'fc', arguments: '{"a":1}' }) },
      ],
    ],
    [
      'without an item id',
      [
        { type: 'response.output_item.added', output_index: 1, item: item({ arguments: '' }) },
        { type: 'response.function_call_arguments.delta', output_index: 1, delta: '{"a":1}' },
        { type: 'response.output_item.done', output_index: 1, item: item({ arguments: '{"a":1}' }) },
      ],
    ],
    [
      'that are never done',
      [
        { type: 'response.output_item.added', item: item({ id: 'fc', arguments: '' }) },
        { type: 'response.function_call_arguments.delta', item_id: 'fc', delta: '{"a":1}' },
        { type: 'response.something.new', item_id: 'fc', delta: '!' },
        { type: 'response.output_item.added', item: { type: 'novelty', id: 'n' } },
      ],
    ],
  ])('takes calls %s', async (_what, events) => {
    const { calls, end } = await answer(events)
    expect(calls.map(gist)).toEqual([['a', 'time', { a: 1 }]])
    expect(end).toMatchObject({ reason: 'tool_calls' })
  })

  const message = [
    { type: 'response.output_text.delta', item_id: 'm', content_index: 0, delta: 'found' },
    { type: 'response.output_item.done', item: { type: 'message', id: 'm' } },
  ]
  const OWN_TOOLS = [
    'web_search_call',
    'computer_call',
    'custom_tool_call',
    'mcp_call',
    'mcp_approval_request',
  ]
  const useOf = (type: string) => [
    { type: 'response.output_item.added', output_index: 0, item: { type, id: 'x' } },
    { type: 'response.function_call_arguments.delta', item_id: 'x', delta: '{}' },
    { type: 'response.output_item.done', output_index: 0, item: { type, id: 'x' } },
  ]

  test.each(OWN_TOOLS)('leaves a tool out that nobody offered, beside an answer: %s', async (type) => {
    const { calls, parts, end } = await answer([...useOf(type), ...message])
    expect(calls).toEqual([])
    expect(parts.map(({ type: part }) => part)).toEqual(['text-start', 'text-delta', 'text-end', 'finish'])
    expect(end).toMatchObject({ reason: 'stop' })
    const own = { type: 'response.output_item.done', item: item({ id: 'fc', arguments: '{}' }) }
    const beside = await answer([...useOf(type), own])
    expect(beside.calls).toHaveLength(1)
    expect(beside.end).toMatchObject({ reason: 'tool_calls' })
  })

  test.each(OWN_TOOLS)('ends for good where such a tool is all there is: %s', async (type) => {
    const thought = { type: 'response.reasoning_text.delta', item_id: 'r', delta: 'I search' }
    const { end } = await answer([thought, ...useOf(type)])
    expect(end).toMatchObject({
      error: { code: 'provider_rejected', message: expect.stringContaining('not offered') },
    })
  })
})

describe('anthropic-messages', () => {
  const answer = (events: readonly unknown[], stop_reason = 'tool_use') => {
    const start = { type: 'message_start', message: { id: 'm', model: 'm', usage: { input_tokens: 1 } } }
    const end = [{ type: 'message_delta', delta: { stop_reason } }, { type: 'message_stop' }]
    upstream.script({ type: 'body', body: sse([start, ...events, ...end]) })
    return run(providerAdapters['anthropic-messages'], callOf('anthropic-messages'))
  }
  const block = (index: number, content_block: unknown) => ({
    type: 'content_block_start',
    index,
    content_block,
  })

  test('takes a call whose input is not streamed', async () => {
    const use = { type: 'tool_use', id: 'a', name: 'time', input: { a: 1 } }
    const { calls } = await answer([block(0, use), { type: 'content_block_stop', index: 0 }])
    expect(calls.map(gist)).toEqual([['a', 'time', { a: 1 }]])
  })

  test('ignores blocks and deltas of another kind', async () => {
    const { calls, parts } = await answer([
      block(0, { type: 'novelty', data: 'x', thinking: 'y' }),
      { type: 'content_block_delta', index: 0, delta: { type: 'novelty_delta', text: 'z' } },
      { type: 'content_block_delta', index: 9, delta: { type: 'input_json_delta', partial_json: '{' } },
      { type: 'content_block_stop', index: 0 },
      block(1, { type: 'tool_use', id: 'a', name: 'time', input: {} }),
    ])
    expect(calls.map(gist)).toEqual([['a', 'time', {}]])
    expect(parts.map(({ type }) => type)).toEqual(['tool-input-start', 'tool-input-end', 'finish'])
  })

  const OWN_TOOLS = ['server_tool_use', 'mcp_tool_use', 'web_search_tool_result']
  const useOf = (type: string) => [
    block(0, { type, id: 'x', name: 'search', input: {} }),
    { type: 'content_block_delta', index: 0, delta: { type: 'input_json_delta', partial_json: '{"q":1}' } },
    { type: 'content_block_stop', index: 0 },
  ]
  const text = [block(1, { type: 'text', text: 'found' }), { type: 'content_block_stop', index: 1 }]

  test.each(OWN_TOOLS)('leaves a tool out that nobody offered, beside an answer: %s', async (type) => {
    const { calls, parts, end } = await answer([...useOf(type), ...text], 'end_turn')
    expect(calls).toEqual([])
    expect(parts.map(({ type: part }) => part)).toEqual(['text-start', 'text-delta', 'text-end', 'finish'])
    expect(end).toMatchObject({ reason: 'stop' })
  })

  test.each(OWN_TOOLS)(
    'ends for good where such a tool is all there is, or is not done: %s',
    async (type) => {
      const refused = { code: 'provider_rejected', message: expect.stringContaining('not offered') }
      expect((await answer(useOf(type), 'end_turn')).end).toMatchObject({ error: refused })
      expect((await answer([...useOf(type), ...text], 'pause_turn')).end).toMatchObject({ error: refused })
      expect((await answer([...useOf(type), ...text], 'tool_use')).end).toMatchObject({ error: refused })
    },
  )

  test('ends as broken where a call was announced and none came', async () => {
    expect((await answer([])).end).toMatchObject({ error: { code: 'provider_stream_broken' } })
  })
})

// --- Requests

const toPart = ({ text: _text, ...call }: CollectedToolCall): ToolCallPart => call
const assistant = (...parts: MessagePart[]): ModelMessage => ({ role: 'assistant', parts })
const tool = (...parts: MessagePart[]): ModelMessage => ({ role: 'tool', parts })
const call = (toolCallId: string, fields: Partial<ToolCallPart> = {}): ToolCallPart => ({
  type: 'tool-call',
  toolCallId,
  toolName: 'time',
  input: {},
  ...fields,
})
const result = (
  toolCallId: string,
  output: unknown,
  { isError = false, images = [] as ImagePart[] } = {},
): MessagePart => ({ type: 'tool-result', toolCallId, toolName: 'time', output, isError, images })

const image = (data?: string): ImagePart => ({
  type: 'image',
  fileId: 'f',
  mediaType: 'image/png',
  ...(data !== undefined && { data }),
})

const GONE = '[an image that is no longer there]'
const URL_A = 'data:image/png;base64,QQ=='
const URL_B = 'data:image/png;base64,Qg=='

describe('the tools of a request', () => {
  const schema = { type: 'object', properties: { city: { type: 'string' } } }

  test('are functions to openai-chat', async () => {
    expect((await sent('openai-chat', {})).tools).toEqual([
      {
        type: 'function',
        function: { name: 'weather', description: 'The tool weather.', parameters: schema },
      },
      { type: 'function', function: { name: 'time', description: 'The tool time.', parameters: schema } },
    ])
  })

  test('are functions with lenient schemas to openai-responses', async () => {
    const body = await sent('openai-responses', {})
    expect(body.tools).toEqual([
      {
        type: 'function',
        name: 'weather',
        description: 'The tool weather.',
        parameters: schema,
        strict: false,
      },
      { type: 'function', name: 'time', description: 'The tool time.', parameters: schema, strict: false },
    ])
    expect(body).not.toHaveProperty('truncation')
  })

  test('are tools to anthropic-messages, and those of the history need no declaration beside them', async () => {
    const messages = [userText('x'), assistant(call('a', { toolName: 'former' })), tool(result('a', 1))]
    const body = await sent('anthropic-messages', { messages })
    expect(body.tools).toEqual([
      { name: 'weather', description: 'The tool weather.', input_schema: schema },
      { name: 'time', description: 'The tool time.', input_schema: schema },
    ])
    expect(body).not.toHaveProperty('tool_choice')
  })

  test.each(WIRE_FORMATS)(
    'have a schema that %s takes, even where they have hardly any',
    async (wireFormat) => {
      const tools = [functionTool('bare', { inputSchema: {} })]
      const [sentTool] = asList((await sent(wireFormat, { tools })).tools).map(asRecord)
      const { input_schema, parameters, function: inner } = sentTool ?? {}
      expect(input_schema ?? parameters ?? asRecord(inner).parameters).toEqual({
        type: 'object',
        properties: {},
      })
    },
  )
})

describe('arguments that were no JSON', () => {
  test.each(WIRE_FORMATS)('go back to %s as a field of an object', async (wireFormat) => {
    const broken = call('a', { input: '{"city": Lv', inputError: 'the arguments are no JSON' })
    const messages = [userText('x'), assistant(broken), tool(result('a', 'no JSON', { isError: true }))]
    expect(JSON.stringify(await sent(wireFormat, { messages }))).toMatch(
      /\{\\?"input\\?":\\?"\{[\\]+"city[\\]+": Lv\\?"\}/,
    )
  })
})

describe('images of the user', () => {
  const messages: ModelMessage[] = [
    {
      role: 'user',
      parts: [{ type: 'text', text: 'Look:' }, image('QQ=='), image(), { type: 'text', text: '' }],
    },
  ]

  test('go to openai-chat as data URLs', async () => {
    expect((await sent('openai-chat', { messages })).messages).toEqual([
      {
        role: 'user',
        content: [
          { type: 'text', text: 'Look:' },
          { type: 'image_url', image_url: { url: URL_A } },
          { type: 'text', text: GONE },
        ],
      },
    ])
  })

  test('go to openai-responses as data URLs', async () => {
    expect((await sent('openai-responses', { messages })).input).toEqual([
      {
        role: 'user',
        content: [
          { type: 'input_text', text: 'Look:' },
          { type: 'input_image', image_url: URL_A, detail: 'auto' },
          { type: 'input_text', text: GONE },
        ],
      },
    ])
  })

  test('go to anthropic-messages as base64', async () => {
    expect((await sent('anthropic-messages', { messages })).messages).toEqual([
      {
        role: 'user',
        content: [
          { type: 'text', text: 'Look:' },
          { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'QQ==' } },
          { type: 'text', text: GONE },
        ],
      },
    ])
  })
})

describe('images of results', () => {
  const messages: ModelMessage[] = [
    userText('x'),
    assistant(call('a'), call('b'), call('c')),
    tool(
      result('a', 'seen', { images: [image('QQ=='), image()] }),
      result('b', 'plain'),
      result('c', 'failed', { isError: true, images: [image('Qg==')] }),
    ),
    userText('y'),
  ]

  test('follow all results of openai-chat as if the user showed them', async () => {
    const sentMessages = asList((await sent('openai-chat', { messages })).messages)
    expect(sentMessages.slice(2)).toEqual([
      { role: 'tool', tool_call_id: 'a', content: 'seen' },
      { role: 'tool', tool_call_id: 'b', content: 'plain' },
      { role: 'tool', tool_call_id: 'c', content: 'failed' },
      {
        role: 'user',
        content: [
          { type: 'text', text: 'What the call a of time shows:' },
          { type: 'image_url', image_url: { url: URL_A } },
          { type: 'text', text: GONE },
          { type: 'text', text: 'What the call c of time shows:' },
          { type: 'image_url', image_url: { url: URL_B } },
        ],
      },
      { role: 'user', content: 'y' },
    ])
  })

  test('stand in the outputs of openai-responses', async () => {
    const input = asList((await sent('openai-responses', { messages })).input)
    expect(input.slice(4)).toEqual([
      {
        type: 'function_call_output',
        call_id: 'a',
        output: [
          { type: 'input_text', text: 'seen' },
          { type: 'input_image', image_url: URL_A, detail: 'auto' },
          { type: 'input_text', text: GONE },
        ],
      },
      { type: 'function_call_output', call_id: 'b', output: 'plain' },
      {
        type: 'function_call_output',
        call_id: 'c',
        output: [
          { type: 'input_text', text: 'failed' },
          { type: 'input_image', image_url: URL_B, detail: 'auto' },
        ],
      },
      { role: 'user', content: 'y' },
    ])
  })

  test('stand in the results of anthropic-messages, but behind them where a call failed', async () => {
    const source = (data: string) => ({ type: 'base64', media_type: 'image/png', data })
    const [, , last] = asList((await sent('anthropic-messages', { messages })).messages)
    expect(last).toEqual({
      role: 'user',
      content: [
        {
          type: 'tool_result',
          tool_use_id: 'a',
          content: [
            { type: 'text', text: 'seen' },
            { type: 'image', source: source('QQ==') },
            { type: 'text', text: GONE },
          ],
          is_error: false,
        },
        { type: 'tool_result', tool_use_id: 'b', content: 'plain', is_error: false },
        { type: 'tool_result', tool_use_id: 'c', content: 'failed', is_error: true },
        { type: 'image', source: source('Qg==') },
        { type: 'text', text: 'y' },
      ],
    })
  })
})
