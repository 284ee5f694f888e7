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
import type { ToolDefinition } from '../protocol/tools.ts'
import { toFunctionTool } from './computer-function.ts'
import type { ModelRequest } from './contract.ts'
import { hasImages, IMAGE_GONE, isShown, toDataUrl } from './images.ts'
import type { NativeCalls } from './openai-computer.ts'
import {
  nativeCallsOf,
  nativeComputerOf,
  offersNativeComputer,
  toComputerCall,
  toComputerOutput,
  toNativeTool,
} from './openai-computer.ts'
import { asText } from './outside.ts'
import { ownProviderData } from './provider-data.ts'
import { outputText, repairToolCalls } from './tool-history.ts'
import { schemaOf } from './tool-schema.ts'

const wireFormat = 'openai-responses'

/** The body of a Responses request. */
export function toParams(request: ModelRequest): ResponseCreateParamsStreaming {
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

const ENCRYPTED: Pick<ResponseCreateParamsStreaming, 'include'> = { include: ['reasoning.encrypted_content'] }

/**
 * Models that do not reason refuse all of these, so they are named only where an effort was chosen. Those that use a
 * computer all reason, and want each call back together with the reasoning that led to it.
 */
function toReasoningParams(
  request: ModelRequest,
): Pick<ResponseCreateParamsStreaming, 'reasoning' | 'include'> {
  const { reasoningEffort } = request
  if (reasoningEffort === null) return offersNativeComputer(request) ? ENCRYPTED : {}
  if (reasoningEffort === 'none') return { reasoning: { effort: 'none' } }
  return { reasoning: { effort: reasoningEffort, summary: 'auto' }, ...ENCRYPTED }
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
