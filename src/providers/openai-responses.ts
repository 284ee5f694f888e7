import type {
  ResponseCreateParamsStreaming,
  ResponseInputItem,
  ResponseReasoningItem,
  Tool,
} from 'openai/resources/responses/responses'
import type {
  ImagePart,
  MessagePart,
  ModelMessage,
  ReasoningPart,
  ToolCallPart,
  ToolResultPart,
} from '../protocol/messages.ts'
import { toStorableText } from '../protocol/messages.ts'
import type { FinishReason, StreamPart } from '../protocol/parts.ts'
import type { ToolDefinition } from '../protocol/tools.ts'
import { COMPUTER_TOOL } from '../protocol/tools.ts'
import type { Usage } from '../protocol/usage.ts'
import { AnswerBlocks } from './blocks.ts'
import { argumentsReaderOf } from './computer-actions.ts'
import { toFunctionTool } from './computer-function.ts'
import type { ModelRequest, StreamModel } from './contract.ts'
import type { FailureContext } from './errors.ts'
import { brokenStream, reportedInEvent, unofferedToolCall } from './errors.ts'
import { hasImages, IMAGE_GONE, isShown, toDataUrl } from './images.ts'
import { createOpenAiClient } from './openai-client.ts'
import type { NativeCalls } from './openai-computer.ts'
import {
  nativeCallsOf,
  nativeComputerOf,
  readComputerCall,
  toComputerCall,
  toComputerOutput,
  toNativeTool,
} from './openai-computer.ts'
import { asCount, asRecord, asText } from './outside.ts'
import { ownProviderData, toProviderData } from './provider-data.ts'
import type { EventReader } from './read-stream.ts'
import { readStream } from './read-stream.ts'
import { ToolCalls } from './tool-calls.ts'
import { outputText, repairToolCalls } from './tool-history.ts'
import { schemaOf } from './tool-schema.ts'
import { readUsage } from './reported-usage.ts'
import { estimateUsage } from './usage.ts'

const wireFormat = 'openai-responses'

/**
 * Streams a call of OpenAI's Responses endpoint. Nothing is stored there: history is ours, and reasoning comes back to
 * the provider as the encrypted content it gave.
 *
 * `connection.baseUrl` includes the version: `https://api.openai.com/v1`.
 * Source: https://platform.openai.com/docs/api-reference/responses-streaming
 */
export const streamOpenAiResponses: StreamModel = (call) =>
  readStream({
    call,
    wireFormat,
    createReader: (context) => new ResponsesReader(call.request, context),
    open: (signal) =>
      createOpenAiClient(call.connection, signal).responses.create(toParams(call.request), { signal }),
  })

function toParams(request: ModelRequest): ResponseCreateParamsStreaming {
  const { model, system, maxOutputTokens, temperature } = request
  const reasons = request.reasoningEffort !== null && request.reasoningEffort !== 'none'
  const messages = repairToolCalls(request.messages)
  const target = { model, native: nativeCallsOf(request, messages) }
  return {
    model,
    input: messages.flatMap((message) => toInputItems(message, target)),
    stream: true,
    store: false,
    ...(system !== null && { instructions: system }),
    ...(maxOutputTokens !== null && { max_output_tokens: maxOutputTokens }),
    // Reasoning models refuse a temperature while they reason.
    ...(temperature !== null && !reasons && { temperature }),
    ...toReasoningParams(request),
    ...toToolParams(request),
  }
}

/** The preview of the computer tool demands that the conversation may be shortened; the others have deprecated it. */
function toToolParams({ tools, model }: ModelRequest): { tools?: Tool[]; truncation?: 'auto' } {
  if (tools.length === 0) return {}
  const given = tools.map((tool) => toTool(tool, model))
  const isPreview = given.some(({ type }) => type === 'computer_use_preview')
  return { tools: given, ...(isPreview && { truncation: 'auto' }) }
}

function toTool(tool: ToolDefinition, model: string): Tool {
  const native = nativeComputerOf(model)
  if (tool.kind === 'computer' && native !== null) return toNativeTool(tool, native)
  const { name, description, ...rest } = tool.kind === 'computer' ? toFunctionTool(tool) : tool
  // Strict schemas are a dialect that few of the tools' own schemas keep to.
  return { type: 'function', name, description, parameters: schemaOf(rest), strict: false }
}

/** Models that do not reason refuse all of these, so they are named only where an effort was chosen. */
function toReasoningParams({
  reasoningEffort,
}: ModelRequest): Pick<ResponseCreateParamsStreaming, 'reasoning' | 'include'> {
  if (reasoningEffort === null) return {}
  if (reasoningEffort === 'none') return { reasoning: { effort: 'none' } }
  return {
    reasoning: { effort: reasoningEffort, summary: 'auto' },
    include: ['reasoning.encrypted_content'],
  }
}

/** What decides on the form in which a part goes back. */
interface Target {
  model: string
  native: NativeCalls
}

