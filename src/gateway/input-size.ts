import { asList, asRecord, asText, isRecord } from '../providers/index.ts'
import type { WireFormat } from '../protocol/routes.ts'

/** What a body stands for beyond the text in it. */
export interface InputSize {
  /** How many images it holds or names. */
  images: number
  /** How many characters their parts take in the body. */
  imageCharacters: number
  /** What its provider adds to the prompt by itself, at most, in tokens: how to use tools, or to keep to a schema. */
  hiddenTokens: number
  /** Whether it may stand for any amount: state that the provider keeps, something behind a URL, or what is not known here. */
  openEnded: boolean
}

/** Fields that all wire formats have. */
const COMMON = ['model', 'stream', 'stream_options', 'temperature', 'top_p', 'top_k', 'tools', 'tool_choice', 'parallel_tool_calls', 'metadata', 'store', 'service_tier', 'user', 'safety_identifier', 'prompt_cache_key', 'prompt_cache_retention', 'top_logprobs', 'cache_control', 'background', 'speed'] // prettier-ignore

/**
 * Fields that are known to be charged by their own text, and by nothing else. A list of what is dearer would never be
 * complete: each provider has fields of its own.
 */
const PLAIN_FIELDS: Readonly<Record<WireFormat, ReadonlySet<string>>> = {
  'openai-chat': new Set([...COMMON, 'messages', 'max_tokens', 'max_completion_tokens', 'n', 'stop', 'seed', 'frequency_penalty', 'presence_penalty', 'repetition_penalty', 'min_p', 'top_a', 'logit_bias', 'logprobs', 'response_format', 'functions', 'function_call', 'reasoning_effort', 'reasoning', 'verbosity', 'modalities', 'thinking', 'enable_thinking', 'include_reasoning', 'chat_template_kwargs', 'guided_json', 'guided_regex', 'guided_choice', 'guided_grammar', 'structured_outputs', 'ignore_eos']), // prettier-ignore
  'openai-responses': new Set([...COMMON, 'input', 'instructions', 'max_output_tokens', 'max_tool_calls', 'reasoning', 'text', 'truncation', 'include']), // prettier-ignore
  'anthropic-messages': new Set([...COMMON, 'messages', 'system', 'max_tokens', 'stop_sequences', 'thinking', 'output_config', 'output_format', 'inference_geo']), // prettier-ignore
}

/** Tools that whoever calls runs by himself, by type. Anthropic's are named after their day. */
const CLIENT_TOOL = /^(?:function|custom|apply_patch|local_shell|(?:text_editor|bash|memory)_\d{8})$/

/** Items of a history and parts of a message that are charged by their text. */
const PLAIN_TYPES: ReadonlySet<string> = new Set(['message', 'text', 'input_text', 'output_text', 'summary_text', 'reasoning_text', 'refusal', 'reasoning', 'thinking', 'redacted_thinking', 'function_call', 'function_call_output', 'custom_tool_call', 'custom_tool_call_output', 'apply_patch_call', 'apply_patch_call_output', 'local_shell_call', 'local_shell_call_output', 'computer_call', 'computer_call_output', 'tool_use', 'tool_result', 'function', 'custom']) // prettier-ignore

const IMAGE_TYPES: ReadonlySet<string> = new Set(['image_url', 'input_image', 'image', 'computer_screenshot'])

/** Fields whose content is looked into. */
const INNER: ReadonlySet<string> = new Set(['content', 'output', 'summary'])

/** Fields of an item that are text, whatever stands in them: what a model has written itself, and notes of a provider. */
const OPAQUE: ReadonlySet<string> = new Set(['input', 'arguments', 'action', 'actions', 'operation', 'tool_calls', 'function_call', 'cache_control', 'citations', 'annotations', 'logprobs', 'pending_safety_checks', 'acknowledged_safety_checks', 'reasoning_details', 'caller']) // prettier-ignore

/** Fields of an item that are one value each. */
const SCALARS: ReadonlySet<string> = new Set(['type', 'role', 'name', 'id', 'text', 'call_id', 'tool_call_id', 'tool_use_id', 'status', 'phase', 'is_error', 'refusal', 'reasoning', 'reasoning_content', 'thinking', 'signature', 'data', 'encrypted_content', 'namespace', 'max_output_length', 'weight', 'prefix', 'partial']) // prettier-ignore

