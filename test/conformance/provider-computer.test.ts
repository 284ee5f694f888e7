/** The computer in every wire format: what is offered, native calls as neutral actions, and both on their way back. */
import type { ComputerAction } from '../../src/protocol/computer.ts'
import type { ModelMessage, ToolCallPart, ToolResultPart } from '../../src/protocol/messages.ts'
import type { WireFormat } from '../../src/protocol/routes.ts'
import type { ModelRequest } from '../../src/providers/contract.ts'
import { asList, asRecord, providerAdapters } from '../../src/providers/index.ts'
import type { FakeUpstream } from '../support/fake-upstream.ts'
import { startFakeUpstream } from '../support/fake-upstream.ts'
import type { CollectedToolCall } from '../support/model-calls.ts'
import { COMPUTER, functionTool, run, runToFinish, userText } from '../support/model-calls.ts'

const WIRE_FORMATS = Object.keys(providerAdapters) as WireFormat[]

let upstream: FakeUpstream

beforeAll(async () => {
  upstream = await startFakeUpstream()
})
beforeEach(() => upstream.reset())
afterAll(() => upstream.stop())

const callOf = (wireFormat: WireFormat, request: Partial<ModelRequest> = {}) => ({
  baseUrl: upstream.baseUrl(wireFormat),
  request: { tools: [COMPUTER, functionTool('time')], ...request },
})

/** Body and headers of a request as they arrive. */
async function sent(wireFormat: WireFormat, request: Partial<ModelRequest> = {}) {
  upstream.reset()
  await runToFinish(providerAdapters[wireFormat], callOf(wireFormat, request))
  const { body, headers } = await upstream.waitForRequest(1)
  return { ...body, headers } as Record<string, unknown> & { headers: typeof headers }
}

const sse = (events: readonly { type: string }[]): string =>
  events.map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join('')

/** A Responses answer made of these items. */
async function respond(items: readonly Record<string, unknown>[], request: Partial<ModelRequest> = {}) {
  const events = items.flatMap((item, output_index) => [
    {
      type: 'response.output_item.added',
      output_index,
      item: { ...item, actions: undefined, action: undefined },
    },
    { type: 'response.output_item.done', output_index, item },
  ])
  const completed = { type: 'response.completed', response: { id: 'r', model: 'm' } }
  upstream.script({ type: 'body', body: sse([...events, completed]) })
  return run(providerAdapters['openai-responses'], callOf('openai-responses', request))
}

type Block = Record<string, unknown> & { input?: Record<string, unknown> | string }

/** A Messages answer made of these blocks; an input that is text is streamed as it is. */
async function message(
  blocks: readonly Block[],
  { stop_reason = 'tool_use', ...request }: Partial<ModelRequest> & { stop_reason?: string } = {},
) {
  const events = blocks.flatMap(({ input = {}, ...content_block }, index) => {
    const partial_json = typeof input === 'string' ? input : JSON.stringify(input)
    return [
      { type: 'content_block_start', index, content_block: { ...content_block, input: {} } },
      { type: 'content_block_delta', index, delta: { type: 'input_json_delta', partial_json } },
      { type: 'content_block_stop', index },
    ]
  })
  const start = { type: 'message_start', message: { id: 'm', model: 'm', usage: { input_tokens: 1 } } }
  const end = [{ type: 'message_delta', delta: { stop_reason } }, { type: 'message_stop' }]
  upstream.script({ type: 'body', body: sse([start, ...events, ...end]) })
  return run(providerAdapters['anthropic-messages'], callOf('anthropic-messages', request))
}

const member = (id: string, name: string, input: Block['input'] = {}): Block => ({
  type: 'tool_use',
  id,
  name,
  toolset_name: 'computer',
  input,
})

const single = (id: string, input: Record<string, unknown>): Block => ({
  type: 'tool_use',
  id,
  name: 'computer',
  input,
})

const computerCall = (fields: Record<string, unknown>) => ({
  type: 'computer_call',
  id: 'cu_1',
  call_id: 'call_1',
  status: 'completed',
  pending_safety_checks: [],
  ...fields,
})

