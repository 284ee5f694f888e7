/** What a provider's stream looks like in each wire format, as SSE text. Used by `fake-upstream.ts` only. */
import type { FinishReason } from '../../src/protocol/parts.ts'
import type { WireFormat } from '../../src/protocol/routes.ts'

/** Token counts that do not overlap, as `protocol/usage.ts` has them; each format adds them up in its own way. */
export interface UpstreamUsage {
  input: number
  cacheRead: number
  cacheWrite: number
  output: number
  reasoning: number
}

/** A tool call as a provider streams it. */
export interface ScriptedCall {
  /** Left out, the provider gives none. */
  id?: string
  name?: string
  /** The pieces of the arguments' JSON; none: no arguments are given. */
  args: readonly string[]
  /** Further fields of a call of the provider's own tool: with `openai-responses` in the place of name and arguments. */
  native?: Readonly<Record<string, unknown>>
}

/** An answer with nothing left open. */
export interface AnswerScript {
  model: string
  /** The deltas of a reasoning block before the text; none without any. */
  reasoning: readonly string[]
  /** The deltas of the text. */
  chunks: readonly string[]
  finish: FinishReason
  /** Null: the provider reports no usage. */
  usage: UpstreamUsage | null
  /** A tool that the model asks for after its text, offered or not. */
  toolCall: string | null
  /** Tool calls after the text. */
  calls?: readonly ScriptedCall[]
  /** Whether the calls stream at the same time, piece by piece. */
  interleaved?: boolean
}

export interface UpstreamError {
  type: string
  code: string | null
  message: string
}

/** The pieces of a stream, each one or more whole SSE events. */
export interface AnswerFrames {
  opening: string
  /** One per delta, reasoning first. */
  deltas: readonly string[]
  /** Closes what is open, with the format's own ending. */
  ending: string
}

export interface FormatRenderer {
  path: string
  render(answer: AnswerScript): AnswerFrames
  /** An error in the middle of a stream. */
  error(error: UpstreamError): string
  /** An event that is no JSON. */
  malformed: string
  /** The body of an HTTP error. */
  errorBody(error: UpstreamError): unknown
  /** The text of the last user message of a request. */
  lastUserText(body: Record<string, unknown>): string
}

const data = (value: unknown): string => `data: ${JSON.stringify(value)}\n\n`
const event = (value: { type: string; [field: string]: unknown }): string =>
  `event: ${value.type}\n${data(value)}`

/** The events of a call. */
interface CallFrames {
  start: string
  pieces: readonly string[]
  end: string
}

function joinCalls(
  { calls = [], interleaved = false }: AnswerScript,
  render: (call: ScriptedCall, index: number) => CallFrames,
): string {
  const frames = calls.map(render)
  if (!interleaved) return frames.map(({ start, pieces, end }) => start + pieces.join('') + end).join('')
  const most = Math.max(...frames.map(({ pieces }) => pieces.length))
  const rounds = Array.from({ length: most }, (_, round) => frames.map(({ pieces }) => pieces[round] ?? ''))
  return [frames.map(({ start }) => start), ...rounds, frames.map(({ end }) => end)].flat().join('')
}

const inputOf = (usage: UpstreamUsage): number => usage.input + usage.cacheRead + usage.cacheWrite

// --- openai-chat

const chatChunk = (model: string, fields: Record<string, unknown>): string =>
  data({ id: 'chatcmpl-fake', object: 'chat.completion.chunk', created: 1_700_000_000, model, ...fields })

const chatDelta = (model: string, delta: unknown, finish_reason: string | null = null): string =>
  chatChunk(model, { choices: [{ index: 0, delta, finish_reason }] })

const chatUsage = (usage: UpstreamUsage) => ({
  prompt_tokens: inputOf(usage),
  completion_tokens: usage.output,
  total_tokens: inputOf(usage) + usage.output,
  prompt_tokens_details: { cached_tokens: usage.cacheRead, cache_write_tokens: usage.cacheWrite },
  completion_tokens_details: { reasoning_tokens: usage.reasoning },
})