/** Whether its input may be more tokens than its body has bytes. */
export const exceedsItsBytes = ({ images, openEnded }: InputSize): boolean => openEnded || images > 0

export function measureInput(wireFormat: WireFormat, body: Record<string, unknown>): InputSize {
  const size: InputSize = {
    images: 0,
    imageCharacters: 0,
    hiddenTokens: hiddenTokensOf(body),
    openEnded: false,
  }
  const plain = PLAIN_FIELDS[wireFormat]
  const isPlain = (name: string): boolean => plain.has(name) || !isSet(body[name])
  if (!Object.keys(body).every(isPlain) || asList(body.tools).some(isServerTool)) size.openEnded = true
  for (const said of [body.messages, body.input, body.system, body.instructions]) addItems(said, size)
  return size
}

/**
 * About twice what Anthropic says of its prompts: some 350 for tools, and 245 to 735 for each that is of its own.
 * Source: https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview#pricing
 */
const PROMPT_TOKENS = 1000

/** Fields with which a provider says more to its model than they hold. */
const PROMPTING = ['tools', 'functions', 'response_format', 'output_format', 'output_config', 'text']

function hiddenTokensOf(body: Record<string, unknown>): number {
  const prompts = PROMPTING.filter((name) => isSet(body[name]) && !isEmpty(body[name]))
  const ownTools = asList(body.tools).filter((tool) => !PLAIN_TOOLS.includes(asRecord(tool).type))
  return (prompts.length + ownTools.length) * PROMPT_TOKENS
}

const isEmpty = (value: unknown): boolean => Array.isArray(value) && value.length === 0

/** Tools of which a model is told what the body says. */
const PLAIN_TOOLS: readonly unknown[] = [undefined, null, 'function', 'custom']

export const isSet = (value: unknown): boolean => value !== undefined && value !== null

/** A tool that the provider runs by itself, and whose findings it charges as input. */
function isServerTool(tool: unknown): boolean {
  const { type, tools } = asRecord(tool)
  // Which of two a provider reads nobody knows.
  if (Object.keys(asRecord(tool)).some((name) => name !== 'type' && /^type$/iu.test(name))) return true
  if (type === 'namespace') return asList(tools).some(isServerTool)
  return isSet(type) ? !CLIENT_TOOL.test(asText(type)) : isOfProvider(tool)
}

/** Anthropic's tools need no type; those of others that have none are named by their only field, such as `google_search`. */
const isOfProvider = (tool: unknown): boolean =>
  asRecord(tool).name === undefined && asRecord(tool).function === undefined

/** A text, or a list of items. */
function addItems(said: unknown, size: InputSize): void {
  if (Array.isArray(said)) for (const item of said) addItem(item, size)
  else if (isRecord(said)) addItem(said, size)
}

function addItem(item: unknown, size: InputSize): void {
  if (typeof item === 'string') return
  if (!isRecord(item)) {
    size.openEnded = true
    return
  }
  const type = asText(item.type)
  if (IMAGE_TYPES.has(type)) {
    addImage(item, size)
    return
  }
  if (type === '' ? !isSet(item.role) : !PLAIN_TYPES.has(type)) size.openEnded = true
  // An item of which nothing is there but its name stands for what its provider keeps.
  if (type === 'reasoning' && asText(item.encrypted_content) === '' && asList(item.content).length === 0)
    size.openEnded = true
  for (const name in item) {
    const value = item[name]
    if (INNER.has(name)) addItems(value, size)
    else if (!OPAQUE.has(name) && !(SCALARS.has(name) && !isNested(value)) && isSet(value))
      size.openEnded = true
  }
}

const isNested = (value: unknown): boolean => typeof value === 'object' && value !== null

/** Whether its bytes are here, behind a URL or kept by the provider, it is one image. What stands beside these fields is not known. */
function addImage(part: Record<string, unknown>, size: InputSize): void {
  size.images++
  size.imageCharacters += JSON.stringify(part).length
  for (const name in part) if (!IMAGE_FIELDS.has(name) || Array.isArray(part[name])) size.openEnded = true
}

const IMAGE_FIELDS: ReadonlySet<string> = new Set(['type', 'image_url', 'file_id', 'source', 'detail', 'cache_control']) // prettier-ignore
