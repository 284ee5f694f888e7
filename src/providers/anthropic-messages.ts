import Anthropic, { APIConnectionError, APIError } from '@anthropic-ai/sdk'
import { toStorableText } from '../protocol/messages.ts'
import type { FinishReason } from '../protocol/parts.ts'
import { COMPUTER_TOOL } from '../protocol/tools.ts'
import type { ComputerUse } from './anthropic-computer.ts'
import { computerBeta, isComputerUse, readComputerUses } from './anthropic-computer.ts'
import { toParams } from './anthropic-request.ts'
import type { BlockKind } from './blocks.ts'
import { AnswerBlocks } from './blocks.ts'
import { apiKeyHeader, clientOptions } from './connect.ts'
import type { ModelCall, ModelRequest, StreamModel } from './contract.ts'
import type { FailureContext } from './errors.ts'
import { asCount, asRecord, asText, lookUp } from './outside.ts'
import { toProviderData } from './provider-data.ts'
import type { EventReader, ReadPart } from './read-stream.ts'
import { readStream } from './read-stream.ts'
import { cutOffInput, ToolCalls } from './tool-calls.ts'
import type { NativeInput } from './tool-input.ts'

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
    errors: { APIError, APIConnectionError },
    open: (signal) => openMessages(call, signal),
  })

/** The version of 2026-10-21 refuses a temperature, even the default one; the one before it still takes it. */
const API_VERSION = '2026-10-21'
const API_VERSION_WITH_TEMPERATURE = '2023-06-01'

async function openMessages({ connection, request }: ModelCall, signal: AbortSignal) {
  const params = toParams(request)
  const version = params.temperature === undefined ? API_VERSION : API_VERSION_WITH_TEMPERATURE
  const headers = { 'anthropic-version': version, ...computerBeta(request) }
  const client = new Anthropic({
    // Anthropic takes the key in either header, most of what speaks its format only in its own.
    ...clientOptions(connection, { ...apiKeyHeader(connection), ...headers }, signal),
    baseURL: connection.baseUrl.replace(/\/v1$/, ''),
    webhookKey: null,
    openTelemetry: false,
  })
  // Not `messages.create`: it writes to the console on each call of a model that it knows to be deprecated.
  return client.post<AsyncIterable<unknown>>('/v1/messages', { body: params, stream: true, signal })
}

const FINISH_REASONS: Readonly<Record<string, FinishReason>> = {
  end_turn: 'stop',
  stop_sequence: 'stop',
  max_tokens: 'length',
  model_context_window_exceeded: 'length',
  refusal: 'refusal',
  tool_use: 'tool_calls',
  // A tool that the provider runs itself is not done yet.
  pause_turn: 'tool_calls',
}

/** A content block of text or thinking while it streams. */
interface ContentBlock {
  kind: BlockKind
  signature: string
  redacted: string
}

const BLOCK_KINDS: Readonly<Record<string, BlockKind>> = {
  text: 'text',
  thinking: 'reasoning',
  redacted_thinking: 'reasoning',
}

/** Uses of the computer in a row, which are one call, by the keys of their blocks. */
interface ComputerCall {
  key: string
  uses: Map<string, ComputerUse>
}

class MessagesReader implements EventReader {
  readonly #request: ModelRequest
  readonly #blocks = new AnswerBlocks()
  readonly #contents = new Map<string, ContentBlock>()
  readonly #calls: ToolCalls
  #computer: ComputerCall | null = null
  #stopReason = ''
  #providerModel = ''
  #responseId = ''

  constructor(request: ModelRequest, context: FailureContext) {
    this.#request = request
    this.#calls = new ToolCalls(this.#blocks, context, (_name, input) => ({ input }))
  }

