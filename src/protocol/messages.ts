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

export const IMAGE_TYPES = ['image/png', 'image/jpeg', 'image/gif', 'image/webp'] as const
export type ImageType = (typeof IMAGE_TYPES)[number]

/** An image, which stands in the table of files: somebody uploaded it, or a tool made it. */
export interface ImagePart {
  type: 'image'
  fileId: string
  mediaType: ImageType
  /** The file's bytes in base64: only where a model is shown it, never stored. */
  data?: string
}

/** A tool that the model asked for. `input` is the parsed JSON of its arguments; only assistant messages hold calls. */
export interface ToolCallPart {
  type: 'tool-call'
  toolCallId: string
  toolName: string
  input: unknown
  /** Set where the arguments were no JSON: what was wrong. `input` is then their text. */
  inputError?: string
  /** What the provider wants back with this call, opaque to us. */
  providerData?: Record<string, unknown>
}

/** What came of a call. `output` is any JSON; with `isError` it says what went wrong. */
export interface ToolResultPart {
  type: 'tool-result'
  toolCallId: string
  toolName: string
  output: unknown
  isError: boolean
  /** What the call shows beside its output. */
  images?: ImagePart[]
}

/** What a committed message is made of, as it stands in the `parts` column. */
export type MessagePart = TextPart | ReasoningPart | ImagePart | ToolCallPart | ToolResultPart

export const isToolCall = (part: MessagePart): part is ToolCallPart => part.type === 'tool-call'

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

/** About what an image is to a model, in characters of text: some 1,500 tokens. */
const IMAGE_CHARACTERS = 6000

/** How long a message is as a model reads it, in characters: texts as they are, calls and results as JSON. */
export const charactersOf = (parts: readonly MessagePart[]): number =>
  parts.reduce((length, part) => length + charactersOfPart(part), 0)

function charactersOfPart(part: MessagePart): number {
  switch (part.type) {
    case 'text':
    case 'reasoning':
      return part.text.length
    case 'image':
      return IMAGE_CHARACTERS
    case 'tool-call':
      return jsonLength(part.input)
    case 'tool-result':
      return jsonLength(part.output) + IMAGE_CHARACTERS * (part.images?.length ?? 0)
  }
}

const jsonLength = (value: unknown): number => JSON.stringify(value ?? null).length

/** Deeper values than this are refused: they are of no use to a model, and a hazard to every parser on the way. */
export const MAX_JSON_DEPTH = 100

/**
 * JSON as Postgres can hold it: its texts and the names of its fields are storable. What is already comes back as it is.
 *
 * @throws {RangeError} where it is nested deeper than `MAX_JSON_DEPTH`.
 */
export const toStorableJson = (value: unknown): unknown => (isStorable(value) ? value : toStorableCopy(value))

const isStorableText = (text: string): boolean => !text.includes('\0') && text.isWellFormed()

/** Most values are: to look costs a fraction of a copy, above all of an object with many fields. */
function isStorable(value: unknown, depth = 0): boolean {
  if (typeof value === 'string') return isStorableText(value)
  if (typeof value !== 'object' || value === null) return true
  demandShallow(depth)
  if (Array.isArray(value)) return value.every((item) => isStorable(item, depth + 1))
  const fields = value as Record<string, unknown>
  return Object.keys(fields).every((name) => isStorableText(name) && isStorable(fields[name], depth + 1))
}

function toStorableCopy(value: unknown, depth = 0): unknown {
  if (typeof value === 'string') return toStorableText(value)
  if (typeof value !== 'object' || value === null) return value
  demandShallow(depth)
  if (Array.isArray(value)) return value.map((item) => toStorableCopy(item, depth + 1))
  const entries = Object.entries(value)
  return Object.fromEntries(
    entries.map(([name, field]) => [toStorableText(name), toStorableCopy(field, depth + 1)]),
  )
}

function demandShallow(depth: number): void {
  if (depth === MAX_JSON_DEPTH) throw new RangeError(`JSON is nested deeper than ${MAX_JSON_DEPTH} levels`)
}

/** The text of a message, its text parts joined. */
export const textOf = (parts: readonly MessagePart[]): string =>
  parts.map((part) => (part.type === 'text' ? part.text : '')).join('')
