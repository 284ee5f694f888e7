import type {
  ContentBlockParam,
  ImageBlockParam,
  MessageCreateParamsStreaming,
  TextBlockParam,
  ToolResultBlockParam,
  ToolUnion,
} from '@anthropic-ai/sdk/resources/messages'
import type {
  ImagePart,
  MessagePart,
  ModelMessage,
  ToolCallPart,
  ToolResultPart,
} from '../protocol/messages.ts'
import { textOf } from '../protocol/messages.ts'
import type { ToolDefinition } from '../protocol/tools.ts'
import type { NativeComputer, NativeUses } from './anthropic-computer.ts'
import { nativeUsesOf, toNativeComputer, toUseBlocks, toUseResults } from './anthropic-computer.ts'
import { thinks, toThinkingParams } from './anthropic-thinking.ts'
import type { ModelRequest } from './contract.ts'
import { IMAGE_GONE, isShown } from './images.ts'
import { asText } from './outside.ts'
import { ownProviderData } from './provider-data.ts'
import { isToolCall, isToolResult, outputText, repairToolCalls } from './tool-history.ts'
import { schemaOf } from './tool-schema.ts'

const wireFormat = 'anthropic-messages'

/** The SDK's parameters no longer know a temperature, and know the single computer tool in their beta form only. */
type MessagesParams = Omit<MessageCreateParamsStreaming, 'tools'> & {
  temperature?: number
  tools?: (ToolUnion | NativeComputer)[]
}

/** The body of a Messages request. */
export function toParams(request: ModelRequest): MessagesParams {
  const thinking = toThinkingParams(request)
  const { model, temperature } = request
  const system = systemOf(request)
  const messages = repairToolCalls(request.messages)
  const origin = { model, native: nativeUsesOf(request, messages) }
  return {
    model,
    messages: mergeRoles(messages.flatMap((message) => toMessages(message, origin))),
    stream: true,
    ...(system !== '' && { system }),
    ...(temperature !== null && !thinks(thinking) && { temperature }),
    ...toToolParams(request, messages),
    ...thinking,
  }
}

/** Where tools are offered, the conversation may hold calls of others as well: those need not be declared. */
function toToolParams(
  { tools, model }: ModelRequest,
  messages: readonly ModelMessage[],
): Pick<MessagesParams, 'tools' | 'tool_choice'> {
  return tools.length === 0
    ? declareFormerTools(messages)
    : { tools: tools.map((tool) => toTool(tool, model)) }
}

const toTool = (tool: ToolDefinition, model: string): ToolUnion | NativeComputer =>
  tool.kind === 'computer'
    ? toNativeComputer(tool, model)
    : { name: tool.name, description: tool.description, input_schema: schemaOf(tool) }

/** A conversation with tool calls in it is refused where no tools are declared; these are not to be called any more. */
function declareFormerTools(
  messages: readonly ModelMessage[],
): Pick<MessagesParams, 'tools' | 'tool_choice'> {
  const calls = messages.flatMap(({ parts }) => parts.filter(isToolCall))
  if (calls.length === 0) return {}
  const names = [...new Set(calls.map(({ toolName }) => toolName))]
  const tools = names.map((name) => ({ name, input_schema: { type: 'object' as const } }))
  return { tools, tool_choice: { type: 'none' } }
}

/** All system messages stand at the top: only few models take one among the others. */
const systemOf = ({ system, messages }: ModelRequest): string =>
  [system ?? '', ...messages.filter(isSystem).map(({ parts }) => textOf(parts))].filter(Boolean).join('\n\n')

const isSystem = ({ role }: ModelMessage): boolean => role === 'system'

interface Message {
  role: 'user' | 'assistant'
  content: ContentBlockParam[]
}

/** What decides on the form in which a part goes back. */
interface Target {
  model: string
  native: NativeUses
}

function toMessages({ role, parts }: ModelMessage, target: Target): Message[] {
  if (role === 'system') return []
  const shown = parts.filter((part) => part.type !== 'image' || role === 'user')
  const content = [...shown.flatMap((part) => toBlocks(part, target)), ...imagesOfErrors(parts)]
  const saysSomething = content.some(({ type }) => !type.endsWith('thinking'))
  return saysSomething ? [{ role: role === 'tool' ? 'user' : role, content }] : []
}

/** Roles take turns, and results of tools stand before what the user says next. */
function mergeRoles(messages: readonly Message[]): Message[] {
  const merged: Message[] = []
  for (const message of messages) {
    const last = merged.at(-1)
    if (last?.role === message.role) last.content.push(...message.content)
    else merged.push(message)
  }
  return merged
}

/** Empty text is refused, and thinking without its signature. */
function toBlocks(part: MessagePart, { model, native }: Target): ContentBlockParam[] {
  if (part.type === 'text') return toTextBlocks(part.text)
  if (part.type === 'tool-call') return toCallBlocks(part, native)
  if (part.type === 'tool-result') return toResultBlocks(part, native)
  if (part.type === 'image') return [toImageBlock(part)]
  const data = ownProviderData(part, { wireFormat, model })
  if (data === null) return []
  const redacted = asText(data.redacted)
  if (redacted !== '') return [{ type: 'redacted_thinking', data: redacted }]
  return [{ type: 'thinking', thinking: part.text, signature: asText(data.signature) }]
}

const toTextBlocks = (text: string): TextBlockParam[] => (text === '' ? [] : [{ type: 'text', text }])

function toImageBlock(image: ImagePart): TextBlockParam | ImageBlockParam {
  if (!isShown(image)) return { type: 'text', text: IMAGE_GONE }
  return { type: 'image', source: { type: 'base64', media_type: image.mediaType, data: image.data } }
}

function toCallBlocks(
  { toolCallId: id, toolName: name, input }: ToolCallPart,
  native: NativeUses,
): ContentBlockParam[] {
  const uses = native.get(id)
  return uses === undefined ? [{ type: 'tool_use', id, name, input }] : toUseBlocks(uses)
}

function toResultBlocks(result: ToolResultPart, native: NativeUses): ContentBlockParam[] {
  const block: ToolResultBlockParam = {
    type: 'tool_result',
    tool_use_id: result.toolCallId,
    content: toResultContent(result),
    is_error: result.isError,
  }
  const uses = native.get(result.toolCallId)
  return uses === undefined ? [block] : toUseResults(uses, block)
}

function toResultContent(result: ToolResultPart): NonNullable<ToolResultBlockParam['content']> {
  const text = outputText(result)
  const { images = [], isError } = result
  return isError || images.length === 0 ? text : [...toTextBlocks(text), ...images.map(toImageBlock)]
}

/** The result of a failed call takes text only, so that what it shows stands behind all results. */
const imagesOfErrors = (parts: readonly MessagePart[]): ContentBlockParam[] =>
  parts
    .filter(isToolResult)
    .filter(({ isError }) => isError)
    .flatMap(({ images = [] }) => images.map(toImageBlock))