const actionsOf = ({ calls }: { calls: readonly CollectedToolCall[] }): unknown =>
  asRecord(calls[0]?.input).actions

// --- What is offered

describe('the computer', () => {
  test.each([
    ['computer-use-preview', { display_width: 1280, display_height: 800, environment: 'browser' }, 'auto'],
    ['gpt-5.4', {}, undefined],
    ['gpt-6-sol', {}, undefined],
    ['test-model', {}, undefined],
  ])('is offered to openai-responses and %s', async (model, display, truncation) => {
    const type = model === 'computer-use-preview' ? 'computer_use_preview' : 'computer'
    const body = await sent('openai-responses', { model })
    expect(asList(body.tools)[0]).toEqual({ type, ...display })
    expect(body.truncation).toBe(truncation)
    // Each call is to go back together with the reasoning that led to it.
    expect(body.include).toEqual(['reasoning.encrypted_content'])
  })

  test.each(['gpt-4o', 'gpt-5', 'gpt-5-mini', 'gpt-5.2', 'o3', 'openai/gpt-4.1'])(
    'is an ordinary tool to openai-responses and %s, which has none',
    async (model) => {
      const { tools, include } = await sent('openai-responses', { model })
      expect(include).toBeUndefined()
      expect(asList(tools)[0]).toMatchObject({ type: 'function', name: 'computer', strict: false })
    },
  )

  test('is an ordinary tool to openai-chat', async () => {
    const [tool] = asList((await sent('openai-chat')).tools)
    expect(tool).toMatchObject({
      type: 'function',
      function: {
        name: 'computer',
        description: expect.stringContaining('1280 by 800 pixels'),
        parameters: { type: 'object', required: ['actions'] },
      },
    })
  })

  test.each([
    ['claude-sonnet-4-5-20250929', 'computer_20250124', 'computer-use-2025-01-24'],
    ['claude-haiku-4-5', 'computer_20250124', 'computer-use-2025-01-24'],
    ['claude-opus-4-1-20250805', 'computer_20250124', 'computer-use-2025-01-24'],
    ['claude-opus-4-5-20251101', 'computer_20251124', 'computer-use-2025-11-24'],
    ['claude-sonnet-4-6', 'computer_20251124', 'computer-use-2025-11-24'],
    ['claude-opus-4-7', 'computer_20251124', 'computer-use-2025-11-24'],
  ])('is a beta tool to anthropic-messages and %s', async (model, type, beta) => {
    const { tools, headers } = await sent('anthropic-messages', { model })
    expect(asList(tools)[0]).toEqual({
      type,
      name: 'computer',
      display_width_px: 1280,
      display_height_px: 800,
    })
    expect(headers['anthropic-beta']).toBe(beta)
  })

  test.each(['claude-opus-4-8', 'claude-sonnet-5', 'claude-opus-5-5', 'test-model'])(
    'is a set of tools to anthropic-messages and %s, without what no driver can do',
    async (model) => {
      const { tools, headers } = await sent('anthropic-messages', { model })
      const off = { enabled: false }
      expect(asList(tools)[0]).toEqual({
        type: 'computer_toolset_20260801',
        configs: {
          zoom: off,
          cursor_position: off,
          hold_key: off,
          left_mouse_down: off,
          left_mouse_up: off,
        },
      })
      expect(headers).not.toHaveProperty('anthropic-beta')
    },
  )

  test('needs no beta where it is not offered', async () => {
    const { headers } = await sent('anthropic-messages', { model: 'claude-sonnet-4-6', tools: [] })
    expect(headers).not.toHaveProperty('anthropic-beta')
  })
})

// --- Calls

