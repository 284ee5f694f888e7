import { asList, asRecord, asText, outputLimitName } from '../providers/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { toStorableText } from '../protocol/messages.ts'
import type { ProviderType, WireFormat } from '../protocol/routes.ts'
import { isSet, measureInput, type InputSize } from './input-size.ts'

/** What the body of a model call asks for, as far as the gateway's books need it. */
export interface Asked {
  model: string
  streamed: boolean
  /** The longest answer it allows, in tokens; `null` where it says nothing. */
  outputLimit: number | null
  /** How many answers it wants. */
  answers: number
  /** What it stands for beside its text. */
  input: InputSize
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
  demandPlainStream(body)
  const limits = LIMIT_FIELDS[wireFormat]
    // Anthropic warms its cache up for an answer of no tokens.
    .map((name) => readCount(body, name, wireFormat === 'anthropic-messages' ? 0 : 1))
    .filter((limit) => limit !== null)
  const prompt = lastUserText(asList(body.messages ?? body.input)) ?? (asText(body.input) || null)
  return {
    model: toStorableText(asText(body.model).slice(0, 200)),
    streamed: body.stream === true,
    // Whoever gives two limits may mean either.
    outputLimit: limits.length === 0 ? null : Math.max(...limits),
    answers: wireFormat === 'openai-chat' ? (readCount(body, 'n', 1) ?? 1) : 1,
    input: measureInput(wireFormat, body),
    pricedOtherwise: isPricedOtherwise(body),
    prompt: prompt === null ? null : toStorableText(prompt.slice(0, MAX_PROMPT_CHARACTERS)),
  }
}

/** Fields that have a call answered by another model, by several, or at a price of its own. */
const OTHER_PRICES = ['models', 'fallbacks', 'preset', 'best_of']

function isPricedOtherwise(body: Record<string, unknown>): boolean {
  const differs = (name: string, plain: readonly string[]): boolean =>
    isSet(body[name]) && !plain.includes(asText(body[name]))
  return (
    OTHER_PRICES.some((name) => isSet(body[name])) ||
    differs('service_tier', PLAIN_TIERS) ||
    differs('speed', ['standard']) ||
    differs('inference_geo', ['global']) ||
    asList(body.modalities).some((modality) => modality !== 'text') ||
    asList(body.tools).some((tool) => isSet(asRecord(tool).model))
  )
}

/** What goes on when the call is over could neither be fetched here nor be charged. */
function demandForeground(body: Record<string, unknown>): void {
  const name = ['background', 'deferred'].find((one) => isSet(body[one]) && body[one] !== false)
  if (name !== undefined)
    throw new TurnmillError('invalid_request', `${name} is set, expected a call that ends with its answer`)
}

/** A stream whose provider takes it for one where we do not, or is told twice whether to report, would report nothing. */
function demandPlainStream({ stream, stream_options: options }: Record<string, unknown>): void {
  if (isSet(stream) && typeof stream !== 'boolean')
    throw new TurnmillError('invalid_request', `stream is ${toldOf(stream)}, expected true or false`)
  const bad = Object.keys(asRecord(options)).find(
    (name) => foldName(name) === foldName(INCLUDE_USAGE) && name !== INCLUDE_USAGE,
  )
  if (bad !== undefined)
    throw new TurnmillError('invalid_request', `stream_options has ${bad.slice(0, MAX_TOLD)}, expected ${INCLUDE_USAGE}`) // prettier-ignore
}

const INCLUDE_USAGE = 'include_usage'

const toldOf = (value: unknown): string => JSON.stringify(value).slice(0, MAX_TOLD)

/**
 * A count that its provider may take for another one would reserve too little.
 *
 * @throws {TurnmillError} `invalid_request` for anything that is there and is no whole number from `least`.
 */
function readCount(body: Record<string, unknown>, name: string, least: number): number | null {
  const value = body[name]
  if (!isSet(value)) return null
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= least) return value
  throw new TurnmillError(
    'invalid_request',
    `${name} is ${toldOf(value)}, expected a whole number from ${least}`,
  )
}

/** A name as a provider may read it that makes no difference between its ways of writing: `max_tokens`, `Max-Tokens`, `maxTokens`. */
export const foldName = (name: string): string => name.toUpperCase().toLowerCase().replace(/[-_]/g, '')

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
    ...['model', 'service_tier', 'background', 'stream', 'stream_options', 'n'],
    ...['messages', 'input', 'system', 'instructions', 'tools'],
    ...OTHER_PRICES,
    ...['speed', 'inference_geo', 'modalities', 'deferred'],
  ].map((name) => [foldName(name), name]),
)
