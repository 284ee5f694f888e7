/** What each adapter makes of a request, as the provider receives it. */
import type { MessagePart, ModelMessage } from '../../src/protocol/messages.ts'
import type { WireFormat } from '../../src/protocol/routes.ts'
import { measureInput } from '../../src/gateway/input-size.ts'
import type { ModelRequest } from '../../src/providers/contract.ts'
import { providerAdapters } from '../../src/providers/index.ts'
import { asList, asRecord, asText } from '../../src/providers/outside.ts'
import type { FakeUpstream } from '../support/fake-upstream.ts'
import { startFakeUpstream } from '../support/fake-upstream.ts'
import { functionTool, run, runToFinish, userText } from '../support/model-calls.ts'

let upstream: FakeUpstream

beforeAll(async () => {
  upstream = await startFakeUpstream()
})
beforeEach(() => upstream.reset())
afterAll(() => upstream.stop())

/** Body and headers of a call, as they arrive. */
async function sent(wireFormat: WireFormat, request: Partial<ModelRequest>) {
  upstream.reset()
  await runToFinish(providerAdapters[wireFormat], { baseUrl: upstream.baseUrl(wireFormat), request })
  const { body, headers, path } = await upstream.waitForRequest(1)
  return { body, headers, path }
}

const assistantText = (text: string): ModelMessage => ({ role: 'assistant', parts: [{ type: 'text', text }] })

const CONVERSATION: ModelMessage[] = [
  userText('one'),
  assistantText('two'),
  { role: 'system', parts: [{ type: 'text', text: 'be brief' }] },
  { role: 'user', parts: [] },
  userText('three'),
]

describe('openai-chat', () => {
  const body = async (request: Partial<ModelRequest>) => (await sent('openai-chat', request)).body

  test('asks for a stream with usage, and for nothing that was not set', async () => {
    expect(await body({})).toEqual({
      model: 'test-model',
      messages: [{ role: 'user', content: 'hello' }],
      stream: true,
      stream_options: { include_usage: true },
    })
  })

  test('maps a conversation and leaves out empty messages', async () => {
    expect(await body({ system: 'be kind', messages: CONVERSATION })).toMatchObject({
      messages: [
        { role: 'system', content: 'be kind' },
        { role: 'user', content: 'one' },
        { role: 'assistant', content: 'two' },
        { role: 'system', content: 'be brief' },
        { role: 'user', content: 'three' },
      ],
    })
  })

  test.each([
    ['gpt-5', 'max_completion_tokens'],
    ['openai/o3', 'max_completion_tokens'],
    ['llama-4', 'max_tokens'],
  ])('limits the output of %s by %s', async (model, name) => {
    expect(await body({ model, maxOutputTokens: 99 })).toHaveProperty(name, 99)
  })

  test('sends temperature and effort', async () => {
    const request = { temperature: 0.3, reasoningEffort: 'high' } as const
    expect(await body(request)).toMatchObject({ temperature: 0.3, reasoning_effort: 'high' })
  })
})

describe('openai-responses', () => {
  const body = async (request: Partial<ModelRequest>) => (await sent('openai-responses', request)).body

  test('stores nothing at the provider, and asks for nothing that was not set', async () => {
    expect(await body({})).toEqual({
      model: 'test-model',
      input: [{ role: 'user', content: 'hello' }],
      stream: true,
      store: false,
    })
  })

  test('maps a conversation', async () => {
    const request = { system: 'be kind', messages: CONVERSATION, maxOutputTokens: 99, temperature: 0.3 }
    expect(await body(request)).toMatchObject({
      instructions: 'be kind',
      input: [
        { role: 'user', content: 'one' },
        { role: 'assistant', content: 'two' },
        { role: 'system', content: 'be brief' },
        { role: 'user', content: 'three' },
      ],
      max_output_tokens: 99,
      temperature: 0.3,
    })
  })

  test('asks for encrypted reasoning where the model is to reason, and for no temperature', async () => {
    const sentBody = await body({ reasoningEffort: 'medium', temperature: 0.3 })
    expect(sentBody).toMatchObject({
      reasoning: { effort: 'medium', summary: 'auto' },
      include: ['reasoning.encrypted_content'],
    })
    expect(sentBody).not.toHaveProperty('temperature')
  })

  test('can turn reasoning off', async () => {
    const sentBody = await body({ reasoningEffort: 'none', temperature: 0.3 })
    expect(sentBody).toMatchObject({ reasoning: { effort: 'none' }, temperature: 0.3 })
  })
})

