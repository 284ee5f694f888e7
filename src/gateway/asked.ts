import { asList, asRecord, asText, isRecord } from '../providers/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { toStorableText } from '../protocol/messages.ts'
import type { WireFormat } from '../protocol/routes.ts'

/** What the body of a model call asks for, as far as the gateway's books need it. */
export interface Asked {
  model: string
  streamed: boolean
  /** The longest answer it allows, in tokens; `null` where it says nothing. */
  outputLimit: number | null
  /** How many answers it wants. */
  answers: number
  /** Whether it stands for more than it holds: state that the provider keeps, or something behind a URL. */
  refersElsewhere: boolean
  /** What the user said last; `null` where nobody can tell. */
  prompt: string | null
}

/** Fields that name the longest answer, the most telling first. */
const LIMIT_FIELDS: Readonly<Record<WireFormat, readonly string[]>> = {
  'openai-chat': ['max_completion_tokens', 'max_tokens'],
  'openai-responses': ['max_output_tokens'],
  'anthropic-messages': ['max_tokens'],
}

/** Fields by which a body refers to what its provider keeps or fetches. */
const OUTSIDE_FIELDS = ['previous_response_id', 'conversation', 'prompt', 'container', 'web_search_options', 'plugins', 'mcp_servers'] // prettier-ignore

/** Far more than anybody needs to recognise a call by. */
const MAX_PROMPT_CHARACTERS = 4000

/** Reads the body of a model call, whatever is in it. @throws {TurnmillError} `invalid_request`. */
export function readAsked(wireFormat: WireFormat, body: Record<string, unknown>): Asked {
  const limits = LIMIT_FIELDS[wireFormat]
    .map((name) => readPositive(body, name))
    .filter((limit) => limit !== null)
  const prompt = lastUserText(asList(body.messages ?? body.input)) ?? (asText(body.input) || null)
  return {
    model: toStorableText(asText(body.model).slice(0, 200)),
    streamed: body.stream === true,
    // Whoever gives two limits may mean either.
    outputLimit: limits.length === 0 ? null : Math.max(...limits),
    answers: wireFormat === 'openai-chat' ? (readPositive(body, 'n') ?? 1) : 1,
    refersElsewhere: refersElsewhere(body),
    prompt: prompt === null ? null : toStorableText(prompt.slice(0, MAX_PROMPT_CHARACTERS)),
  }
}

const isSet = (value: unknown): boolean => value !== undefined && value !== null

/**
 * A count that its provider may take for another one would reserve too little.
 *
 * @throws {TurnmillError} `invalid_request` for anything that is there and is no whole number from 1.
 */
function readPositive(body: Record<string, unknown>, name: string): number | null {
  const value = body[name]
  if (!isSet(value)) return null
  if (typeof value === 'number' && Number.isSafeInteger(value) && value > 0) return value
  throw new TurnmillError(
    'invalid_request',
    `${name} is ${JSON.stringify(value)}, expected a whole number from 1`,
  )
}

function refersElsewhere(body: Record<string, unknown>): boolean {
  const said = [body.messages, body.input, body.system]
  return (
    OUTSIDE_FIELDS.some((name) => isSet(body[name])) ||
    asList(body.tools).some(isServerTool) ||
    said.some(refersToOutside)
  )
}

/** A tool that the provider runs by itself, and whose findings it charges as input. */
function isServerTool(tool: unknown): boolean {
  const { type } = asRecord(tool)
  return type !== undefined && type !== 'function' && type !== 'custom'
}

/** The text of the last message of role `user`. */
function lastUserText(messages: readonly unknown[]): string | null {
  const message = messages.findLast((one) => asRecord(one).role === 'user')
  if (message === undefined) return null
  const { content } = asRecord(message)
  if (typeof content === 'string') return content
  return asList(content)
    .map((part) => asText(asRecord(part).text))
    .filter((text) => text !== '')
    .join('\n')
}

/** Names under which something stands that the provider keeps or fetches; a data URL is neither. */
const REFERENCE = /^(file_id|.*_url|url)$/

/** Whether something in it stands for more than it holds. */
function refersToOutside(value: unknown): boolean {
  if (Array.isArray(value)) return value.some(refersToOutside)
  if (!isRecord(value)) return false
  if (value.type === 'item_reference' || isSet(asRecord(value.audio).id)) return true
  return Object.entries(value).some(([name, field]) =>
    REFERENCE.test(name) && typeof field === 'string' ? !field.startsWith('data:') : refersToOutside(field),
  )
}

/** The field that bounds the answer, to be written where a body leaves it out. */
export const limitField = (wireFormat: WireFormat): string => LIMIT_FIELDS[wireFormat][0] ?? ''