describe('a call of openai-responses', () => {
  test('is one call of the tool computer, with what goes back with it', async () => {
    const actions = [{ type: 'screenshot' }, { type: 'wait' }]
    const checks = [{ id: 'sc_1', code: 'malicious_instructions', message: 'Careful.' }]
    const { calls, end } = await respond([computerCall({ actions, pending_safety_checks: checks })])
    expect(calls).toEqual([
      {
        type: 'tool-call',
        toolCallId: 'call_1',
        toolName: 'computer',
        text: '',
        input: { actions: [{ type: 'screenshot' }, { type: 'wait', ms: 2_000 }] },
        providerData: {
          wireFormat: 'openai-responses',
          model: 'test-model',
          kind: 'computer',
          itemId: 'cu_1',
          pendingSafetyChecks: checks,
          actions,
        },
      },
    ])
    expect(end).toMatchObject({ reason: 'tool_calls' })
  })

  test.each<[Record<string, unknown>, ComputerAction]>([
    [
      { type: 'click', button: 'left', x: 1, y: 2, keys: null },
      { type: 'click', button: 'left', x: 1, y: 2, count: 1 },
    ],
    [
      { type: 'click', button: 'wheel', x: 1.6, y: 2, keys: [] },
      { type: 'click', button: 'middle', x: 2, y: 2, count: 1 },
    ],
    [
      { type: 'double_click', x: 1, y: 2 },
      { type: 'click', button: 'left', x: 1, y: 2, count: 2 },
    ],
    [
      { type: 'move', x: 1, y: 2 },
      { type: 'move', x: 1, y: 2 },
    ],
    [
      {
        type: 'drag',
        path: [
          { x: 1, y: 2 },
          { x: 3, y: 4 },
        ],
      },
      {
        type: 'drag',
        path: [
          { x: 1, y: 2 },
          { x: 3, y: 4 },
        ],
      },
    ],
    [
      { type: 'type', text: 'hé' },
      { type: 'type', text: 'hé' },
    ],
    [
      { type: 'keypress', keys: ['CTRL', 'A'] },
      { type: 'key', keys: ['Control', 'a'] },
    ],
    [
      { type: 'keypress', keys: ['SHIFT', 'ARROWLEFT'] },
      { type: 'key', keys: ['Shift', 'ArrowLeft'] },
    ],
    [
      { type: 'keypress', keys: ['A'] },
      { type: 'key', keys: ['A'] },
    ],
    [
      { type: 'scroll', x: 1, y: 2, scroll_x: 0, scroll_y: -300 },
      { type: 'scroll', x: 1, y: 2, dx: 0, dy: -300 },
    ],
  ])('reads %j', async (action, expected) => {
    expect(actionsOf(await respond([computerCall({ action })]))).toEqual([expected])
    expect(actionsOf(await respond([computerCall({ actions: [action, action] })]))).toEqual([
      expected,
      expected,
    ])
  })

  test.each([
    [{ type: 'levitate' }, /"levitate" is not known/],
    [{ type: 'click', button: 'toString', x: 1, y: 2 }, /"click".*"toString".*not supported/],
    [{ type: 'click', button: 'forward', x: 1, y: 2 }, /"click".*"forward".*not supported/],
    [{ type: 'click', button: 'left', x: '1', y: 2 }, /"click" needs the field x/],
    [{ type: 'click', button: 'left', x: 1, y: 2, keys: ['CTRL'] }, /"click" with keys held down/],
    [{ type: 'drag', path: [{ x: 1, y: 2 }] }, /"drag" needs the field path/],
    [{ type: 'keypress', keys: [] }, /"keypress" needs the field keys/],
    [{ type: 'type' }, /"type" needs the field text/],
  ])('says what is wrong with %j', async (action, why) => {
    const { calls } = await respond([computerCall({ actions: [{ type: 'screenshot' }, action] })])
    expect(calls).toMatchObject([{ inputError: expect.stringMatching(why), input: expect.any(String) }])
    expect(calls[0]).not.toHaveProperty('providerData')
  })

  test('says that it has no action', async () => {
    const { calls } = await respond([computerCall({})])
    expect(calls).toMatchObject([{ inputError: expect.stringContaining('at least one action') }])
  })

  test('is stored although its actions are nested without end', async () => {
    const deep = JSON.parse(`${'{"a":'.repeat(150)}1${'}'.repeat(150)}`) as unknown
    const { calls } = await respond([computerCall({ actions: [{ type: 'screenshot', deep }] })])
    expect(calls).toMatchObject([{ inputError: expect.stringContaining('too deep') }])
  })
})