describe('anthropic-messages', () => {
  const call = (request: Partial<ModelRequest>) => sent('anthropic-messages', request)
  const body = async (request: Partial<ModelRequest>) => (await call(request)).body

  test('asks for at most 4,096 tokens, and for nothing that was not set', async () => {
    const { body: sentBody, headers } = await call({})
    expect(sentBody).toEqual({
      model: 'test-model',
      messages: [{ role: 'user', content: [{ type: 'text', text: 'hello' }] }],
      stream: true,
      max_tokens: 4_096,
    })
    expect(headers).toMatchObject({ 'anthropic-version': '2026-10-21' })
  })

  test('maps a conversation, with all system messages at the top', async () => {
    expect(await body({ system: 'be kind', messages: CONVERSATION })).toMatchObject({
      system: 'be kind\n\nbe brief',
      messages: [
        { role: 'user', content: [{ type: 'text', text: 'one' }] },
        { role: 'assistant', content: [{ type: 'text', text: 'two' }] },
        { role: 'user', content: [{ type: 'text', text: 'three' }] },
      ],
    })
  })

  test('sends a temperature under the version that takes one', async () => {
    const { body: sentBody, headers } = await call({ temperature: 0.3 })
    expect(sentBody).toMatchObject({ temperature: 0.3 })
    expect(headers).toMatchObject({ 'anthropic-version': '2023-06-01' })
  })

  test.each([
    { effort: 'minimal', limit: null, budget: 1_024, max: 5_120 },
    { effort: 'low', limit: null, budget: 2_048, max: 6_144 },
    { effort: 'medium', limit: 10_000, budget: 8_192, max: 10_000 },
    { effort: 'high', limit: 10_000, budget: 8_976, max: 10_000 },
    { effort: 'high', limit: 2_048, budget: 1_024, max: 2_048 },
  ] as const)('gives effort $effort with a limit of $limit a budget of $budget', async (row) => {
    const { effort, limit, budget, max } = row
    const sentBody = await body({ reasoningEffort: effort, maxOutputTokens: limit, temperature: 0.3 })
    expect(sentBody).toMatchObject({
      max_tokens: max,
      thinking: { type: 'enabled', budget_tokens: budget },
    })
    expect(sentBody).not.toHaveProperty('temperature')
  })

  test('does not think where the limit leaves no room for it', async () => {
    const sentBody = await body({ reasoningEffort: 'high', maxOutputTokens: 2_047, temperature: 0.3 })
    expect(sentBody).toMatchObject({ max_tokens: 2_047, temperature: 0.3 })
    expect(sentBody).not.toHaveProperty('thinking')
  })

  test.each(['claude-opus-4-6', 'claude-sonnet-5', 'claude-haiku-5-5', 'anthropic/claude-opus-4.8'])(
    'gives %s an effort instead of a budget',
    async (model) => {
      expect(await body({ model, reasoningEffort: 'high' })).toMatchObject({
        thinking: { type: 'adaptive', display: 'summarized' },
        output_config: { effort: 'high' },
      })
      expect(await body({ model, reasoningEffort: 'none' })).toMatchObject({ thinking: { type: 'disabled' } })
      expect(await body({ model })).not.toHaveProperty('thinking')
    },
  )

  test.each(['claude-3-7-sonnet-20250219', 'claude-sonnet-4-20250514', 'claude-haiku-4-5-20251001', 'other'])(
    'gives %s a budget',
    async (model) => {
      expect(await body({ model, reasoningEffort: 'high' })).toMatchObject({ thinking: { type: 'enabled' } })
      expect(await body({ model, reasoningEffort: 'none' })).not.toHaveProperty('thinking')
    },
  )

  test.each(['', '/v1'])('takes a base URL that ends with %j', async (suffix) => {
    await runToFinish(providerAdapters['anthropic-messages'], { baseUrl: `${upstream.url}${suffix}` })
    expect(await upstream.waitForRequest(1)).toMatchObject({ path: '/v1/messages' })
  })

  test('keeps redacted thinking as it came', async () => {
    const block = { type: 'redacted_thinking', data: 'c2VjcmV0' }
    const events = [
      { type: 'message_start', message: { id: 'msg', model: 'test-model', usage: { input_tokens: 1 } } },
      { type: 'content_block_start', index: 0, content_block: block },
      { type: 'content_block_stop', index: 0 },
      { type: 'message_delta', delta: { stop_reason: 'end_turn' }, usage: { output_tokens: 2 } },
      { type: 'message_stop' },
    ]
    const text = events.map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join('')
    upstream.script({ type: 'body', body: text })
    const history = await answerOf('anthropic-messages')
    upstream.reset()
    expect((await body({ messages: [userText('hi'), history, userText('go on')] })).messages).toEqual([
      { role: 'user', content: [{ type: 'text', text: 'hi' }] },
      { role: 'assistant', content: [block, { type: 'text', text: 'so' }] },
      { role: 'user', content: [{ type: 'text', text: 'go on' }] },
    ])
  })

  test('does not send back thinking that had to be altered: its signature would no longer fit', async () => {
    upstream.script({ type: 'answer', reasoning: ['a\u0000b'] })
    const history = await answerOf('anthropic-messages')
    expect(history.parts[0]).toEqual({ type: 'reasoning', text: 'a\uFFFDb' })
  })
})

