import type {
  ChatCompletionCreateParamsStreaming,
  ChatCompletionMessageFunctionToolCall,
  ChatCompletionMessageParam,
} from 'openai/resources/chat/completions'
import type { ModelMessage, ToolCallPart, ToolResultPart } from '../protocol/messages.ts'
import { textOf, toStorableText } from '../protocol/messages.ts'
import type { FinishReason, StreamPart } from '../protocol/parts.ts'
import type { Usage } from '../protocol/usage.ts'
import type { BlockKind } from './blocks.ts'
import { AnswerBlocks } from './blocks.ts'
import type { ModelRequest, StreamModel } from './contract.ts'
import type { FailureContext } from './errors.ts'
import { brokenStream, unofferedToolCall } from './errors.ts'
import { createOpenAiClient } from './openai-client.ts'
import { asList, asRecord, asText, isRecord } from './outside.ts'
import type { EventReader } from './read-stream.ts'
import { readStream } from './read-stream.ts'
import { isToolCall, isToolResult, outputText, repairToolCalls } from './tool-history.ts'
import { readUsage } from './reported-usage.ts'
import { estimateUsage } from './usage.ts'

/**
 * Streams a call of an OpenAI Chat Completions endpoint, OpenAI's own or a compatible server's.
 *
 * `connection.baseUrl` includes the version: `https://api.openai.com/v1`.
 * Source: https://platform.openai.com/docs/api-reference/chat-streaming
 */
export const streamOpenAiChat: StreamModel = (call) =>
  readStream({
    call,
    wireFormat: 'openai-chat',
    createReader: (context) => new ChatReader(call.request, context),
    open: (signal) =>
      createOpenAiClient(call.connection, signal).chat.completions.create(toParams(call.request), { signal }),
  })

function toParams(request: ModelRequest): ChatCompletionCreateParamsStreaming {
  const { model, maxOutputTokens, temperature, reasoningEffort } = request
  return {
    model,
    messages: toMessages(request),
    stream: true,
    stream_options: { include_usage: true },
    ...(maxOutputTokens !== null && { [outputLimitName(model)]: maxOutputTokens }),
    ...(temperature !== null && { temperature }),
    ...(reasoningEffort !== null && { reasoning_effort: reasoningEffort }),
  }
}

/** OpenAI's newer models refuse the old name, compatible servers may not know the new one. */
const outputLimitName = (model: string): 'max_completion_tokens' | 'max_tokens' =>
  /(^|\/)(gpt-|chatgpt-|codex-|o\d)/.test(model) ? 'max_completion_tokens' : 'max_tokens'

function toMessages({ system, messages }: ModelRequest): ChatCompletionMessageParam[] {
  const opening: ChatCompletionMessageParam[] = system === null ? [] : [{ role: 'system', content: system }]
  return [...opening, ...repairToolCalls(messages).flatMap(toMessage)]
}

/** Empty messages are left out; a tool's results are a message each. */
function toMessage({ role, parts }: ModelMessage): ChatCompletionMessageParam[] {
  if (role === 'tool') return parts.filter(isToolResult).map(toToolMessage)
  const content = textOf(parts)
  const calls = parts.filter(isToolCall).map(toToolCall)
  if (calls.length > 0) return [{ role: 'assistant', content: content || null, tool_calls: calls }]
  return content === '' ? [] : [{ role, content }]
}

const toToolCall = (call: ToolCallPart): ChatCompletionMessageFunctionToolCall => ({
  id: call.toolCallId,
  type: 'function',
  function: { name: call.toolName, arguments: JSON.stringify(call.input) },
})

const toToolMessage = (result: ToolResultPart): ChatCompletionMessageParam => ({
  role: 'tool',
  tool_call_id: result.toolCallId,
  content: outputText(result),
})

const FINISH_REASONS: Readonly<Record<string, FinishReason>> = {
  stop: 'stop',
  length: 'length',
  content_filter: 'content_filter',
}

/** Finish reasons by which compatible servers say that they failed. */
const FAILURES = ['error', 'insufficient_system_resource', 'abort']

class ChatReader implements EventReader {
  readonly #request: ModelRequest
  readonly #context: FailureContext
  readonly #blocks = new AnswerBlocks()
  #finishReason: FinishReason | undefined
  #refused = false
  #usage: Usage | undefined
  #providerModel = ''
  #responseId = ''

  constructor(request: ModelRequest, context: FailureContext) {
    this.#request = request
    this.#context = context
  }

  *read(event: unknown): Generator<StreamPart, void> {
    const chunk = asRecord(event)
    this.#providerModel ||= toStorableText(asText(chunk.model))
    this.#responseId ||= toStorableText(asText(chunk.id))
    this.#usage = readUsage['openai-chat'](chunk.usage) ?? this.#usage
    const [choice] = asList(chunk.choices).map(asRecord)
    if (choice === undefined) return
    yield* this.#readDelta(asRecord(choice.delta))
    this.#readFinishReason(asText(choice.finish_reason))
  }

  /** Usage follows the finish reason in a chunk of its own, and `[DONE]` is hidden by the SDK: the body's end counts. */
  *end(): Generator<StreamPart, void> {
    if (this.#finishReason === undefined) return
    yield* this.#blocks.endAll()
    yield {
      type: 'finish',
      reason: this.#refused ? 'refusal' : this.#finishReason,
      usage: this.#usage ?? estimateUsage(this.#request, this.#blocks.characters),
      ...(this.#providerModel !== '' && { providerModel: this.#providerModel }),
      ...(this.#responseId !== '' && { responseId: this.#responseId }),
    }
  }

  usage(): Usage | undefined {
    return this.#usage
  }

  *#readDelta(delta: Record<string, unknown>): Generator<StreamPart, void> {
    this.#refuseToolCall(delta)
    // Not OpenAI's, but common: DeepSeek and vLLM say `reasoning_content`, OpenRouter and Ollama `reasoning`.
    yield* this.#append('reasoning', asText(delta.reasoning_content) || asText(delta.reasoning))
    yield* this.#append('text', asText(delta.content))
    const refusal = asText(delta.refusal)
    this.#refused ||= refusal !== ''
    yield* this.#append('text', refusal)
  }

  #refuseToolCall(delta: Record<string, unknown>): void {
    const [call] = [...asList(delta.tool_calls), delta.function_call].filter(isRecord)
    if (call !== undefined) throw unofferedToolCall(nameOf(call), this.#context)
  }

  *#append(kind: BlockKind, text: string): Generator<StreamPart, void> {
    if (text === '') return
    const other = kind === 'text' ? 'reasoning' : 'text'
    yield* this.#blocks.end(other, other)
    yield* this.#blocks.delta(kind, kind, text)
  }

  #readFinishReason(reason: string): void {
    if (reason === '') return
    if (FAILURES.includes(reason)) throw brokenStream(`ended with finish_reason '${reason}'`, this.#context)
    if (/^(tool_calls|function_call)$/.test(reason)) throw unofferedToolCall('', this.#context)
    this.#finishReason ??= FINISH_REASONS[reason] ?? 'stop'
  }
}

/** New calls hold their name in `function`, those of the deprecated kind themselves. */
const nameOf = (call: Record<string, unknown>): string => asText(asRecord(call.function ?? call).name)
