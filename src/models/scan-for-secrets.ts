const REDACTED = Buffer.from('<redacted>')

const BACKSLASH = 0x5c
const LETTER_U = 0x75
/** Of `\u002f`. */
const LONG_FORM = 6

export interface Scanned {
  /** What may be passed on. */
  passed: Buffer
  /** Where a form of a secret may have begun whose end has not come; the length of the text where none has. */
  heldFrom: number
}

/**
 * Takes secrets out of a text: as they are, and in every form that a writer of JSON may give them, with `\/`, `\u002B` or
 * `\"` for any of their characters.
 *
 * @param secrets of four bytes at least.
 * @param isEnd whether nothing comes behind the text.
 */
export function scanForSecrets(
  text: Buffer,
  secrets: readonly Buffer[],
  { isEnd }: { isEnd: boolean },
): Scanned {
  const finders = secrets.map((secret) => createFinder(text, secret))
  const pieces: Buffer[] = []
  let start = 0
  let at = nextOf(finders, 0)
  while (at < text.length) {
    const end = endOfLongest(text, at, secrets, isEnd)
    if (end === CUT) return { passed: joined(pieces, text.subarray(start, at)), heldFrom: at }
    if (end !== NONE) {
      pieces.push(text.subarray(start, at), REDACTED)
      start = end
    }
    at = nextOf(finders, end === NONE ? at + 1 : end)
  }
  return { passed: joined(pieces, text.subarray(start)), heldFrom: text.length }
}

const joined = (pieces: Buffer[], last: Buffer): Buffer =>
  pieces.length === 0 ? last : Buffer.concat([...pieces, last])

/** Where a form may begin next, from a place on; the length of the text where none may. */
type Finder = (from: number) => number

const nextOf = (finders: readonly Finder[], from: number): number =>
  finders.reduce((next, find) => Math.min(next, find(from)), Infinity)

/** As many characters are rarely found where no secret is. */
const BEGINNING = 4

/** A form begins with its first characters, or with fewer of them and an escape, or with fewer at the end of the text. */
function createFinder(text: Buffer, secret: Buffer): Finder {
  const beginning = secret.subarray(0, BEGINNING)
  const findPlain = createSearch(text, beginning)
  const findEscape = createSearch(text, BACKSLASH)
  const begunBefore = (at: number, from: number): number => {
    for (let length = Math.min(BEGINNING - 1, at - from); length > 0; length--)
      if (text.subarray(at - length, at).equals(beginning.subarray(0, length))) return at - length
    return at
  }
  return (from) =>
    Math.min(findPlain(from), begunBefore(findEscape(from), from), begunBefore(text.length, from))
}

/** Looks for the same thing again only behind where it was found. */
function createSearch(text: Buffer, wanted: Buffer | number): Finder {
  let found = -1
  return (from) => {
    if (found >= from) return found
    const at = text.indexOf(wanted, from)
    found = at === -1 ? text.length : at
    return found
  }
}

const NONE = 0
const CUT = -1

/** Where the longest secret that stands here ends; `CUT` where one may go on behind the text, `NONE` where there is none. */
function endOfLongest(text: Buffer, at: number, secrets: readonly Buffer[], isEnd: boolean): number {
  let longest = NONE
  for (const secret of secrets) {
    const end = endOf(text, at, secret)
    if (end === CUT && !isEnd) return CUT
    longest = Math.max(longest, end)
  }
  return longest
}

function endOf(text: Buffer, at: number, secret: Buffer): number {
  let index = at
  for (const wanted of secret) {
    const length = lengthOfForm(text, index, wanted)
    if (length <= 0) return length
    index += length
  }
  return index
}

/** How many bytes stand for the wanted one here; `NONE` where another one does, `CUT` where the text ends amid it. */
function lengthOfForm(text: Buffer, at: number, wanted: number): number {
  const byte = text[at]
  if (byte === undefined) return CUT
  if (byte !== BACKSLASH) return byte === wanted ? 1 : NONE
  const next = text[at + 1]
  if (next === undefined) return CUT
  if (next === LETTER_U) return lengthOfCode(text, at, wanted)
  if (next === wanted) return 2
  return wanted === BACKSLASH ? 1 : NONE
}

function lengthOfCode(text: Buffer, at: number, wanted: number): number {
  if (at + LONG_FORM > text.length) return CUT
  const code = text.toString('latin1', at + 2, at + LONG_FORM)
  if (/^[\da-f]{4}$/i.test(code) && Number.parseInt(code, 16) === wanted) return LONG_FORM
  return wanted === BACKSLASH ? 1 : NONE
}