describe('reasoning of former steps', () => {
  const formats = ['openai-responses', 'anthropic-messages'] as const

  const reasoningBlock: Record<(typeof formats)[number], unknown> = {
    'openai-responses': {
      type: 'reasoning',
      id: 'rs_fake',
      encrypted_content: 'ZW5jcnlwdGVk',
      summary: [{ type: 'summary_text', text: 'hm' }],
    },
    'anthropic-messages': { type: 'thinking', thinking: 'hm', signature: 'c2lnbmF0dXJl' },
  }

  test.each(formats)('goes back to %s as it came', async (wireFormat) => {
    upstream.script({ type: 'answer', reasoning: ['hm'] })
    const messages = [userText('hi'), await answerOf(wireFormat), userText('go on')]
    const { body } = await sent(wireFormat, { messages })
    expect(flatItems(body)).toContainEqual(reasoningBlock[wireFormat])
  })

  test.each(formats)('of %s goes to no other wire format and no other model', async (wireFormat) => {
    upstream.script({ type: 'answer', reasoning: ['hm'] })
    const messages = [userText('hi'), await answerOf(wireFormat), userText('go on')]
    const others = (Object.keys(providerAdapters) as WireFormat[]).filter((other) => other !== wireFormat)
    for (const other of others)
      expect(JSON.stringify((await sent(other, { messages })).body)).not.toContain('hm')
    const { body } = await sent(wireFormat, { messages, model: 'another-model' })
    expect(JSON.stringify(body)).not.toContain('hm')
  })
})

const call = (toolCallId: string, toolName: string, input: unknown): MessagePart => ({
  type: 'tool-call',
  toolCallId,
  toolName,
  input,
})

const result = (toolCallId: string, toolName: string, output: unknown, isError = false): MessagePart => ({
  type: 'tool-result',
  toolCallId,
  toolName,
  output,
  isError,
})

const assistant = (...parts: MessagePart[]): ModelMessage => ({ role: 'assistant', parts })
const tool = (...parts: MessagePart[]): ModelMessage => ({ role: 'tool', parts })