/** In the order of the parts: an item of reasoning must be followed by the item it led to. */
function toInputItems({ role, parts }: ModelMessage, target: Target): ResponseInputItem[] {
  if (role === 'user' && parts.some(({ type }) => type === 'image'))
    return [{ role, content: parts.flatMap(toContent) }]
  const items = joinTexts(parts).flatMap((part) => toItems(part, role, target))
  return items.slice(0, items.findLastIndex((item) => item.type !== 'reasoning') + 1)
}

/** Neighbouring texts are one item. */
function joinTexts(parts: readonly MessagePart[]): MessagePart[] {
  const joined: MessagePart[] = []
  for (const part of parts) {
    const last = joined.at(-1)
    if (part.type === 'text' && last?.type === 'text')
      joined[joined.length - 1] = { type: 'text', text: last.text + part.text }
    else joined.push(part)
  }
  return joined
}

function toItems(part: MessagePart, role: ModelMessage['role'], target: Target): ResponseInputItem[] {
  switch (part.type) {
    case 'reasoning':
      return toReasoningItems(part, target.model)
    case 'tool-call':
      return [toCallItem(part, target.native)]
    case 'tool-result':
      return [toResultItem(part, target.native)]
    case 'image':
      return []
    case 'text':
      return part.text === '' || role === 'tool' ? [] : [{ role, content: part.text }]
  }
}

function toCallItem(call: ToolCallPart, native: NativeCalls): ResponseInputItem {
  const computer = native.get(call.toolCallId)
  if (computer !== undefined) return toComputerCall(call, computer)
  const { toolCallId: call_id, toolName: name, input } = call
  return { type: 'function_call', call_id, name, arguments: JSON.stringify(input) }
}

function toResultItem(result: ToolResultPart, native: NativeCalls): ResponseInputItem {
  const computer = native.get(result.toolCallId)
  if (computer !== undefined) return toComputerOutput(result, computer)
  const text = outputText(result)
  const { images = [] } = result
  const output = hasImages(result) ? [...toTexts(text), ...images.map(toImage)] : text
  return { type: 'function_call_output', call_id: result.toolCallId, output }
}

function toContent(part: MessagePart): (TextContent | ImageContent)[] {
  if (part.type === 'image') return [toImage(part)]
  return part.type === 'text' ? toTexts(part.text) : []
}

interface TextContent {
  type: 'input_text'
  text: string
}

interface ImageContent {
  type: 'input_image'
  image_url: string
  detail: 'auto'
}

const toTexts = (text: string): TextContent[] => (text === '' ? [] : [{ type: 'input_text', text }])

const toImage = (image: ImagePart): TextContent | ImageContent =>
  isShown(image)
    ? { type: 'input_image', image_url: toDataUrl(image), detail: 'auto' }
    : { type: 'input_text', text: IMAGE_GONE }

function toReasoningItems(part: ReasoningPart, model: string): ResponseReasoningItem[] {
  const data = ownProviderData(part, { wireFormat, model })
  if (data === null) return []
  const summary = part.text === '' ? [] : [{ type: 'summary_text' as const, text: part.text }]
  return [
    {
      type: 'reasoning',
      id: asText(data.itemId),
      encrypted_content: asText(data.encryptedContent),
      summary,
    },
  ]
}

const INCOMPLETE_REASONS: Readonly<Record<string, FinishReason>> = {
  max_output_tokens: 'length',
  content_filter: 'content_filter',
}

class ResponsesReader implements EventReader {
  readonly #request: ModelRequest
  readonly #context: FailureContext
  readonly #blocks = new AnswerBlocks()
  readonly #calls: ToolCalls
  #refused = false
  #usage: Usage | undefined

  constructor(request: ModelRequest, context: FailureContext) {
    this.#request = request
    this.#context = context
    this.#calls = new ToolCalls(this.#blocks, context, argumentsReaderOf(request.tools))
  }

  *read(raw: unknown): Generator<StreamPart, void> {
    const event = asRecord(raw)
    switch (event.type) {
      case 'response.output_item.added':
        return yield* this.#startItem(event, asRecord(event.item))
      case 'response.function_call_arguments.delta':
        return yield* this.#readArguments(itemKeyOf(event), asText(event.delta))
      case 'response.function_call_arguments.done':
        return yield* this.#completeArguments(itemKeyOf(event), asText(event.arguments))
      case 'response.output_text.delta':
        return yield* this.#blocks.delta(contentKeyOf(event), 'text', asText(event.delta))
      case 'response.refusal.delta':
        this.#refused = true
        return yield* this.#blocks.delta(contentKeyOf(event), 'text', asText(event.delta))
      case 'response.content_part.done':
        return yield* this.#blocks.end(contentKeyOf(event), 'text')
      case 'response.reasoning_summary_part.added':
        return yield* this.#separateSummaries(event)
      case 'response.reasoning_summary_text.delta':
      case 'response.reasoning_text.delta':
        return yield* this.#blocks.delta(itemKeyOf(event), 'reasoning', asText(event.delta))
      case 'response.output_item.done':
        return yield* this.#endItem(event, asRecord(event.item))
      case 'response.completed':
        return yield* this.#finish(asRecord(event.response), 'stop')
      case 'response.incomplete':
        return yield* this.#finishIncomplete(asRecord(event.response))
      case 'response.failed':
        throw this.#failed(asRecord(event.response))
    }
  }