function chatToolCall(model: string, name: string | null): string {
  if (name === null) return ''
  const call = { index: 0, id: 'call_fake', type: 'function', function: { name, arguments: '{}' } }
  return chatDelta(model, { tool_calls: [call] })
}

const chatCall =
  (model: string) =>
  ({ id, name, args }: ScriptedCall, index: number): CallFrames => ({
    start: chatDelta(model, {
      tool_calls: [{ index, id, type: 'function', function: { name, arguments: '' } }],
    }),
    pieces: args.map((text) => chatDelta(model, { tool_calls: [{ index, function: { arguments: text } }] })),
    end: '',
  })

const CHAT_FINISH = {
  stop: 'stop',
  length: 'length',
  content_filter: 'content_filter',
  refusal: 'stop',
  tool_calls: 'tool_calls',
}

function chatFrames(answer: AnswerScript): AnswerFrames {
  const { model, reasoning, chunks, finish, usage, toolCall } = answer
  return {
    opening: chatDelta(model, { role: 'assistant', content: '' }),
    deltas: [
      ...reasoning.map((text) => chatDelta(model, { reasoning_content: text })),
      ...chunks.map((text) => chatDelta(model, { [finish === 'refusal' ? 'refusal' : 'content']: text })),
    ],
    ending: [
      chatToolCall(model, toolCall),
      joinCalls(answer, chatCall(model)),
      chatDelta(model, {}, toolCall === null ? CHAT_FINISH[finish] : 'tool_calls'),
      usage === null ? '' : chatChunk(model, { choices: [], usage: chatUsage(usage) }),
      'data: [DONE]\n\n',
    ].join(''),
  }
}

const chat: FormatRenderer = {
  path: '/v1/chat/completions',
  render: chatFrames,
  error: (error) => data({ error }),
  malformed: 'data: {"choices": [{"delta": {"cont\n\n',
  errorBody: (error) => ({ error }),
  lastUserText: (body) => lastText(body.messages),
}

// --- openai-responses

const ITEM = { reasoning: 'rs_fake', message: 'msg_fake' }
const ENCRYPTED = 'ZW5jcnlwdGVk'

const responsesUsage = (usage: UpstreamUsage) => ({
  input_tokens: inputOf(usage),
  input_tokens_details: { cached_tokens: usage.cacheRead, cache_write_tokens: usage.cacheWrite },
  output_tokens: usage.output,
  output_tokens_details: { reasoning_tokens: usage.reasoning },
  total_tokens: inputOf(usage) + usage.output,
})

const responseOf = ({ model, usage }: AnswerScript, fields: Record<string, unknown>) => ({
  id: 'resp_fake',
  object: 'response',
  model,
  usage: usage && responsesUsage(usage),
  ...fields,
})

const reasoningItem = (fields: Record<string, unknown>) => ({
  type: 'reasoning',
  id: ITEM.reasoning,
  ...fields,
})
const messageItem = { type: 'message', id: ITEM.message, role: 'assistant', content: [] }
const part = { output_index: 0, item_id: ITEM.message, content_index: 0 }
const summary = { output_index: 0, item_id: ITEM.reasoning, summary_index: 0 }

const responsesReasoningStart =
  event({ type: 'response.output_item.added', output_index: 0, item: reasoningItem({ summary: [] }) }) +
  event({
    type: 'response.reasoning_summary_part.added',
    ...summary,
    part: { type: 'summary_text', text: '' },
  })

function responsesReasoningEnd(texts: readonly string[]): string {
  if (texts.length === 0) return ''
  return event({
    type: 'response.output_item.done',
    output_index: 0,
    item: reasoningItem({
      summary: [{ type: 'summary_text', text: texts.join('') }],
      encrypted_content: ENCRYPTED,
    }),
  })
}

const responsesMessageStart =
  event({ type: 'response.output_item.added', output_index: 0, item: messageItem }) +
  event({ type: 'response.content_part.added', ...part, part: { type: 'output_text', text: '' } })

function responsesToolCall(name: string | null): string {
  const item = { type: 'function_call', id: 'fc_fake', call_id: 'call_fake', name, arguments: '' }
  return name === null ? '' : event({ type: 'response.output_item.added', output_index: 1, item })
}

