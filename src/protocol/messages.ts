export const MESSAGE_ROLES = ['user', 'assistant', 'tool', 'system'] as const
export type MessageRole = (typeof MESSAGE_ROLES)[number]

/** Who is shown a message: the user only, the model only, or both. */
export type MessageVisibility = 'user' | 'model' | 'both'

/** What a message stands for where the model's context begins anew. */
export type MessageBoundary = 'clear' | 'compaction'

export interface TextPart {
  type: 'text'
  text: string
}

export interface ReasoningPart {
  type: 'reasoning'
  text: string
  providerData?: Record<string, unknown>
}

/** A tool that the model asked for. `input` is the parsed JSON of its arguments; only assistant messages hold calls. */
export interface ToolCallPart {
  type: 'tool-call'
  toolCallId: string
  toolName: string
  input: unknown
}

/** What came of a call. `output` is any JSON; with `isError` it says what went wrong. */
export interface ToolResultPart {
  type: 'tool-result'
  toolCallId: string
  toolName: string
  output: unknown
  isError: boolean
}

/** What a committed message is made of, as it stands in the `parts` column. */
export type MessagePart = TextPart | ReasoningPart | ToolCallPart | ToolResultPart

/** One message as a model is shown it. */
export interface ModelMessage {
  role: 'user' | 'assistant' | 'tool' | 'system'
  parts: MessagePart[]
}

export const REASONING_EFFORTS = ['none', 'minimal', 'low', 'medium', 'high'] as const
export type ReasoningEffort = (typeof REASONING_EFFORTS)[number]

// A NUL byte and half a surrogate pair are valid in JSON and in JavaScript, and neither fits into Postgres.
const NUL = /\u0000/g

/** Text as Postgres can hold it: NUL bytes and lone surrogates become U+FFFD. */
export const toStorableText = (text: string): string => text.replace(NUL, '\uFFFD').toWellFormed()

/** How long a message is as a model reads it, in characters: texts as they are, the rest as JSON. */
export const charactersOf = (parts: readonly MessagePart[]): number =>
  parts.reduce((length, part) => length + ('text' in part ? part.text : jsonOf(part)).length, 0)

const jsonOf = (part: ToolCallPart | ToolResultPart): string =>
  JSON.stringify((part.type === 'tool-call' ? part.input : part.output) ?? null)

/** Deeper values than this are refused: they are of no use to a model, and a hazard to every parser on the way. */
export const MAX_JSON_DEPTH = 100

/**
 * JSON as Postgres can hold it: its texts and the names of its fields are storable.
 *
 * @throws {RangeError} where it is nested deeper than `MAX_JSON_DEPTH`.
 */
export function toStorableJson(value: unknown, depth = 0): unknown {
  if (typeof value === 'string') return toStorableText(value)
  if (typeof value !== 'object' || value === null) return value
  if (depth === MAX_JSON_DEPTH) throw new RangeError(`JSON is nested deeper than ${MAX_JSON_DEPTH} levels`)
  if (Array.isArray(value)) return value.map((item) => toStorableJson(item, depth + 1))
  const entries = Object.entries(value)
  return Object.fromEntries(
    entries.map(([name, field]) => [toStorableText(name), toStorableJson(field, depth + 1)]),
  )
}

/** The text of a message, its text parts joined. */
export const textOf = (parts: readonly MessagePart[]): string =>
  parts.map((part) => (part.type === 'text' ? part.text : '')).join('')
