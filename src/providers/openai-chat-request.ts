import type {
  ChatCompletionContentPart,
  ChatCompletionCreateParamsStreaming,
  ChatCompletionFunctionTool,
  ChatCompletionMessageFunctionToolCall,
  ChatCompletionMessageParam,
} from 'openai/resources/chat/completions'
import type {
  ImagePart,
  MessagePart,
  ModelMessage,
  ToolCallPart,
  ToolResultPart,
} from '../protocol/messages.ts'
import { textOf } from '../protocol/messages.ts'
import type { ToolDefinition } from '../protocol/tools.ts'
import { toFunctionTool } from './computer-function.ts'
import type { ModelRequest } from './contract.ts'
import { hasImages, IMAGE_GONE, isShown, toDataUrl } from './images.ts'
import { ownProviderData } from './provider-data.ts'
import { isToolCall, isToolResult, outputText, repairToolCalls } from './tool-history.ts'
import { schemaOf } from './tool-schema.ts'

const wireFormat = 'openai-chat'

/** The body of a Chat Completions request. */
export function toParams(request: ModelRequest): ChatCompletionCreateParamsStreaming {
  const { model, tools, maxOutputTokens, temperature, reasoningEffort } = request
  return {
    model,
    messages: toMessages(request),
    stream: true,
    stream_options: { include_usage: true },
    ...(tools.length > 0 && { tools: tools.map(toTool) }),
    ...(maxOutputTokens !== null && { [outputLimitName(model)]: maxOutputTokens }),
    ...(temperature !== null && { temperature }),
    ...(reasoningEffort !== null && { reasoning_effort: reasoningEffort }),
  }
}

/** OpenAI's newer models refuse the old name, compatible servers may not know the new one. */
export const outputLimitName = (model: string): 'max_completion_tokens' | 'max_tokens' =>
  /(^|\/)(gpt-|chatgpt-|codex-|o\d)/.test(model) ? 'max_completion_tokens' : 'max_tokens'

/** This endpoint has no computer tool of its own. */
function toTool(tool: ToolDefinition): ChatCompletionFunctionTool {
  const { name, description, ...rest } = tool.kind === 'computer' ? toFunctionTool(tool) : tool
  return { type: 'function', function: { name, description, parameters: schemaOf(rest) } }
}

function toMessages({ system, messages, model }: ModelRequest): ChatCompletionMessageParam[] {
  const opening: ChatCompletionMessageParam[] = system === null ? [] : [{ role: 'system', content: system }]
  return [...opening, ...repairToolCalls(messages).flatMap((message) => toMessage(message, model))]
}

/** Empty messages are left out; a tool's results are a message each. */
function toMessage({ role, parts }: ModelMessage, model: string): ChatCompletionMessageParam[] {
  if (role === 'tool') return toToolMessages(parts.filter(isToolResult))
  if (role === 'user' && parts.some(({ type }) => type === 'image'))
    return [{ role, content: parts.flatMap(toContent) }]
  const content = textOf(parts)
  const calls = parts.filter(isToolCall).map((call) => toToolCall(call, model))
  if (calls.length > 0) return [{ role: 'assistant', content: content || null, tool_calls: calls }]
  return content === '' ? [] : [{ role, content }]
}

function toContent(part: MessagePart): ChatCompletionContentPart[] {
  if (part.type === 'image') return [toImage(part)]
  return part.type === 'text' && part.text !== '' ? [{ type: 'text', text: part.text }] : []
}

const toImage = (image: ImagePart): ChatCompletionContentPart =>
  isShown(image)
    ? { type: 'image_url', image_url: { url: toDataUrl(image) } }
    : { type: 'text', text: IMAGE_GONE }

/** Some compatible servers want something back with a call: Gemini its signature. */
function toToolCall(call: ToolCallPart, model: string): ChatCompletionMessageFunctionToolCall {
  const data = ownProviderData(call, { wireFormat, model })
  return {
    id: call.toolCallId,
    type: 'function',
    function: { name: call.toolName, arguments: JSON.stringify(call.input) },
    ...(data !== null && { extra_content: data.extraContent }),
  }
}

/** Results hold text only: what the tools show follows all of them, as if the user showed it. */
function toToolMessages(results: readonly ToolResultPart[]): ChatCompletionMessageParam[] {
  const messages = results.map(toToolMessage)
  const shown = results.filter(hasImages).flatMap(toShownContent)
  return shown.length === 0 ? messages : [...messages, { role: 'user', content: shown }]
}

const toToolMessage = (result: ToolResultPart): ChatCompletionMessageParam => ({
  role: 'tool',
  tool_call_id: result.toolCallId,
  content: outputText(result),
})

const toShownContent = ({
  toolName,
  toolCallId,
  images = [],
}: ToolResultPart): ChatCompletionContentPart[] => [
  { type: 'text', text: `What the call ${toolCallId} of ${toolName} shows:` },
  ...images.map(toImage),
]
