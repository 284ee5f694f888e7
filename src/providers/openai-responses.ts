import { toStorableText } from '../protocol/messages.ts'
import type { FinishReason } from '../protocol/parts.ts'
import { COMPUTER_TOOL } from '../protocol/tools.ts'
import { toParams } from './openai-responses-request.ts'
import { AnswerBlocks } from './blocks.ts'
import { argumentsReaderOf } from './computer-actions.ts'
import type { ModelRequest, StreamModel } from './contract.ts'
import type { FailureContext } from './errors.ts'
import { brokenStream, reportedInEvent } from './errors.ts'
import { createOpenAiClient, openAiErrors } from './openai-client.ts'
import { readComputerCall } from './openai-computer.ts'
import { asCount, asRecord, asText, lookUp } from './outside.ts'
import { toProviderData } from './provider-data.ts'
import type { EventReader, ReadPart } from './read-stream.ts'
import { readStream } from './read-stream.ts'
import { ToolCalls } from './tool-calls.ts'

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
    errors: openAiErrors,
    open: (signal) =>
      createOpenAiClient(call.connection, signal).responses.create(toParams(call.request), { signal }),
  })

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

  constructor(request: ModelRequest, context: FailureContext) {
    this.#request = request
    this.#context = context
    this.#calls = new ToolCalls(this.#blocks, context, argumentsReaderOf(request.tools))
  }

  *read(event: Record<string, unknown>): Generator<ReadPart, void> {
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
        throw reportedInEvent(asRecord(event.response).error, this.#context)
    }
  }

  /** This format has an ending of its own; the body's end is none. */
  end(): ReadPart[] {
    return []
  }

  *#startItem(event: Record<string, unknown>, item: Record<string, unknown>): Generator<ReadPart, void> {
    if (!this.#isOffered(item)) return
    const name = item.type === 'computer_call' ? COMPUTER_TOOL : asText(item.name)
    yield* this.#calls.add(itemKeyOf(event, item), { id: asText(item.call_id), name, text: '' })
  }

  /** Whether an item is a call for us. One that nobody offered is ignored. */
  #isOffered(item: Record<string, unknown>): boolean {
    const { tools } = this.#request
    const type = asText(item.type)
    if (type === 'function_call') return true
    const mayUseComputer = tools.length === 0 || tools.some(({ kind }) => kind === 'computer')
    if (type === 'computer_call' && mayUseComputer) return true
    if (/_call$|^mcp_|^program/.test(type)) this.#calls.ignore(asText(item.name) || type)
    return false
  }

  *#readArguments(key: string, text: string): Generator<ReadPart, void> {
    if (this.#calls.textOf(key) !== undefined) yield* this.#calls.add(key, { id: '', name: '', text })
  }

  /** Adds what did not come in deltas: some servers send none. */
  *#completeArguments(key: string, whole: string): Generator<ReadPart, void> {
    const text = this.#calls.textOf(key)
    if (text !== undefined && whole.length > text.length && whole.startsWith(text))
      yield* this.#readArguments(key, whole.slice(text.length))
  }

  *#endCall(event: Record<string, unknown>, item: Record<string, unknown>): Generator<ReadPart, void> {
    const key = itemKeyOf(event, item)
    yield* this.#startItem(event, item)
    if (item.type === 'computer_call') {
      const { providerData, ...input } = readComputerCall(item, this.#request.model)
      return yield* this.#calls.end(key, input, providerData)
    }
    yield* this.#completeArguments(key, asText(item.arguments))
    yield* this.#calls.settle(key)
  }

  *#separateSummaries(event: Record<string, unknown>): Generator<ReadPart, void> {
    if (asCount(event.summary_index) > 0) yield* this.#blocks.delta(itemKeyOf(event), 'reasoning', '\n\n')
  }

  *#endItem(event: Record<string, unknown>, item: Record<string, unknown>): Generator<ReadPart, void> {
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

  *#finishIncomplete(response: Record<string, unknown>): Generator<ReadPart, void> {
    const why = asText(asRecord(response.incomplete_details).reason)
    const reason = lookUp(INCOMPLETE_REASONS, why)
    if (reason !== undefined) return yield* this.#finish(response, reason)
    throw brokenStream(`gave up its answer as incomplete (${why || 'no reason'})`, this.#context)
  }

  *#finish(response: Record<string, unknown>, reason: FinishReason): Generator<ReadPart, void> {
    yield* this.#blocks.endAll()
    yield* this.#calls.endAll(reason)
    const providerModel = toStorableText(asText(response.model))
    const responseId = toStorableText(asText(response.id))
    yield {
      type: 'finish',
      reason: this.#refused && reason === 'stop' ? 'refusal' : this.#calls.reasonOf(reason),
      ...(providerModel !== '' && { providerModel }),
      ...(responseId !== '' && { responseId }),
    }
  }
}

/** Servers that leave an item's id out still count their items. */
const itemKeyOf = (event: Record<string, unknown>, item: Record<string, unknown> = {}): string =>
  asText(event.item_id) || asText(item.id) || String(asCount(event.output_index))

const contentKeyOf = (event: Record<string, unknown>): string =>
  `${itemKeyOf(event)}/${asCount(event.content_index)}`