/** Item ids and call ids are not the same here. A call that the answer's end cut off is `incomplete`. */
const responsesCall =
  ({ finish, calls = [] }: AnswerScript) =>
  ({ id, name, args, native }: ScriptedCall, index: number): CallFrames => {
    const place = { item_id: `fc_${index}`, output_index: index + 1 }
    if (native !== undefined) {
      const item = { id: place.item_id, call_id: id, status: 'completed', ...native }
      return { start: '', pieces: [], end: event({ type: 'response.output_item.done', ...place, item }) }
    }
    const item = { type: 'function_call', id: place.item_id, call_id: id, name }
    const cut = finish === 'length' && index === calls.length - 1
    const status = cut ? 'incomplete' : 'completed'
    const done = { ...item, arguments: args.join(''), status }
    return {
      start: event({ type: 'response.output_item.added', ...place, item: { ...item, arguments: '' } }),
      pieces: args.map((delta) => event({ type: 'response.function_call_arguments.delta', ...place, delta })),
      end: event({ type: 'response.output_item.done', ...place, item: done }),
    }
  }

const INCOMPLETE: Partial<Record<FinishReason, string>> = {
  length: 'max_output_tokens',
  content_filter: 'content_filter',
}

function responsesTerminal(answer: AnswerScript): string {
  const reason = INCOMPLETE[answer.finish]
  if (reason === undefined)
    return event({ type: 'response.completed', response: responseOf(answer, { status: 'completed' }) })
  const response = responseOf(answer, { status: 'incomplete', incomplete_details: { reason } })
  return event({ type: 'response.incomplete', response })
}

function responsesDeltas({ reasoning, chunks, finish }: AnswerScript): string[] {
  const textType = finish === 'refusal' ? 'response.refusal.delta' : 'response.output_text.delta'
  const thoughts = reasoning.map((delta) =>
    event({ type: 'response.reasoning_summary_text.delta', ...summary, delta }),
  )
  const texts = chunks.map((delta) => event({ type: textType, ...part, delta }))
  return [
    ...prefixFirst(thoughts, responsesReasoningStart),
    ...prefixFirst(
      texts,
      thoughts.length > 0 ? responsesReasoningEnd(reasoning) + responsesMessageStart : '',
    ),
  ]
}

const responses: FormatRenderer = {
  path: '/v1/responses',
  render: (answer) => ({
    opening: event({
      type: 'response.created',
      response: responseOf(answer, { status: 'in_progress', usage: null }),
    }),
    deltas: responsesDeltas(answer),
    ending: [
      answer.chunks.length > 0 ? '' : responsesReasoningEnd(answer.reasoning),
      event({ type: 'response.content_part.done', ...part, part: { type: 'output_text', text: '' } }),
      event({ type: 'response.output_item.done', output_index: 0, item: messageItem }),
      responsesToolCall(answer.toolCall),
      joinCalls(answer, responsesCall(answer)),
      responsesTerminal(answer),
    ].join(''),
  }),
  error: ({ code, type, message }) => event({ type: 'error', code: code ?? type, message, param: null }),
  malformed: 'event: response.output_text.delta\ndata: {"type": "response.output_te\n\n',
  errorBody: (error) => ({ error }),
  lastUserText: (body) => lastText(body.input),
}

// --- anthropic-messages

const anthropicUsage = (usage: UpstreamUsage, output: number) => ({
  input_tokens: usage.input,
  cache_read_input_tokens: usage.cacheRead,
  cache_creation_input_tokens: usage.cacheWrite,
  output_tokens: output,
})

const anthropicBlock = (index: number, content_block: Record<string, unknown>): string =>
  event({ type: 'content_block_start', index, content_block })
const anthropicDelta = (index: number, delta: Record<string, unknown>): string =>
  event({ type: 'content_block_delta', index, delta })
const anthropicStop = (index: number): string => event({ type: 'content_block_stop', index })

const anthropicThinkingStart = anthropicBlock(0, { type: 'thinking', thinking: '', signature: '' })
const anthropicThinkingEnd = (texts: readonly string[]): string =>
  texts.length === 0
    ? ''
    : anthropicDelta(0, { type: 'signature_delta', signature: 'c2lnbmF0dXJl' }) + anthropicStop(0)

