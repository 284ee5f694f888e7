import Anthropic from '@anthropic-ai/sdk'
import type {
  ContentBlockParam,
  MessageCreateParamsStreaming,
  ToolResultBlockParam,
} from '@anthropic-ai/sdk/resources/messages'
import type { MessagePart, ModelMessage, ToolResultPart } from '../protocol/messages.ts'
import { textOf, toStorableText } from '../protocol/messages.ts'
import type { FinishReason, StreamPart } from '../protocol/parts.ts'
import type { Usage } from '../protocol/usage.ts'
import { thinks, toThinkingParams } from './anthropic-thinking.ts'
import type { BlockKind } from './blocks.ts'
import { AnswerBlocks } from './blocks.ts'
import { apiKeyHeader, clientOptions } from './connect.ts'
import type { ModelCall, ModelRequest, StreamModel } from './contract.ts'
import type { FailureContext } from './errors.ts'
import { unofferedToolCall } from './errors.ts'
import { asCount, asRecord, asText } from './outside.ts'
import { ownProviderData, toProviderData } from './provider-data.ts'
import type { EventReader } from './read-stream.ts'
import { readStream } from './read-stream.ts'
import { isToolCall, outputText, repairToolCalls } from './tool-history.ts'
import { highestOf, readUsage } from './reported-usage.ts'
import { estimateUsage } from './usage.ts'

const wireFormat = 'anthropic-messages'

/**
 * Streams a call of Anthropic's Messages endpoint.
 *
 * `connection.baseUrl` may end with the version or not: `https://api.anthropic.com`.
 * Source: https://platform.claude.com/docs/en/build-with-claude/streaming
 */
export const streamAnthropicMessages: StreamModel = (call) =>
  readStream({
    call,
    wireFormat,
    createReader: (context) => new MessagesReader(call.request, context),
    open: (signal) => openMessages(call, signal),
  })

/** The version of 2026-10-21 refuses a temperature, even the default one; the one before it still takes it. */
const API_VERSION = '2026-10-21'
const API_VERSION_WITH_TEMPERATURE = '2023-06-01'

/** The SDK's parameters no longer know it. */
type MessagesParams = MessageCreateParamsStreaming & { temperature?: number }

async function openMessages({ connection, request }: ModelCall, signal: AbortSignal) {
  const params = toParams(request)
  const version = params.temperature === undefined ? API_VERSION : API_VERSION_WITH_TEMPERATURE
  const client = new Anthropic({
    // Anthropic takes the key in either header, most of what speaks its format only in its own.
    ...clientOptions(connection, { ...apiKeyHeader(connection), 'anthropic-version': version }, signal),
    baseURL: connection.baseUrl.replace(/\/v1$/, ''),
    webhookKey: null,
    openTelemetry: false,
  })
  // Not `messages.create`: it writes to the console on each call of a model that it knows to be deprecated.
  return client.post<AsyncIterable<unknown>>('/v1/messages', { body: params, stream: true, signal })
}

function toParams(request: ModelRequest): MessagesParams {
  const thinking = toThinkingParams(request)
  const { model, temperature } = request
  const system = systemOf(request)
  const messages = repairToolCalls(request.messages)
  return {
    model,
    messages: mergeRoles(messages.flatMap((message) => toMessages(message, model))),
    stream: true,
    ...(system !== '' && { system }),
    ...(temperature !== null && !thinks(thinking) && { temperature }),
    ...declareFormerTools(messages),
    ...thinking,
  }
}

/** A conversation with tool calls in it is refused where no tools are declared; these are not to be called any more. */
function declareFormerTools(
  messages: readonly ModelMessage[],
): Pick<MessagesParams, 'tools' | 'tool_choice'> {
  const calls = messages.flatMap(({ parts }) => parts.filter(isToolCall))
  if (calls.length === 0) return {}
  const names = [...new Set(calls.map(({ toolName }) => toolName))]
  const tools = names.map((name) => ({ name, input_schema: { type: 'object' as const } }))
  return { tools, tool_choice: { type: 'none' } }
}

/** All system messages stand at the top: only few models take one among the others. */
const systemOf = ({ system, messages }: ModelRequest): string =>
  [system ?? '', ...messages.filter(isSystem).map(({ parts }) => textOf(parts))].filter(Boolean).join('\n\n')

const isSystem = ({ role }: ModelMessage): boolean => role === 'system'

interface Message {
  role: 'user' | 'assistant'
  content: ContentBlockParam[]
}

function toMessages({ role, parts }: ModelMessage, model: string): Message[] {
  if (role === 'system') return []
  const content = parts.flatMap((part) => toBlocks(part, model))
  const saysSomething = content.some(({ type }) => !type.endsWith('thinking'))
  return saysSomething ? [{ role: role === 'tool' ? 'user' : role, content }] : []
}

/** Roles take turns, and results of tools stand before what the user says next. */
function mergeRoles(messages: readonly Message[]): Message[] {
  const merged: Message[] = []
  for (const message of messages) {
    const last = merged.at(-1)
    if (last?.role === message.role) last.content.push(...message.content)
    else merged.push(message)
  }
  return merged
}