describe('a call of anthropic-messages', () => {
  test('is all its uses in a row, with what goes back with them', async () => {
    const { calls, end, parts } = await message([
      member('toolu_1', 'left_click', { coordinate: [10, 20] }),
      member('toolu_2', 'type', { text: 'hi' }),
      member('toolu_3', 'scroll', { scroll_direction: 'down', scroll_amount: 3 }),
      { type: 'tool_use', id: 'toolu_4', name: 'time', input: {} },
      member('toolu_5', 'screenshot'),
    ])
    const origin = { wireFormat: 'anthropic-messages', model: 'test-model' }
    expect(calls).toEqual([
      {
        type: 'tool-call',
        toolCallId: 'toolu_1',
        toolName: 'computer',
        text: '',
        input: {
          actions: [
            { type: 'click', x: 10, y: 20, button: 'left', count: 1 },
            { type: 'type', text: 'hi' },
            { type: 'scroll', x: 10, y: 20, dx: 0, dy: 300 },
          ],
        },
        providerData: {
          ...origin,
          kind: 'computer',
          tool: 'computer_toolset_20260801',
          blocks: [
            { id: 'toolu_1', name: 'left_click', input: { coordinate: [10, 20] } },
            { id: 'toolu_2', name: 'type', input: { text: 'hi' } },
            { id: 'toolu_3', name: 'scroll', input: { scroll_direction: 'down', scroll_amount: 3 } },
          ],
        },
      },
      expect.objectContaining({ toolCallId: 'toolu_4', toolName: 'time', input: {} }),
      expect.objectContaining({ toolCallId: 'toolu_5', input: { actions: [{ type: 'screenshot' }] } }),
    ])
    expect(end).toMatchObject({ reason: 'tool_calls' })
    expect(parts.map(({ type }) => type).slice(0, 3)).toEqual([
      'tool-input-start',
      'tool-input-end',
      'tool-input-start',
    ])
  })

  test.each<[string, Record<string, unknown>, ComputerAction[]]>([
    ['screenshot', {}, [{ type: 'screenshot' }]],
    ['right_click', { coordinate: [1, 2] }, [{ type: 'click', x: 1, y: 2, button: 'right', count: 1 }]],
    ['middle_click', { coordinate: [1, 2] }, [{ type: 'click', x: 1, y: 2, button: 'middle', count: 1 }]],
    ['double_click', { coordinate: [1, 2] }, [{ type: 'click', x: 1, y: 2, button: 'left', count: 2 }]],
    ['triple_click', { coordinate: null }, [{ type: 'click', x: 7, y: 8, button: 'left', count: 3 }]],
    ['mouse_move', { coordinate: [1, 2] }, [{ type: 'move', x: 1, y: 2 }]],
    [
      'left_click_drag',
      { start_coordinate: [1, 2], coordinate: [3, 4] },
      [
        {
          type: 'drag',
          path: [
            { x: 1, y: 2 },
            { x: 3, y: 4 },
          ],
        },
      ],
    ],
    ['key', { text: 'ctrl+shift+T' }, [{ type: 'key', keys: ['Control', 'Shift', 'T'] }]],
    ['key', { text: 'ctrl++' }, [{ type: 'key', keys: ['Control', '+'] }]],
    ['key', { text: 'constructor' }, [{ type: 'key', keys: ['constructor'] }]],
    ['key', { text: 'Page_Down' }, [{ type: 'key', keys: ['PageDown'] }]],
    ['key', { text: ' ' }, [{ type: 'key', keys: [' '] }]],
    [
      'key',
      { text: 'Tab Return', repeat: 2 },
      ['Tab', 'Enter', 'Tab', 'Enter'].map((key) => ({ type: 'key', keys: [key] })),
    ],
    [
      'scroll',
      { coordinate: [1, 2], scroll_direction: 'left', scroll_amount: 2 },
      [{ type: 'scroll', x: 1, y: 2, dx: -200, dy: 0 }],
    ],
    ['wait', { duration: 1.5 }, [{ type: 'wait', ms: 1_500 }]],
    ['wait', { duration: 86_400 }, [{ type: 'wait', ms: 60_000 }]],
  ])('reads %s %j, in either form', async (name, input, expected) => {
    const moved: ToolCallPart = {
      type: 'tool-call',
      toolCallId: 'a',
      toolName: 'computer',
      input: { actions: [{ type: 'drag', path: [{ x: 7, y: 8 }] }, { type: 'screenshot' }, 3, null] },
    }
    const messages: ModelMessage[] = [userText('x'), { role: 'assistant', parts: [moved] }]
    expect(actionsOf(await message([member('b', name, input)], { messages }))).toEqual(expected)
    const old = { messages, model: 'claude-opus-4-5' }
    expect(actionsOf(await message([single('b', { action: name, ...input })], old))).toEqual(expected)
  })

  test.each([
    ['zoom', { region: [0, 0, 1, 1] }, /"zoom" is not supported/],
    ['constructor', {}, /"constructor" is not supported/],
    ['hold_key', { text: 'a', duration: 1 }, /"hold_key" is not supported/],
    ['left_click', {}, /"left_click" needs the field coordinate/],
    ['left_click', { coordinate: [1] }, /"left_click" needs the field coordinate/],
    ['left_click', { coordinate: [1, 2], text: 'ctrl' }, /"left_click" with keys held down/],
    ['key', { text: '' }, /"key" needs the field text/],
    ['wait', {}, /"wait" needs a time/],
    [
      'scroll',
      { coordinate: [1, 2], scroll_direction: 'in', scroll_amount: 1 },
      /"scroll" needs a direction/,
    ],
  ])('says what is wrong with %s %j', async (name, input, why) => {
    const { calls } = await message([member('a', 'screenshot'), member('b', name, input)])
    expect(calls).toMatchObject([{ toolCallId: 'a', inputError: expect.stringMatching(why) }])
    // It goes back as it came, for the model to see what it wrote.
    expect(calls[0]?.providerData).toMatchObject({
      kind: 'computer',
      blocks: [{ id: 'a' }, { id: 'b', name }],
    })
  })

  test.each([
    ['tool_use', /no JSON/],
    ['max_tokens', /cut off/],
  ])('says so where its input is not whole: %s', async (stop_reason, why) => {
    const blocks = [member('a', 'screenshot'), member('b', 'type', '{"text": "to b')]
    const { calls } = await message(blocks, { stop_reason })
    expect(calls).toMatchObject([{ toolCallId: 'a', inputError: expect.stringMatching(why) }])
    expect(calls[0]).not.toHaveProperty('providerData')
  })
})

