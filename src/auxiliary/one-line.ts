import { toStorableText } from '../protocol/messages.ts'

/** What a title must not hold: controls, invisible characters, and what turns the direction of text around. */
const UNSEEN = /[\p{Cc}\u200B\u200E\u200F\u2028\u2029\u202A-\u202E\u2060\u2066-\u2069\uFEFF]+/gu

/** Markdown before a line (heading, quotation, list) and the word with which models like to begin. */
const PREFIX =
  /^(?:(?:[#>*+-]+|\d+[.)])\s+)*(?:\*{1,3}|_{1,3})?(?:title|label)\s*:(?:\*{1,3}|_{1,3})?\s+|^(?:(?:[#>*+-]+|\d+[.)])\s+)+/iu

/** Pairs that models put around a whole answer. */
const PAIRS: readonly (readonly [string, string])[] = [
  ['"', '"'],
  ["'", "'"],
  ['“', '”'],
  ['„', '“'],
  ['‘', '’'],
  ['«', '»'],
  ['»', '«'],
  ['「', '」'],
  ['***', '***'],
  ['**', '**'],
  ['*', '*'],
  ['__', '__'],
  ['_', '_'],
  ['`', '`'],
]

/** How much of an answer is looked at, in UTF-16 units. */
const LOOKED_AT = 1000

/** How many layers of dress are taken off. */
const LAYERS = 6

/**
 * A model's answer as a title or label: its first line that says something, without quotation marks, markdown and a full
 * stop around it.
 *
 * @param maximum length in characters (code points), an ellipsis included.
 * @returns `null` where nothing is left.
 */
export function toOneLine(answer: string, maximum: number): string | null {
  const lines = toStorableText(answer.slice(0, LOOKED_AT)).split(/[\r\n]+/)
  for (const line of lines) {
    const bare = strip(line.replaceAll(UNSEEN, ' ').replaceAll(/\s+/g, ' ').trim())
    if (/[\p{L}\p{N}\p{S}]/u.test(bare)) return shorten(bare, maximum)
  }
  return null
}

function strip(line: string): string {
  let bare = line
  for (let layer = 0; layer < LAYERS; layer++)
    bare = unwrap(bare.replace(PREFIX, '').trim()).replace(/(?<!\.)\.$/, '')
  return bare.trim()
}

function unwrap(line: string): string {
  const pair = PAIRS.find(
    ([open, close]) =>
      line.length > open.length + close.length && line.startsWith(open) && line.endsWith(close),
  )
  return pair === undefined ? line : line.slice(pair[0].length, -pair[1].length).trim()
}

function shorten(line: string, maximum: number): string {
  const characters = Array.from(line)
  return characters.length <= maximum
    ? line
    : `${characters
        .slice(0, maximum - 1)
        .join('')
        .trimEnd()}…`
}