  /** This format has an ending of its own; the body's end is none. */
  end(): StreamPart[] {
    return []
  }

  usage(): Usage | undefined {
    return this.#usage
  }

  *#startItem(event: Record<string, unknown>, item: Record<string, unknown>): Generator<StreamPart, void> {
    if (!this.#isOffered(item)) return
    const name = item.type === 'computer_call' ? COMPUTER_TOOL : asText(item.name)
    yield* this.#calls.add(itemKeyOf(event, item), { id: asText(item.call_id), name, text: '' })
  }

  /**
   * Whether an item is a call for us.
   *
   * @throws {TurnmillError} for one that nobody offered.
   */
  #isOffered(item: Record<string, unknown>): boolean {
    const { tools } = this.#request
    const type = asText(item.type)
    if (type === 'function_call' && tools.length > 0) return true
    if (type === 'computer_call' && tools.some(({ kind }) => kind === 'computer')) return true
    if (!/_call$|^mcp_|^program/.test(type)) return false
    throw unofferedToolCall(asText(item.name) || type, tools, this.#context)
  }

  *#readArguments(key: string, text: string): Generator<StreamPart, void> {
    if (this.#calls.textOf(key) !== undefined) yield* this.#calls.add(key, { id: '', name: '', text })
  }

  /** Adds what did not come in deltas: some servers send none. */
  *#completeArguments(key: string, whole: string): Generator<StreamPart, void> {
    const text = this.#calls.textOf(key)
    if (text !== undefined && whole.startsWith(text))
      yield* this.#readArguments(key, whole.slice(text.length))
  }

  *#endCall(event: Record<string, unknown>, item: Record<string, unknown>): Generator<StreamPart, void> {
    const key = itemKeyOf(event, item)
    yield* this.#startItem(event, item)
    if (item.type === 'computer_call') {
      const { providerData, ...input } = readComputerCall(item, this.#request.model)
      return yield* this.#calls.end(key, input, providerData)
    }
    yield* this.#completeArguments(key, asText(item.arguments))
    yield* this.#calls.settle(key)
  }

  *#separateSummaries(event: Record<string, unknown>): Generator<StreamPart, void> {
    if (asCount(event.summary_index) > 0) yield* this.#blocks.delta(itemKeyOf(event), 'reasoning', '\n\n')
  }

  *#endItem(event: Record<string, unknown>, item: Record<string, unknown>): Generator<StreamPart, void> {
    if (this.#isOffered(item)) return yield* this.#endCall(event, item)
    if (item.type !== 'reasoning') return
    const itemId = asText(item.id)
    const encryptedContent = asText(item.encrypted_content)
    // Without its encrypted content the provider could not find the item again: nothing is stored there.
    const isUsable = itemId !== '' && encryptedContent !== ''
    const origin = { wireFormat, model: this.#request.model } as const
    const data = isUsable ? toProviderData(origin, { itemId, encryptedContent }) : undefined
    yield* this.#blocks.end(itemId, 'reasoning', data)
  }

  *#finishIncomplete(response: Record<string, unknown>): Generator<StreamPart, void> {
    const why = asText(asRecord(response.incomplete_details).reason)
    const reason = INCOMPLETE_REASONS[why]
    if (reason !== undefined) return yield* this.#finish(response, reason)
    this.#readUsage(response)
    throw brokenStream(`gave up its answer as incomplete (${why || 'no reason'})`, this.#context)
  }

  *#finish(response: Record<string, unknown>, reason: FinishReason): Generator<StreamPart, void> {
    this.#readUsage(response)
    yield* this.#blocks.endAll()
    yield* this.#calls.endAll(reason)
    const providerModel = toStorableText(asText(response.model))
    const responseId = toStorableText(asText(response.id))
    yield {
      type: 'finish',
      reason: this.#refused && reason === 'stop' ? 'refusal' : this.#calls.reasonOf(reason),
      usage: this.#usage ?? estimateUsage(this.#request, this.#blocks.characters + this.#calls.characters),
      ...(providerModel !== '' && { providerModel }),
      ...(responseId !== '' && { responseId }),
    }
  }

  #failed(response: Record<string, unknown>): Error {
    this.#readUsage(response)
    return reportedInEvent(response.error, this.#context)
  }

  #readUsage({ usage }: Record<string, unknown>): void {
    this.#usage = readUsage['openai-responses'](usage) ?? this.#usage
  }
}

/** Servers that leave an item's id out still count their items. */
const itemKeyOf = (event: Record<string, unknown>, item: Record<string, unknown> = {}): string =>
  asText(event.item_id) || asText(item.id) || String(asCount(event.output_index))

const contentKeyOf = (event: Record<string, unknown>): string =>
  `${itemKeyOf(event)}/${asCount(event.content_index)}`