/** Empty text is refused, and thinking without its signature. */
function toBlocks(part: MessagePart, model: string): ContentBlockParam[] {
  if (part.type === 'text') return part.text === '' ? [] : [{ type: 'text', text: part.text }]
  if (part.type === 'tool-call')
    return [{ type: 'tool_use', id: part.toolCallId, name: part.toolName, input: part.input }]
  if (part.type === 'tool-result') return [toResultBlock(part)]
  if (part.type === 'image') return []
  const data = ownProviderData(part, { wireFormat, model })
  if (data === null) return []
  const redacted = asText(data.redacted)
  if (redacted !== '') return [{ type: 'redacted_thinking', data: redacted }]
  return [{ type: 'thinking', thinking: part.text, signature: asText(data.signature) }]
}

const toResultBlock = (result: ToolResultPart): ToolResultBlockParam => ({
  type: 'tool_result',
  tool_use_id: result.toolCallId,
  content: outputText(result),
  is_error: result.isError,
})

const FINISH_REASONS: Readonly<Record<string, FinishReason>> = {
  end_turn: 'stop',
  stop_sequence: 'stop',
  max_tokens: 'length',
  model_context_window_exceeded: 'length',
  refusal: 'refusal',
}

/** A content block while it streams. */
interface ContentBlock {
  kind: BlockKind
  signature: string
  redacted: string
}

class MessagesReader implements EventReader {
  readonly #request: ModelRequest
  readonly #context: FailureContext
  readonly #blocks = new AnswerBlocks()
  readonly #contents = new Map<string, ContentBlock>()
  #stopReason = ''
  #usage: Usage | undefined
  #providerModel = ''
  #responseId = ''

  constructor(request: ModelRequest, context: FailureContext) {
    this.#request = request
    this.#context = context
  }

  *read(raw: unknown): Generator<StreamPart, void> {
    const event = asRecord(raw)
    switch (event.type) {
      case 'message_start': {
        this.#readMessage(asRecord(event.message))
        return
      }
      case 'content_block_start':
        return yield* this.#startBlock(keyOf(event), asRecord(event.content_block))
      case 'content_block_delta':
        return yield* this.#readDelta(keyOf(event), asRecord(event.delta))
      case 'content_block_stop':
        return yield* this.#endBlock(keyOf(event))
      case 'message_delta':
        this.#stopReason = asText(asRecord(event.delta).stop_reason)
        {
          this.#readUsage(event)
          return
        }
      case 'message_stop':
        return yield* this.#finish()
    }
  }

  /** This format has an ending of its own; the body's end is none. */
  end(): StreamPart[] {
    return []
  }

  usage(): Usage | undefined {
    return this.#usage
  }

  #readMessage(message: Record<string, unknown>): void {
    this.#providerModel = toStorableText(asText(message.model))
    this.#responseId = toStorableText(asText(message.id))
    this.#readUsage(message)
  }

  #readUsage(event: Record<string, unknown>): void {
    const reported = readUsage['anthropic-messages'](event.usage)
    const former = this.#usage ?? reported
    if (reported === undefined || former === undefined) return
    this.#usage = highestOf(former, reported)
  }

  *#startBlock(key: string, block: Record<string, unknown>): Generator<StreamPart, void> {
    const type = asText(block.type)
    if (/tool|_result$/.test(type)) throw unofferedToolCall(asText(block.name) || type, this.#context)
    const kind = type === 'text' ? 'text' : 'reasoning'
    const [signature, redacted] = [asText(block.signature), asText(block.data)]
    this.#contents.set(key, { kind, signature, redacted })
    yield* this.#blocks.delta(key, kind, asText(block[kind === 'text' ? 'text' : 'thinking']))
  }

  *#readDelta(key: string, delta: Record<string, unknown>): Generator<StreamPart, void> {
    const content = this.#contents.get(key)
    switch (delta.type) {
      case 'text_delta':
        return yield* this.#blocks.delta(key, 'text', asText(delta.text))
      case 'thinking_delta':
        return yield* this.#blocks.delta(key, 'reasoning', asText(delta.thinking))
      case 'signature_delta':
        if (content !== undefined) content.signature += asText(delta.signature)
    }
  }

  *#endBlock(key: string): Generator<StreamPart, void> {
    const content = this.#contents.get(key)
    if (content === undefined) return
    this.#contents.delete(key)
    yield* this.#blocks.end(key, content.kind, this.#providerDataOf(key, content))
  }

  /** Text that we had to alter no longer fits its signature, and the provider would refuse it. */
  #providerDataOf(
    key: string,
    { kind, signature, redacted }: ContentBlock,
  ): Record<string, unknown> | undefined {
    const origin = { wireFormat, model: this.#request.model } as const
    if (kind === 'text') return undefined
    if (redacted !== '') return toProviderData(origin, { redacted })
    return signature === '' || this.#blocks.isAltered(key) ? undefined : toProviderData(origin, { signature })
  }

  *#finish(): Generator<StreamPart, void> {
    if (this.#stopReason === 'tool_use') throw unofferedToolCall('', this.#context)
    for (const key of [...this.#contents.keys()]) yield* this.#endBlock(key)
    yield {
      type: 'finish',
      reason: FINISH_REASONS[this.#stopReason] ?? 'stop',
      usage: this.#usage ?? estimateUsage(this.#request, this.#blocks.characters),
      ...(this.#providerModel !== '' && { providerModel: this.#providerModel }),
      ...(this.#responseId !== '' && { responseId: this.#responseId }),
    }
  }
}

const keyOf = (event: Record<string, unknown>): string => String(asCount(event.index))
