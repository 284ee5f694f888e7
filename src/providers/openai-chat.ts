import { toStorableText } from '../protocol/messages.ts'
import type { FinishReason } from '../protocol/parts.ts'
import { toParams } from './openai-chat-request.ts'
import type { BlockKind } from './blocks.ts'
import { AnswerBlocks } from './blocks.ts'
import { CallSlots } from './call-slots.ts'
import { argumentsReaderOf } from './computer-actions.ts'
import type { ModelCall, ModelRequest, StreamModel } from './contract.ts'
import type { FailureContext } from './errors.ts'
import { brokenStream, unofferedToolCall } from './errors.ts'
import { createOpenAiClient, openAiErrors } from './openai-client.ts'
import { asList, asRecord, asText, isRecord, lookUp } from './outside.ts'
import { toProviderData } from './provider-data.ts'
import type { EventReader, ReadPart } from './read-stream.ts'
import { readStream } from './read-stream.ts'
import { ToolCalls } from './tool-calls.ts'

const wireFormat = 'openai-chat'

/**
 * Streams a call of an OpenAI Chat Completions endpoint, OpenAI's own or a compatible server's.
 *
 * `connection.baseUrl` includes the version: `https://api.openai.com/v1`.
 * Source: https://platform.openai.com/docs/api-reference/chat-streaming
 */
export const streamOpenAiChat: StreamModel = (call) =>
  readStream({
    call,
    wireFormat,
    createReader: (context) => new ChatReader(call.request, context),
    errors: openAiErrors,
    open: (signal) => openChat(call, signal),
  })

// Not `chat.completions.create`: it throws on a choice that is none.
const openChat = ({ connection, request }: ModelCall, signal: AbortSignal) =>
  createOpenAiClient(connection, signal).post<AsyncIterable<unknown>>('/chat/completions', {
    body: toParams(request),
    stream: true,
    signal,
  })

const FINISH_REASONS: Readonly<Record<string, FinishReason>> = {
  stop: 'stop',
  length: 'length',
  content_filter: 'content_filter',
  tool_calls: 'tool_calls',
}

/** Finish reasons by which compatible servers say that they failed. */
const FAILURES = ['error', 'insufficient_system_resource', 'abort']

class ChatReader implements EventReader {
  readonly #request: ModelRequest
  readonly #context: FailureContext
  readonly #blocks = new AnswerBlocks()
  readonly #calls: ToolCalls
  readonly #slots: CallSlots
  #finishReason: FinishReason | undefined
  #refused = false
  #providerModel = ''
  #responseId = ''

  constructor(request: ModelRequest, context: FailureContext) {
    this.#request = request
    this.#context = context
    this.#calls = new ToolCalls(this.#blocks, context, argumentsReaderOf(request.tools))
    this.#slots = new CallSlots(this.#calls)
  }

  *read(chunk: Record<string, unknown>): Generator<ReadPart, void> {
    this.#providerModel ||= toStorableText(asText(chunk.model))
    this.#responseId ||= toStorableText(asText(chunk.id))
    const [choice] = asList(chunk.choices).map(asRecord)
    if (choice === undefined) return
    yield* this.#readDelta(asRecord(choice.delta))
    this.#readFinishReason(asText(choice.finish_reason))
  }

  /** Usage follows the finish reason in a chunk of its own, and `[DONE]` is hidden by the SDK: the body's end counts. */
  *end(): Generator<ReadPart, void> {
    if (this.#finishReason === undefined) return
    yield* this.#blocks.endAll()
    yield* this.#calls.endAll(this.#finishReason)
    const reason = this.#calls.reasonOf(this.#finishReason)
    yield {
      type: 'finish',
      reason: this.#refused ? 'refusal' : reason,
      ...(this.#providerModel !== '' && { providerModel: this.#providerModel }),
      ...(this.#responseId !== '' && { responseId: this.#responseId }),
    }
  }

  *#readDelta(delta: Record<string, unknown>): Generator<ReadPart, void> {
    this.#refuseCalls(delta)
    // Not OpenAI's, but common: DeepSeek and vLLM say `reasoning_content`, OpenRouter and Ollama `reasoning`.
    yield* this.#append('reasoning', asText(delta.reasoning_content) || asText(delta.reasoning))
    yield* this.#append('text', asText(delta.content))
    const refusal = asText(delta.refusal)
    this.#refused ||= refusal !== ''
    yield* this.#append('text', refusal)
    for (const call of asList(delta.tool_calls).filter(isRecord)) yield* this.#readCall(call)
  }

  /** A call of the deprecated kind stands in the message itself, and could not be answered. */
  #refuseCalls(delta: Record<string, unknown>): void {
    if (isRecord(delta.function_call))
      throw unofferedToolCall(asText(delta.function_call.name), this.#context)
  }

  *#readCall(call: Record<string, unknown>): Generator<ReadPart, void> {
    const { name, arguments: text } = asRecord(call.function)
    const piece = { id: asText(call.id), name: asText(name), text: textOfArguments(text) }
    if (piece.id === '' && piece.name === '' && piece.text === '') return
    yield* this.#blocks.endAll()
    yield* this.#calls.add(this.#slots.keyOf(call.index, piece), { ...piece, ...this.#extraOf(call) })
  }

  #extraOf({ extra_content: extraContent }: Record<string, unknown>) {
    if (!isRecord(extraContent)) return {}
    const origin = { wireFormat, model: this.#request.model } as const
    return { providerData: toProviderData(origin, { extraContent }) }
  }

  *#append(kind: BlockKind, text: string): Generator<ReadPart, void> {
    if (text === '') return
    const other = kind === 'text' ? 'reasoning' : 'text'
    yield* this.#blocks.end(other, other)
    yield* this.#blocks.delta(kind, kind, text)
  }

  #readFinishReason(reason: string): void {
    if (reason === '') return
    if (FAILURES.includes(reason)) throw brokenStream(`ended with finish_reason '${reason}'`, this.#context)
    if (reason === 'function_call') throw unofferedToolCall('', this.#context)
    this.#finishReason ??= lookUp(FINISH_REASONS, reason) ?? 'stop'
  }
}

/** Text by the format; some servers give the object. */
const textOfArguments = (value: unknown): string => (isRecord(value) ? JSON.stringify(value) : asText(value))