describe.each(['openai-chat', 'openai-responses'] as const)(
  'a call of %s by an ordinary tool',
  (wireFormat) => {
    const request = { model: 'gpt-4o' }
    const calls = async (args: unknown) => {
      upstream.script({
        type: 'answer',
        toolCalls: [{ id: 'call_1', name: 'computer', args: [JSON.stringify(args)] }],
      })
      return run(providerAdapters[wireFormat], callOf(wireFormat, request))
    }

    test('is checked and completed', async () => {
      const result = await calls({
        actions: [
          { type: 'click', x: 1, y: 2 },
          { type: 'scroll', x: 1, y: 2, dy: 5, note: 'ignored' },
          { type: 'key', keys: ['ctrl', 'L'] },
          { type: 'wait', ms: 10 },
        ],
      })
      expect(actionsOf(result)).toEqual([
        { type: 'click', x: 1, y: 2, button: 'left', count: 1 },
        { type: 'scroll', x: 1, y: 2, dx: 0, dy: 5 },
        { type: 'key', keys: ['Control', 'l'] },
        { type: 'wait', ms: 10 },
      ])
      expect(result.end).toMatchObject({ reason: 'tool_calls' })
    })

    test('may leave out the list around a single action', async () => {
      expect(actionsOf(await calls({ actions: { type: 'screenshot' } }))).toEqual([{ type: 'screenshot' }])
    })

    test.each([
      [{}, /at least one action/],
      [{ actions: [{ type: 'fly' }] }, /"fly" is not known/],
      [{ actions: [{ type: 'click', x: 1, y: 2, button: 'nose' }] }, /"click" needs one of the buttons/],
      [{ actions: [{ type: 'click', x: 1, y: 2, count: 4 }] }, /"click" needs one of the counts/],
      [{ actions: [{ type: 'wait', ms: -1 }] }, /"wait" needs a time/],
    ])('says what is wrong with %j', async (args, why) => {
      expect((await calls(args)).calls).toMatchObject([
        { toolName: 'computer', inputError: expect.stringMatching(why), input: JSON.stringify(args) },
      ])
    })
  },
)