describe('tools of former steps', () => {
  const body = async (wireFormat: WireFormat, ...messages: ModelMessage[]) =>
    (await sent(wireFormat, { messages })).body

  const CALLS: ModelMessage[] = [
    userText('Weather?'),
    assistant(
      { type: 'text', text: 'Let me see.' },
      call('call_1', 'weather', { city: 'Lviv' }),
      call('call_2', 'time', {}),
    ),
    tool(result('call_1', 'weather', { sky: 'clear' }), result('call_2', 'time', 'no clock', true)),
    assistant({ type: 'text', text: 'Clear.' }),
    userText('Thanks'),
  ]

  test('go to openai-chat as calls of the assistant and a message for each result', async () => {
    const called = (id: string, name: string, args: string) => ({
      id,
      type: 'function',
      function: { name, arguments: args },
    })
    expect((await body('openai-chat', ...CALLS)).messages).toEqual([
      { role: 'user', content: 'Weather?' },
      {
        role: 'assistant',
        content: 'Let me see.',
        tool_calls: [called('call_1', 'weather', '{"city":"Lviv"}'), called('call_2', 'time', '{}')],
      },
      { role: 'tool', tool_call_id: 'call_1', content: '{"sky":"clear"}' },
      { role: 'tool', tool_call_id: 'call_2', content: 'no clock' },
      { role: 'assistant', content: 'Clear.' },
      { role: 'user', content: 'Thanks' },
    ])
    const silent = assistant(call('call_1', 'time', {}))
    expect((await body('openai-chat', silent)).messages).toMatchObject([{ content: null }, { role: 'tool' }])
  })

  test('go to openai-responses as items, in the order of the parts', async () => {
    const reasoning: MessagePart = {
      type: 'reasoning',
      text: '',
      providerData: {
        wireFormat: 'openai-responses',
        model: 'test-model',
        itemId: 'rs_1',
        encryptedContent: 'ZQ==',
      },
    }
    const thoughtful = CALLS.map((message) =>
      message.role === 'assistant'
        ? { ...message, parts: [reasoning, ...message.parts, reasoning] }
        : message,
    )
    const reasoned = { type: 'reasoning', id: 'rs_1', encrypted_content: 'ZQ==', summary: [] }
    expect((await body('openai-responses', ...thoughtful)).input).toEqual([
      { role: 'user', content: 'Weather?' },
      reasoned,
      { role: 'assistant', content: 'Let me see.' },
      { type: 'function_call', call_id: 'call_1', name: 'weather', arguments: '{"city":"Lviv"}' },
      { type: 'function_call', call_id: 'call_2', name: 'time', arguments: '{}' },
      { type: 'function_call_output', call_id: 'call_1', output: '{"sky":"clear"}' },
      { type: 'function_call_output', call_id: 'call_2', output: 'no clock' },
      reasoned,
      { role: 'assistant', content: 'Clear.' },
      { role: 'user', content: 'Thanks' },
    ])
  })

  test('go to anthropic-messages as blocks, results before what the user says next', async () => {
    const [question, calls, results] = CALLS as [ModelMessage, ModelMessage, ModelMessage]
    const sentBody = await body('anthropic-messages', question, calls, results, userText('Well?'))
    expect(sentBody.messages).toEqual([
      { role: 'user', content: [{ type: 'text', text: 'Weather?' }] },
      {
        role: 'assistant',
        content: [
          { type: 'text', text: 'Let me see.' },
          { type: 'tool_use', id: 'call_1', name: 'weather', input: { city: 'Lviv' } },
          { type: 'tool_use', id: 'call_2', name: 'time', input: {} },
        ],
      },
      {
        role: 'user',
        content: [
          { type: 'tool_result', tool_use_id: 'call_1', content: '{"sky":"clear"}', is_error: false },
          { type: 'tool_result', tool_use_id: 'call_2', content: 'no clock', is_error: true },
          { type: 'text', text: 'Well?' },
        ],
      },
    ])
    expect(sentBody).toMatchObject({
      tools: [{ name: 'weather' }, { name: 'time' }],
      tool_choice: { type: 'none' },
    })
  })

  test.each(Object.keys(providerAdapters) as WireFormat[])(
    'that were left incomplete are repaired for %s',
    async (wireFormat) => {
      const messages = [
        tool(result('call_9', 'lost', 'orphan of a removed message')),
        userText('one'),
        assistant(call('call_1', 'slow', {}), call('call_2', 'fast', {})),
        userText('two'),
        tool(result('call_2', 'fast', 'late'), result('call_2', 'fast', 'again')),
        userText('three'),
      ]
      expect(pairsOf(await body(wireFormat, ...messages))).toEqual([
        ['call_1', expect.stringContaining('outcome is unknown')],
        ['call_2', 'late'],
      ])
    },
  )

  test.each(Object.keys(providerAdapters) as WireFormat[])(
    'get ids, names and input that %s takes',
    async (wireFormat) => {
      const long = 'x'.repeat(41)
      const messages = [
        userText('one'),
        assistant(call('call_1', 'a.b', 'no object'), call('call_1', '', null)),
        tool(result('call_1', 'a.b', 1), result('call_1', '', null)),
        assistant(call('call_1', 'c', {}), call('functions.c:0', 'c', {}), call(long, 'c', {})),
        tool(
          result(long, 'c', 'long'),
          result('functions.c:0', 'c', 'odd'),
          result('call_1', 'c', 'same id'),
        ),
      ]
      const sentBody = await body(wireFormat, ...messages)
      const pairs = pairsOf(sentBody)
      expect(pairs.map(([, output]) => output)).toEqual(['1', 'null', 'same id', 'odd', 'long'])
      expect(new Set(pairs.map(([id]) => id)).size).toBe(5)
      for (const [id] of pairs) expect(id).toMatch(/^[\w-]{1,40}$/)
      expect(JSON.stringify(sentBody)).toMatch(/"a_b".*"?input\\?":\s*\\?"no object/)
    },
  )
})

/** The calls of a request in their order, each with the result that the provider would find for it. */
function pairsOf(body: Record<string, unknown>): [id: string, output: unknown][] {
  const items = itemsOf(body)
  return items.flatMap(({ call: id }): [string, unknown][] =>
    id === undefined ? [] : [[id, items.find(({ answers }) => answers === id)?.output]],
  )
}

interface ToolItem {
  call?: string
  answers?: string
  output?: unknown
}

/** Items of a Responses input; messages with all that they hold, of the others. */
function itemsOf(body: Record<string, unknown>): ToolItem[] {
  const outer = asList(body.input ?? body.messages).map(asRecord)
  const all = outer.flatMap((one) => [one, ...asList(one.content), ...asList(one.tool_calls)])
  return all.map(asRecord).map(toToolItem)
}

/** The words of all three formats. */
function toToolItem(item: Record<string, unknown>): ToolItem {
  if (item.type === 'function_call') return { call: asText(item.call_id) }
  if (item.type === 'function' || item.type === 'tool_use') return { call: asText(item.id) }
  const answers = asText(item.call_id ?? item.tool_call_id ?? item.tool_use_id)
  return { answers, output: item.output ?? item.content }
}

/** An answer of the fake upstream as a message of history, with a text behind its reasoning. */
async function answerOf(wireFormat: WireFormat): Promise<ModelMessage> {
  const call = await run(providerAdapters[wireFormat], { baseUrl: upstream.baseUrl(wireFormat) })
  const end = call.parts.find((part) => part.type === 'reasoning-end')
  const providerData = end?.type === 'reasoning-end' ? end.providerData : undefined
  return {
    role: 'assistant',
    parts: [
      { type: 'reasoning', text: call.reasoning, ...(providerData && { providerData }) },
      { type: 'text', text: 'so' },
    ],
  }
}

/** Items of a Responses input, or all content blocks of a Messages conversation. */
function flatItems(body: Record<string, unknown>): unknown[] {
  if (Array.isArray(body.input)) return body.input as unknown[]
  return (body.messages as { content: unknown[] }[]).flatMap(({ content }) => content)
}

test.each(Object.keys(providerAdapters) as WireFormat[])(
  'the gateway knows all that a request of %s may be charged for',
  async (wireFormat) => {
    const origin = { wireFormat, model: 'test-model' }
    const answer: MessagePart[] = [
      { type: 'reasoning', text: 'hm', providerData: { origin, itemId: 'rs_1', encryptedContent: 'abc', signature: 'c2ln' } },
      { type: 'text', text: 'let me see' },
      { type: 'tool-call', toolCallId: 'call_1', toolName: 'fetch', input: { url: 'https://x/y' } },
    ]
    const image: MessagePart = { type: 'image', mediaType: 'image/png', fileId: 'f', data: 'AAAA' }
    const result: MessagePart = { type: 'tool-result', toolCallId: 'call_1', toolName: 'fetch', output: { url: 'x' }, isError: false }
    const messages: ModelMessage[] = [userText('one'), { role: 'assistant', parts: answer }, { role: 'tool', parts: [result] }, userText('two')]
    const request = { system: 'be kind', messages, tools: [functionTool('fetch')], maxOutputTokens: 7, reasoningEffort: 'low' } as const
    const { body } = await sent(wireFormat, request)
    expect(measureInput(wireFormat, body)).toMatchObject({ images: 0, imageCharacters: 0, openEnded: false })
    const shown = await sent(wireFormat, { ...request, messages: [{ role: 'user', parts: [image] }] })
    expect(measureInput(wireFormat, shown.body)).toMatchObject({ images: 1, openEnded: false })
  },
) // prettier-ignore
