import type {
  ResponseCreateParamsStreaming,
  ResponseInputItem,
  ResponseReasoningItem,
} from 'openai/resources/responses/responses'
import type { MessagePart, ModelMessage, ReasoningPart } from '../protocol/messages.ts'
import { toStorableText } from '../protocol/messages.ts'
import type { FinishReason, StreamPart } from '../protocol/parts.ts'
import type { Usage } from '../protocol/usage.ts'
import { AnswerBlocks } from './blocks.ts'
import type { ModelRequest, StreamModel } from './contract.ts'
import type { FailureContext } from './errors.ts'
import { brokenStream, reportedInEvent, unofferedToolCall } from './errors.ts'
import { createOpenAiClient } from './openai-client.ts'
import { asCount, asRecord, asText } from './outside.ts'
import { ownProviderData, toProviderData } from './provider-data.ts'
import type { EventReader } from './read-stream.ts'
import { readStream } from './read-stream.ts'
import { outputText, repairToolCalls } from './tool-history.ts'
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
  return {
    model,
    input: repairToolCalls(request.messages).flatMap((message) => toInputItems(message, model)),
    stream: true,
    store: false,
    ...(system !== null && { instructions: system }),
    ...(maxOutputTokens !== null && { max_output_tokens: maxOutputTokens }),
    // Reasoning models refuse a temperature while they reason.
    ...(temperature !== null && !reasons && { temperature }),
    ...toReasoningParams(request),
  }
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

/** In the order of the parts: an item of reasoning must be followed by the item it led to. */
function toInputItems({ role, parts }: ModelMessage, model: string): ResponseInputItem[] {
  const items = joinTexts(parts).flatMap((part) => toItems(part, role, model))
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

function toItems(part: MessagePart, role: ModelMessage['role'], model: string): ResponseInputItem[] {
  if (part.type === 'reasoning') return toReasoningItems(part, model)
  if (part.type === 'tool-call')
    return [{ type: 'function_call', call_id: part.toolCallId, name: part.toolName, arguments: JSON.stringify(part.input) }] // prettier-ignore
  if (part.type === 'tool-result')
    return [{ type: 'function_call_output', call_id: part.toolCallId, output: outputText(part) }]
  if (part.type === 'image') return []
  return part.text === '' || role === 'tool' ? [] : [{ role, content: part.text }]
}

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
  #refused = false
  #usage: Usage | undefined

  constructor(request: ModelRequest, context: FailureContext) {
    this.#request = request
    this.#context = context
  }

  *read(raw: unknown): Generator<StreamPart, void> {
    const event = asRecord(raw)
    switch (event.type) {
      case 'response.output_item.added': {
        this.#refuseToolCall(asRecord(event.item))
        return
      }
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
        return yield* this.#endItem(asRecord(event.item))
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

  #refuseToolCall(item: Record<string, unknown>): void {
    const type = asText(item.type)
    if (/_call$|^mcp_|^program/.test(type)) throw unofferedToolCall(asText(item.name) || type, this.#context)
  }

  *#separateSummaries(event: Record<string, unknown>): Generator<StreamPart, void> {
    if (asCount(event.summary_index) > 0) yield* this.#blocks.delta(itemKeyOf(event), 'reasoning', '\n\n')
  }

  *#endItem(item: Record<string, unknown>): Generator<StreamPart, void> {
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
    yield* this.#blocks.endAll()
    this.#readUsage(response)
    const providerModel = toStorableText(asText(response.model))
    const responseId = toStorableText(asText(response.id))
    yield {
      type: 'finish',
      reason: this.#refused && reason === 'stop' ? 'refusal' : reason,
      usage: this.#usage ?? estimateUsage(this.#request, this.#blocks.characters),
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

const itemKeyOf = (event: Record<string, unknown>): string => asText(event.item_id)

const contentKeyOf = (event: Record<string, unknown>): string =>
  `${itemKeyOf(event)}/${asCount(event.content_index)}`
