import { createParser } from 'eventsource-parser'
import { asList, asRecord, asText, highestOf, isRecord, readUsage, reportedSides, type ReportedSides } from '../providers/index.ts' // prettier-ignore
import { toStorableText } from '../protocol/messages.ts'
import type { WireFormat } from '../protocol/routes.ts'
import type { Usage } from '../protocol/usage.ts'

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
  /** What the provider has reported so far. */
  usage(): Usage | undefined
  /** Which of its sides were in a report, with a count that can be one. */
  sides(): ReportedSides
  /** Whether that is the count at the end. */
  isComplete(): boolean
  /** Tokens of the answer that have passed, roughly. */
  passed(): number
  tools(): readonly ToolAsked[]
}

/** What an event of an answer, or a whole answer, says. */
interface Readings {
  usages: unknown[]
  tools: unknown[]
}

const NOTHING: Meter = {
  read: () => undefined,
  end: () => undefined,
  usage: () => undefined,
  sides: () => ({ input: false, output: false }),
  isComplete: () => false,
  passed: () => 0,
  tools: () => [],
}

/** Calls beyond this are not written down. */
const MAX_TOOLS = 200

export const createMeter = (wireFormat: WireFormat | null, contentType: string): Meter =>
  wireFormat === null ? NOTHING : createCallMeter(wireFormat, contentType)

function createCallMeter(wireFormat: WireFormat, contentType: string): Meter {
  const tools = new Map<string, ToolAsked>()
  let usage: Usage | undefined
  let sides: ReportedSides = { input: false, output: false }
  let passed = 0
  let complete = false

  function take(json: string): void {
    const value = parse(json)
    if (value === undefined) return
    const readings = READERS[wireFormat](value)
    for (const one of readings.usages) {
      const reported = readUsage[wireFormat](one)
      if (reported === undefined) continue
      usage = usage === undefined ? reported : highestOf[wireFormat](usage, reported)
      const { input, output } = reportedSides(wireFormat, one)
      sides = { input: sides.input || input, output: sides.output || output }
      complete = isLast(value)
    }
    for (const one of readings.tools) note(tools, one)
  }

  const readings = {
    usage: () => usage,
    sides: () => sides,
    isComplete: () => complete,
    passed: () => Math.ceil(passed),
    tools: () => [...tools.values()],
  }
  const decoder = new TextDecoder()
  if (contentType.includes('text/event-stream')) {
    const parser = createParser({
      onEvent: ({ data }) => {
        const more = countText(wireFormat, data)
        passed += more
        // What was reported before is not the count at the end.
        if (more > 0) complete = false
        // Most events are a few characters of text, and there are many.
        if (/"usage"\s*:\s*\{|tool|function|computer_call/.test(data)) take(data)
      },
    })
    return {
      ...readings,
      read: (chunk) => parser.feed(decoder.decode(chunk, { stream: true })),
      end: () => parser.reset({ consume: true }),
    }
  }
  let text = ''
  return {
    ...readings,
    read: (chunk) => {
      const more = decoder.decode(chunk, { stream: true })
      text += more
      passed += countTokens(more)
    },
    end: () => take(text),
  }
}

/** Anthropic begins with the input and ends with the output, Responses may begin with anything; others report all so far. */
const isLast = ({ type }: Record<string, unknown>): boolean =>
  typeof type !== 'string' ||
  (type.startsWith('response.')
    ? ['response.completed', 'response.incomplete', 'response.failed'].includes(type)
    : type !== 'message_start')

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

/** Common for English text; of most other scripts a character is about a token. */
const ASCII_PER_TOKEN = 4

function countTokens(text: string): number {
  let others = 0
  for (let index = 0; index < text.length; index++) if (text.charCodeAt(index) > 0x7f) others++
  return (text.length - others) / ASCII_PER_TOKEN + others
}

function parse(json: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(json)
    return isRecord(value) ? value : undefined
  } catch {
    return undefined
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

const READERS: Readonly<Record<WireFormat, (value: Record<string, unknown>) => Readings>> = {
  'openai-chat': ({ usage, choices }) => ({ usages: [usage], tools: asList(choices).flatMap(choiceTools) }),
  'openai-responses': ({ usage, output, response, item }) => ({
    usages: [usage, asRecord(response).usage],
    tools: [item, ...asList(output)].filter(isFunctionCall),
  }),
  'anthropic-messages': ({ usage, message, content, content_block: block }) => ({
    usages: [usage, asRecord(message).usage],
    tools: [block, ...asList(content)].filter(isToolUse),
  }),
}