function anthropicDeltas({ reasoning, chunks }: AnswerScript): string[] {
  const textIndex = reasoning.length > 0 ? 1 : 0
  const thoughts = reasoning.map((thinking) => anthropicDelta(0, { type: 'thinking_delta', thinking }))
  const texts = chunks.map((text) => anthropicDelta(textIndex, { type: 'text_delta', text }))
  const textStart = anthropicBlock(textIndex, { type: 'text', text: '' })
  return [
    ...prefixFirst(thoughts, anthropicThinkingStart),
    ...prefixFirst(texts, anthropicThinkingEnd(reasoning) + textStart),
  ]
}

const ANTHROPIC_FINISH = {
  stop: 'end_turn',
  length: 'max_tokens',
  content_filter: 'refusal',
  refusal: 'refusal',
  tool_calls: 'tool_use',
}

function anthropicToolCall(index: number, name: string | null): string {
  if (name === null) return ''
  return anthropicBlock(index, { type: 'tool_use', id: 'toolu_fake', name, input: {} }) + anthropicStop(index)
}

const anthropicCall =
  (first: number) =>
  ({ id, name, args, native }: ScriptedCall, position: number): CallFrames => {
    const index = first + position
    return {
      start: anthropicBlock(index, { type: 'tool_use', id, name, input: {}, ...native }),
      pieces: args.map((partial_json) => anthropicDelta(index, { type: 'input_json_delta', partial_json })),
      end: anthropicStop(index),
    }
  }

function anthropicEnding(answer: AnswerScript): string {
  const { reasoning, chunks, finish, usage, toolCall } = answer
  const last = reasoning.length > 0 ? 1 : 0
  const details = usage && { output_tokens_details: { thinking_tokens: usage.reasoning } }
  return [
    chunks.length > 0 ? anthropicStop(last) : anthropicThinkingEnd(reasoning),
    anthropicToolCall(last + 1, toolCall),
    joinCalls(answer, anthropicCall(last + 1)),
    event({
      type: 'message_delta',
      delta: { stop_reason: toolCall === null ? ANTHROPIC_FINISH[finish] : 'tool_use', stop_sequence: null },
      ...(usage && { usage: { ...anthropicUsage(usage, usage.output), ...details } }),
    }),
    event({ type: 'message_stop' }),
  ].join('')
}

function anthropicOpening({ model, usage }: AnswerScript): string {
  const message = {
    id: 'msg_fake',
    type: 'message',
    role: 'assistant',
    model,
    content: [],
    stop_reason: null,
    ...(usage && { usage: anthropicUsage(usage, 1) }),
  }
  return event({ type: 'message_start', message }) + event({ type: 'ping' })
}

const anthropicError = ({ type, code, message }: UpstreamError) => ({
  type: 'error',
  error: { type, message, ...(code !== null && { details: { error_code: code } }) },
})

const anthropic: FormatRenderer = {
  path: '/v1/messages',
  render: (answer) => ({
    opening: anthropicOpening(answer),
    deltas: anthropicDeltas(answer),
    ending: anthropicEnding(answer),
  }),
  error: (error) => event(anthropicError(error)),
  malformed: 'event: content_block_delta\ndata: {"type": "content_block_del\n\n',
  errorBody: anthropicError,
  lastUserText: (body) => lastText(body.messages),
}

export const RENDERERS: Readonly<Record<WireFormat, FormatRenderer>> = {
  'openai-responses': responses,
  'openai-chat': chat,
  'anthropic-messages': anthropic,
}

// --- shared

const prefixFirst = (frames: readonly string[], prefix: string): string[] =>
  frames.map((frame, index) => (index === 0 ? prefix + frame : frame))

interface RequestMessage {
  role?: string
  content?: string | readonly { text?: string }[]
}

function lastText(messages: unknown): string {
  const list = (Array.isArray(messages) ? messages : []) as RequestMessage[]
  const content = list.findLast(({ role }) => role === 'user')?.content ?? ''
  return typeof content === 'string' ? content : content.map(({ text }) => text ?? '').join('')
}
