import { createParser } from 'eventsource-parser'
import { asList, asRecord, asText, countTokens, UsageTally } from '../providers/index.ts'
import { toStorableText } from '../protocol/messages.ts'
import type { WireFormat } from '../protocol/routes.ts'

export interface ToolAsked {
  callId: string
  name: string
}

/** Reads what an answer used and asked for while it passes. */
export interface Meter {
  /** Bytes of the answer, decoded; borders may fall anywhere. */
  read(chunk: Uint8Array): void
  /** All has been read. */
  end(): void
  /** What it used; `null` for what is no model's answer. */
  usage: UsageTally | null
  tools(): readonly ToolAsked[]
}

const NOTHING: Meter = {
  read: () => undefined,
  end: () => undefined,
  usage: null,
  tools: () => [],
}

/** Calls beyond this are not written down. */
const MAX_TOOLS = 200

export const createMeter = (wireFormat: WireFormat | null, contentType: string): Meter =>
  wireFormat === null ? NOTHING : createCallMeter(wireFormat, contentType)

function createCallMeter(wireFormat: WireFormat, contentType: string): Meter {
  const tools = new Map<string, ToolAsked>()
  const usage = new UsageTally(wireFormat)
  const take = (value: Record<string, unknown>): void => {
    usage.read(value)
    for (const tool of TOOLS_OF[wireFormat](value)) note(tools, tool)
  }
  const readings = { usage, tools: () => [...tools.values()] }
  const decoder = new TextDecoder()
  const parser = createParser({
    onEvent: ({ data }) => {
      // Most events are a few characters of text, and there are many.
      take(TELLING.test(data) ? parse(data) : NO_EVENT)
      usage.pass(countText(wireFormat, data))
    },
  })
  // The last event counts, also without the empty line behind it.
  const endEvents = (): void => parser.feed('\n\n')
  if (contentType.includes('text/event-stream'))
    return {
      ...readings,
      read: (chunk) => parser.feed(decoder.decode(chunk, { stream: true })),
      end: endEvents,
    }
  let text = ''
  return {
    ...readings,
    read: (chunk) => void (text += decoder.decode(chunk, { stream: true })),
    end: () => {
      // Some servers call their events by another type.
      if (EVENTS.test(text)) {
        parser.feed(text)
        endEvents()
        return
      }
      usage.pass(countTokens(text))
      if (/^\s*[{[]/.test(text)) take(parse(text))
    },
  }
}

const EVENTS = /^\uFEFF?(?:[:\n\r]|(?:data|event|id|retry):)/

/** An event that holds more than a piece of text, or letters that are written as escapes. */
const TELLING =
  /"usage"\s*:\s*\{|tool|function|computer_call|message_stop|response\.(?:completed|incomplete|failed)|\\u00[4-7]/

const NO_EVENT: Record<string, unknown> = Object.freeze({})

/** Fields of an event in which an answer passes, piece by piece. */
const PIECE =
  /"(?:content|reasoning|reasoning_content|refusal|delta|text|thinking|partial_json|arguments)"\s*:\s*"((?:[^"\\]|\\.)*)"/g

/** A longer event is counted whole. */
const MAX_EVENT = 1_000_000

/** Without parsing each event: this only matters where an answer breaks off. */
function countText(wireFormat: WireFormat, data: string): number {
  // The other events of these formats repeat what has passed.
  if (wireFormat !== 'openai-chat' && !/[._]delta"/.test(data)) return 0
  if (data.length > MAX_EVENT) return countTokens(data)
  let tokens = 0
  for (const [, text = ''] of data.matchAll(PIECE)) tokens += countTokens(text)
  return tokens
}

/** Nothing for what is no JSON object. */
function parse(json: string): Record<string, unknown> {
  try {
    return asRecord(JSON.parse(json))
  } catch {
    return NO_EVENT
  }
}

/** Later pieces of a call have its index alone. */
function note(tools: Map<string, ToolAsked>, value: unknown): void {
  const call = asRecord(value)
  const named = asRecord(call.function ?? call)
  const callId = asText(call.call_id) || asText(call.id)
  const name = asText(named.name) || (call.type === 'computer_call' ? 'computer' : '')
  if (callId === '' || name === '' || tools.size >= MAX_TOOLS) return
  tools.set(callId, {
    callId: toStorableText(callId.slice(0, 200)),
    name: toStorableText(name.slice(0, 200)),
  })
}

const choiceTools = (choice: unknown): readonly unknown[] => {
  const { message, delta } = asRecord(choice)
  return asList(asRecord(message ?? delta).tool_calls)
}

const isFunctionCall = (item: unknown): boolean =>
  /(function|tool|computer)_call$/.test(asText(asRecord(item).type))

const isToolUse = (block: unknown): boolean => asText(asRecord(block).type).endsWith('tool_use')

const TOOLS_OF: Readonly<Record<WireFormat, (value: Record<string, unknown>) => readonly unknown[]>> = {
  'openai-chat': ({ choices }) => asList(choices).flatMap(choiceTools),
  'openai-responses': ({ output, item }) => [item, ...asList(output)].filter(isFunctionCall),
  'anthropic-messages': ({ content, content_block: block }) => [block, ...asList(content)].filter(isToolUse),
}
