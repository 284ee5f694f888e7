import type { MessagePart, ModelMessage, ToolCallPart, ToolResultPart } from '../protocol/messages.ts'
import { isRecord } from './outside.ts'

/** What a tool is called that a provider gave no name. */
export const UNNAMED_TOOL = 'unnamed'

/**
 * Tool calls of the history in the one form that every provider takes. What a crash, another model or a client left
 * behind must not make a provider refuse the chat for ever:
 *
 * T1 the results of an assistant message's calls follow it at once, in one message, in the order of the calls.
 * T2 a call without a result gets an error that says so; a result without a call is dropped.
 * T3 ids are unique; ids and names are made of what all providers accept; input is an object.
 */
export function repairToolCalls(messages: readonly ModelMessage[]): ModelMessage[] {
  const results = matchResults(messages)
  const ids = new CallIds()
  return messages.flatMap((message): ModelMessage[] => {
    if (message.role === 'tool') return []
    const outcomes: ToolResultPart[] = []
    const parts = message.parts.flatMap((part): MessagePart[] => {
      if (isToolResult(part) || (isToolCall(part) && message.role !== 'assistant')) return []
      if (!isToolCall(part)) return [part]
      const call = repairCall(part, ids)
      outcomes.push(toOutcome(call, results.get(part)))
      return [call]
    })
    const answered: ModelMessage = { ...message, parts }
    return outcomes.length === 0 ? [answered] : [answered, { role: 'tool', parts: outcomes }]
  })
}

export const isToolCall = (part: MessagePart): part is ToolCallPart => part.type === 'tool-call'
export const isToolResult = (part: MessagePart): part is ToolResultPart => part.type === 'tool-result'

/** What a tool answered, as text: providers take no other output from all tools alike. */
export const outputText = ({ output }: ToolResultPart): string =>
  typeof output === 'string' ? output : JSON.stringify(output ?? null)

/** Arguments that were no JSON go back as their text in a field, so that the model sees what it wrote. */
const repairCall = (
  { toolCallId, toolName, input, providerData }: ToolCallPart,
  ids: CallIds,
): ToolCallPart => ({
  type: 'tool-call',
  toolCallId: ids.next(toolCallId),
  toolName: toolName.replaceAll(/[^\w-]/g, '_').slice(0, 64) || UNNAMED_TOOL,
  input: isRecord(input) ? input : input === null || input === undefined ? {} : { input },
  ...(providerData !== undefined && { providerData }),
})

const OUTCOME_UNKNOWN = 'No result of this call was recorded. Its outcome is unknown: it may have run or not.'

const toOutcome = (
  { toolCallId, toolName }: ToolCallPart,
  result: ToolResultPart | undefined,
): ToolResultPart => ({
  type: 'tool-result',
  toolCallId,
  toolName,
  output: result === undefined ? OUTCOME_UNKNOWN : result.output,
  isError: result?.isError ?? true,
  ...(result?.images !== undefined && result.images.length > 0 && { images: result.images }),
})

/** Calls of one id that wait for their results, all of one message. */
interface OpenCalls {
  message: ModelMessage
  calls: ToolCallPart[]
}

/** Which result belongs to which call. Some providers count their ids anew with each answer: the last call counts. */
function matchResults(messages: readonly ModelMessage[]): Map<ToolCallPart, ToolResultPart> {
  const open = new Map<string, OpenCalls>()
  const matched = new Map<ToolCallPart, ToolResultPart>()
  for (const message of messages)
    for (const part of message.parts) {
      if (isToolCall(part)) openCall(open, message, part)
      const call = isToolResult(part) ? open.get(part.toolCallId)?.calls.shift() : undefined
      if (call !== undefined) matched.set(call, part as ToolResultPart)
    }
  return matched
}

function openCall(open: Map<string, OpenCalls>, message: ModelMessage, call: ToolCallPart): void {
  const same = open.get(call.toolCallId)
  if (same?.message === message) same.calls.push(call)
  else open.set(call.toolCallId, { message, calls: [call] })
}

/** OpenAI takes 40 characters, Anthropic only these. */
const COMMON_ID = /^[\w-]{1,40}$/

/** Keeps ids that every provider takes; others are numbered, the same way whenever the history is sent. */
class CallIds {
  readonly #used = new Set<string>()
  #count = 0

  next(id: string): string {
    let unique = id
    while (this.#used.has(unique) || !COMMON_ID.test(unique)) unique = `call_${++this.#count}`
    this.#used.add(unique)
    return unique
  }
}
