/**
 * Readers for what a provider sent. The SDKs' types describe what the official APIs answer; compatible servers leave
 * fields out or fill them otherwise, so nothing of an event is used before it went through one of these.
 */

/** An object, or an empty one for anything else. */
export const asRecord = (value: unknown): Record<string, unknown> => (isRecord(value) ? value : {})

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** A string, or an empty one for anything else. */
export const asText = (value: unknown): string => (typeof value === 'string' ? value : '')

/** An array, or an empty one for anything else. */
export const asList = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [])

/** A count of tokens, or 0 for anything that is none. */
export const asCount = (value: unknown): number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value > 0 ? value : 0

/** What a table says of a word from outside, which may be the name of anything that every object has. */
export const lookUp = <T>(table: Readonly<Record<string, T>>, word: string): T | undefined =>
  Object.hasOwn(table, word) ? table[word] : undefined
