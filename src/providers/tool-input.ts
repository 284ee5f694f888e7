import { toStorableJson, toStorableText } from '../protocol/messages.ts'
import { isRecord } from './outside.ts'

/** The arguments of a call, parsed; their text where they are not what they must be, and then what is wrong. */
export interface ToolInput {
  input: unknown
  inputError?: string
}

/** The input of a call in a provider's own form, with what goes back to it. */
export type NativeInput = ToolInput & { providerData?: Record<string, unknown> }

const REASON_LIMIT = 200

/** The arguments of one call may hold about this many values: many small ones take far longer to read than one long text. */
const MAX_VALUES = 10_000

/** What came as text instead of arguments, with the reason. */
export const badInput = (text: string, reason: string): ToolInput => ({
  input: toStorableText(text),
  inputError: toStorableText(reason.slice(0, REASON_LIMIT)),
})

/**
 * Reads the arguments of a call, storable. No text at all stands for no arguments, `{}`.
 *
 * @param text what the provider sent, put together.
 */
export function parseToolInput(text: string): ToolInput {
  if (text.trim() === '') return { input: {} }
  if (countValues(text) > MAX_VALUES)
    return badInput(text, `the arguments hold more than ${MAX_VALUES} values`)
  const parsed = parseJson(text)
  if ('error' in parsed) return badInput(text, `the arguments are no JSON: ${parsed.error}`)
  if (!isRecord(parsed.value)) return badInput(text, 'the arguments are JSON, but no object')
  try {
    return { input: toStorableJson(parsed.value) }
  } catch (error) {
    return badInput(text, `the arguments cannot be kept: ${messageOf(error)}`)
  }
}

const codeOf = (character: string): number => character.charCodeAt(0)
const BACKSLASH = codeOf('\\')
const QUOTE = codeOf('"')
/** What stands before a value, but for a field's colon: the field is counted. */
const BEGINNINGS: ReadonlySet<number> = new Set([',', '[', '{'].map(codeOf))

/** How many values a JSON text holds at most, found without reading it: each but the first stands behind one of `,` `[` `{`. */
export function countValues(text: string): number {
  let count = 1
  let inString = false
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index)
    if (inString && code === BACKSLASH) index++
    else if (code === QUOTE) inString = !inString
    else if (!inString && BEGINNINGS.has(code)) count++
  }
  return count
}

function parseJson(text: string): { value: unknown } | { error: string } {
  try {
    return { value: JSON.parse(text) as unknown }
  } catch (error) {
    return { error: messageOf(error) }
  }
}

/** Decides by shape: errors of another realm are no `Error` here. */
const messageOf = (error: unknown): string =>
  isRecord(error) && typeof error.message === 'string' ? error.message : String(error)