  *read(event: Record<string, unknown>): Generator<ReadPart, void> {
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
        return
      case 'message_stop':
        return yield* this.#finish()
    }
  }

  /** This format has an ending of its own; the body's end is none. */
  end(): ReadPart[] {
    return []
  }

  #readMessage(message: Record<string, unknown>): void {
    this.#providerModel = toStorableText(asText(message.model))
    this.#responseId = toStorableText(asText(message.id))
  }

  *#startBlock(key: string, block: Record<string, unknown>): Generator<ReadPart, void> {
    const { tools } = this.#request
    const type = asText(block.type)
    const isCall = type === 'tool_use'
    if (!isCall && /tool|_result$/.test(type)) this.#calls.ignore(asText(block.name) || type)
    if (isCall && isComputerUse(block) && tools.some((tool) => tool.kind === 'computer'))
      return yield* this.#startComputerUse(key, block)
    yield* this.#endComputerCall()
    if (isCall) return yield* this.#startCall(key, block)
    const kind = lookUp(BLOCK_KINDS, type)
    if (kind === undefined) return
    const [signature, redacted] = [asText(block.signature), asText(block.data)]
    this.#contents.set(key, { kind, signature, redacted })
    yield* this.#blocks.delta(key, kind, asText(block[kind === 'text' ? 'text' : 'thinking']))
  }

  #startCall(key: string, block: Record<string, unknown>): Generator<ReadPart, void> {
    const piece = { id: asText(block.id), name: asText(block.name), text: inputTextOf(block) }
    return this.#calls.add(key, piece)
  }

  *#startComputerUse(key: string, block: Record<string, unknown>): Generator<ReadPart, void> {
    const id = asText(block.id)
    if (this.#computer === null) {
      this.#computer = { key, uses: new Map() }
      yield* this.#calls.add(key, { id, name: COMPUTER_TOOL, text: '' })
    }
    this.#computer.uses.set(key, { id, name: asText(block.name), text: inputTextOf(block) })
  }

  *#readDelta(key: string, delta: Record<string, unknown>): Generator<ReadPart, void> {
    const content = this.#contents.get(key)
    switch (delta.type) {
      case 'text_delta':
        return yield* this.#blocks.delta(key, 'text', asText(delta.text))
      case 'thinking_delta':
        return yield* this.#blocks.delta(key, 'reasoning', asText(delta.thinking))
      case 'input_json_delta':
        return yield* this.#readInput(key, asText(delta.partial_json))
      case 'signature_delta':
        if (content !== undefined) content.signature += asText(delta.signature)
    }
  }

  *#readInput(key: string, text: string): Generator<ReadPart, void> {
    const use = this.#computer?.uses.get(key)
    if (use !== undefined) use.text += text
    else if (this.#calls.textOf(key) !== undefined) yield* this.#calls.add(key, { id: '', name: '', text })
  }

  *#endComputerCall(reason: FinishReason = 'stop'): Generator<ReadPart, void> {
    if (this.#computer === null) return
    const { key } = this.#computer
    const uses = [...this.#computer.uses.values()]
    this.#computer = null
    const cutOff = cutOffInput(uses.at(-1)?.text ?? '', reason)
    const { providerData, ...input }: NativeInput = cutOff ?? readComputerUses(uses, this.#request)
    yield* this.#calls.end(key, input, providerData)
  }

  *#endBlock(key: string): Generator<ReadPart, void> {
    yield* this.#calls.settle(key)
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

  *#finish(): Generator<ReadPart, void> {
    for (const key of [...this.#contents.keys()]) yield* this.#endBlock(key)
    const reason = lookUp(FINISH_REASONS, this.#stopReason) ?? 'stop'
    yield* this.#endComputerCall(reason)
    yield* this.#calls.endAll(reason)
    yield {
      type: 'finish',
      reason: this.#calls.reasonOf(reason),
      ...(this.#providerModel !== '' && { providerModel: this.#providerModel }),
      ...(this.#responseId !== '' && { responseId: this.#responseId }),
    }
  }
}

const keyOf = (event: Record<string, unknown>): string => String(asCount(event.index))

/** The input is empty where it streams; servers that do not stream it give it whole. */
function inputTextOf({ input }: Record<string, unknown>): string {
  return Object.keys(asRecord(input)).length === 0 ? '' : JSON.stringify(input)
}
