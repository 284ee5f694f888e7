/** What a text says that JSON has escaped, in ASCII: other characters stand there as `\xff`. */
export interface Unescaped {
  text: string
  /** Where in the escaped text a character of this one begins. */
  placeOf(at: number): number
}

const BACKSLASH = '\\'.charCodeAt(0)
const OTHER = 0xff
/** How JSON escapes what it could as well write as it is, apart from codes. */
const SHORT = /^["\\/]$/
const CODE = /^u[0-9a-fA-F]{4}$/

/** In one pass: a server may send megabytes of backslashes. */
export function unescapeText(escaped: string): Unescaped {
  if (!escaped.includes('\\')) return { text: escaped, placeOf: (at) => at }
  const characters = Buffer.alloc(escaped.length)
  const places = new Uint32Array(escaped.length + 1)
  let length = 0
  for (let at = 0; at < escaped.length; length++) {
    const width = widthAt(escaped, at)
    const code =
      width === 6 ? parseInt(escaped.slice(at + 2, at + 6), 16) : escaped.charCodeAt(at + width - 1)
    characters[length] = Math.min(code, OTHER)
    places[length] = at
    at += width
  }
  places[length] = escaped.length
  return {
    text: characters.toString('latin1', 0, length),
    placeOf: (at) => places[at] ?? escaped.length,
  }
}

/** How many characters of the escaped text stand for the one that begins here. */
function widthAt(escaped: string, at: number): 1 | 2 | 6 {
  if (escaped.charCodeAt(at) !== BACKSLASH) return 1
  if (SHORT.test(escaped.charAt(at + 1))) return 2
  return CODE.test(escaped.slice(at + 1, at + 6)) ? 6 : 1
}
