import { textOf, type MessagePart } from '../protocol/messages.ts'

/** In characters. */
const LENGTH = 60

/** How much of a message is looked at, in UTF-16 units: more than enough for the title, and little of a megabyte. */
const LOOKED_AT = 1000

/**
 * What a chat is called before anybody has given it a title: the beginning of its first message on one line, cut at a
 * word where one ends soon before.
 *
 * @returns `null` for a message without text.
 */
export function fallbackTitle(parts: readonly MessagePart[]): string | null {
  const line = textOf(parts).slice(0, LOOKED_AT).toWellFormed().replaceAll(/\s+/g, ' ').trim()
  const characters = Array.from(line)
  if (characters.length <= LENGTH) return line === '' ? null : line
  const beginning = characters.slice(0, LENGTH - 1).join('')
  const word = beginning.lastIndexOf(' ')
  return `${(word > LENGTH / 2 ? beginning.slice(0, word) : beginning).trimEnd()}…`
}