// --- History

const PNG = 'data:image/png;base64,QQ=='

function resultOf(call: ToolCallPart, fields: Partial<ToolResultPart> = {}): ModelMessage {
  const { toolCallId, toolName } = call
  const images = [{ type: 'image', fileId: 'f', mediaType: 'image/png', data: 'QQ==' } as const]
  return {
    role: 'tool',
    parts: [
      { type: 'tool-result', toolCallId, toolName, output: 'Done.', isError: false, images, ...fields },
    ],
  }
}

const historyOf = (
  calls: readonly CollectedToolCall[],
  fields: Partial<ToolResultPart> = {},
): ModelMessage[] => {
  const parts = calls.map(({ text: _text, ...call }): ToolCallPart => call)
  const results = parts.flatMap((call) => resultOf(call, fields).parts)
  return [userText('x'), { role: 'assistant', parts }, { role: 'tool', parts: results }]
}

const FOREIGN = { model: 'gpt-4o' }

describe('a former call of openai-responses', () => {
  const actions = [{ type: 'click', button: 'wheel', x: 1, y: 2 }]
  const checks = [{ id: 'sc_1', code: 'c', message: 'm' }]
  const asked = () => respond([computerCall({ actions, pending_safety_checks: checks })])
  const inputOf = async (messages: ModelMessage[], request: Partial<ModelRequest> = {}) =>
    asList((await sent('openai-responses', { messages, ...request })).input).slice(1)

  test('goes back as it came, with the screenshot', async () => {
    const { calls } = await asked()
    expect(await inputOf(historyOf(calls))).toEqual([
      {
        type: 'computer_call',
        id: 'cu_1',
        call_id: 'call_1',
        status: 'completed',
        actions,
        pending_safety_checks: checks,
      },
      {
        type: 'computer_call_output',
        call_id: 'call_1',
        output: { type: 'computer_screenshot', image_url: PNG },
        acknowledged_safety_checks: checks,
      },
    ])
  })

  test.each<[string, Partial<ToolResultPart>, Partial<ModelRequest>]>([
    ['without a screenshot', { images: [] }, {}],
    ['that failed', { isError: true }, {}],
    ['of another model', {}, { model: 'gpt-5.5' }],
    ['where no computer is offered', {}, { tools: [] }],
  ])('%s goes back as that of an ordinary tool', async (_what, fields, request) => {
    const { calls } = await asked()
    const [call, output] = (await inputOf(historyOf(calls, fields), request)).map(asRecord)
    expect(call).toMatchObject({ type: 'function_call', call_id: 'call_1', name: 'computer' })
    expect(JSON.parse(String(call?.arguments))).toEqual(calls[0]?.input)
    expect(output).toMatchObject({ type: 'function_call_output', call_id: 'call_1' })
    expect(JSON.stringify(output)).toContain('Done.')
  })

  test.each(['openai-chat', 'anthropic-messages'] as const)(
    'goes to %s as that of an ordinary tool',
    async (other) => {
      const { calls } = await asked()
      const { messages } = await sent(other, { messages: historyOf(calls) })
      const text = JSON.stringify(messages)
      expect(text).toContain('"name":"computer"')
      expect(text).toMatch(/middle/)
      expect(text).not.toMatch(/cu_1|sc_1|wheel|toolset/)
    },
  )
})

