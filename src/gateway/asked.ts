import { asList, asRecord, asText, isRecord, outputLimitName } from '../providers/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { toStorableText } from '../protocol/messages.ts'
import type { ProviderType, WireFormat } from '../protocol/routes.ts'

/** What the body of a model call asks for, as far as the gateway's books need it. */
export interface Asked {
  model: string
  streamed: boolean
  /** The longest answer it allows, in tokens; `null` where it says nothing. */
  outputLimit: number | null
  /** How many answers it wants. */
  answers: number
  /**
   * Whether its input may be more tokens than it has bytes: state that the provider keeps, something behind a URL, or an
   * image or a document, which is charged by what is in it.
   */
  exceedsItsBytes: boolean
  /** Whether it may be charged at other prices than those of its model: other models that it allows, or a dearer tier. */
  pricedOtherwise: boolean
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

/** How much of a bad value an error tells, in characters. */
const MAX_TOLD = 100

/** Tiers at the price of the model, or below it. */
const PLAIN_TIERS = ['auto', 'default', 'flex', 'standard', 'standard_only']

/** Far more than anybody needs to recognise a call by. */
const MAX_PROMPT_CHARACTERS = 4000

/** Reads the body of a model call, whatever is in it. @throws {TurnmillError} `invalid_request`. */
export function readAsked(wireFormat: WireFormat, body: Record<string, unknown>): Asked {
  demandForeground(body)
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
    exceedsItsBytes: exceedsItsBytes(body),
    pricedOtherwise:
      isSet(body.models) ||
      isSet(body.fallbacks) ||
      (isSet(body.service_tier) && !PLAIN_TIERS.includes(asText(body.service_tier))),
    prompt: prompt === null ? null : toStorableText(prompt.slice(0, MAX_PROMPT_CHARACTERS)),
  }
}

/** What goes on when the call is over could neither be fetched here nor be charged. */
function demandForeground({ background }: Record<string, unknown>): void {
  if (isSet(background) && background !== false)
    throw new TurnmillError('invalid_request', 'background is set, expected a call that ends with its answer')
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
    `${name} is ${JSON.stringify(value).slice(0, MAX_TOLD)}, expected a whole number from 1`,
  )
}

function exceedsItsBytes(body: Record<string, unknown>): boolean {
  const said = [body.messages, body.input, body.system]
  return (
    OUTSIDE_FIELDS.some((name) => isSet(body[name])) ||
    asList(body.tools).some(isServerTool) ||
    said.some(holdsMore)
  )
}

/** A name as a provider may read it that makes no difference between its ways of writing: `image_url`, `Image-URL`, `imageUrl`. */
export const foldName = (name: string): string => name.toUpperCase().toLowerCase().replace(/[-_]/g, '')

/** A tool that the provider runs by itself, and whose findings it charges as input. */
const isServerTool = (tool: unknown): boolean =>
  Object.entries(asRecord(tool)).some(
    ([name, field]) => foldName(name) === 'type' && field !== 'function' && field !== 'custom',
  )

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

/** Names, folded, under which something stands that the provider keeps, fetches or looks into. */
const REFERENCE = /^(fileid|filedata|.*url)$/

/** Parts that are charged by what is in them, not by their length; folded. */
const MEDIA = ['itemreference', 'inputaudio', 'base64']

/** Whether something in it stands for more than it holds. */
function holdsMore(value: unknown): boolean {
  if (Array.isArray(value)) return value.some(holdsMore)
  return isRecord(value) && Object.entries(value).some(([name, field]) => isMore(foldName(name), field))
}

function isMore(name: string, field: unknown): boolean {
  if (typeof field === 'string')
    return REFERENCE.test(name) || (name === 'type' && MEDIA.includes(foldName(field)))
  const refersToSound = (): boolean =>
    Object.entries(asRecord(field)).some(([inner, id]) => foldName(inner) === 'id' && isSet(id))
  return (name === 'audio' && refersToSound()) || holdsMore(field)
}

/** The field by which a model is told how long its answer may be. OpenAI's own all know the new name of Chat Completions. */
export const limitField = (wireFormat: WireFormat, type: ProviderType, model: string): string =>
  wireFormat === 'openai-chat' && type !== 'openai'
    ? outputLimitName(model)
    : (LIMIT_FIELDS[wireFormat][0] ?? '')

/** Names by which a body is understood here, by how a provider might read them, too. */
export const UNDERSTOOD: ReadonlyMap<string, string> = new Map(
  [
    ...Object.values(LIMIT_FIELDS).flat(),
    ...OUTSIDE_FIELDS,
    ...['model', 'models', 'fallbacks', 'service_tier', 'background', 'stream', 'stream_options', 'n'],
    ...['messages', 'input', 'system', 'tools'],
  ].map((name) => [foldName(name), name]),
)