describe('a former call of anthropic-messages', () => {
  const uses = [
    member('toolu_1', 'left_click', { coordinate: [10, 20] }),
    member('toolu_2', 'key', { text: 'Return' }),
  ]
  const contentOf = async (messages: ModelMessage[], request: Partial<ModelRequest> = {}) => {
    const body = await sent('anthropic-messages', { messages, ...request })
    return asList(body.messages)
      .slice(1)
      .map((one) => asRecord(one).content)
  }
  const shown = [
    { type: 'text', text: 'Done.' },
    { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'QQ==' } },
  ]

  test('goes back as it came, one use after the other, the screenshot with the last', async () => {
    const { calls } = await message(uses)
    const toolset_name = 'computer'
    expect(await contentOf(historyOf(calls))).toEqual([
      [
        {
          type: 'tool_use',
          id: 'toolu_1',
          name: 'left_click',
          input: { coordinate: [10, 20] },
          toolset_name,
        },
        { type: 'tool_use', id: 'toolu_2', name: 'key', input: { text: 'Return' }, toolset_name },
      ],
      [
        {
          type: 'tool_result',
          tool_use_id: 'toolu_1',
          content: expect.stringContaining('last action'),
          is_error: false,
          toolset_name,
        },
        { type: 'tool_result', tool_use_id: 'toolu_2', content: shown, is_error: false, toolset_name },
      ],
    ])
  })

  test('of the single tool goes back without a set', async () => {
    const old = { model: 'claude-sonnet-4-5' }
    const input = { action: 'left_click', coordinate: [10, 20] }
    const { calls } = await message([single('toolu_1', input)], old)
    expect(await contentOf(historyOf(calls), old)).toEqual([
      [{ type: 'tool_use', id: 'toolu_1', name: 'computer', input }],
      [{ type: 'tool_result', tool_use_id: 'toolu_1', content: shown, is_error: false }],
    ])
  })

  test('keeps its ids unique where a server counts them anew', async () => {
    const { calls } = await message(uses)
    const content = await contentOf([...historyOf(calls), ...historyOf(calls)])
    const ids = content.flat().map((block) => asRecord(block).id)
    expect(ids.filter(Boolean)).toEqual(['toolu_1', 'toolu_2', 'call_1', 'call_1-1'])
    const answered = content.flat().map((block) => asRecord(block).tool_use_id)
    expect(answered.filter(Boolean)).toEqual(['toolu_1', 'toolu_2', 'call_1', 'call_1-1'])
  })

  test('that could not be done goes back as it came, with the error', async () => {
    const { calls } = await message([member('toolu_1', 'zoom', { region: [0, 0, 1, 1] })])
    const content = await contentOf(historyOf(calls, { output: 'no zoom', isError: true, images: [] }))
    expect(content.flat()).toMatchObject([
      { type: 'tool_use', name: 'zoom', input: { region: [0, 0, 1, 1] } },
      { type: 'tool_result', content: 'no zoom', is_error: true },
    ])
  })

  test.each<[string, Partial<ModelRequest>]>([
    ['of another model', { model: 'claude-sonnet-5' }],
    ['where no computer is offered', { tools: [functionTool('time')] }],
    ['where no tools are offered', { tools: [] }],
  ])('%s goes back as that of an ordinary tool', async (_what, request) => {
    const { calls } = await message(uses)
    const content = await contentOf(historyOf(calls), request)
    expect(content).toMatchObject([
      [{ type: 'tool_use', id: 'toolu_1', name: 'computer', input: calls[0]?.input }],
      [{ type: 'tool_result', tool_use_id: 'toolu_1', content: shown }],
    ])
    expect(JSON.stringify(content)).not.toContain('toolset')
  })

  test.each(['openai-chat', 'openai-responses'] as const)(
    'goes to %s as that of an ordinary tool',
    async (other) => {
      const { calls } = await message(uses)
      const body = await sent(other, { messages: historyOf(calls), ...FOREIGN })
      const text = JSON.stringify(body.messages ?? body.input)
      expect(text).toMatch(/"name":"computer"/)
      expect(text).toMatch(/Enter/)
      expect(text).toContain(PNG)
      expect(text).not.toMatch(/left_click|toolset|Return/)
    },
  )
})

test.each(WIRE_FORMATS)('a computer without any call ends an answer of %s as usual', async (wireFormat) => {
  expect(await run(providerAdapters[wireFormat], callOf(wireFormat))).toMatchObject({
    text: 'echo: hello',
    end: { reason: 'stop' },
  })
})
