export interface AnswerLimits {
  /** The longest answer, in bytes after decompression. */
  maxBytes: number
  /** How many values of JSON an answer may hold: `[0,0]` holds three. */
  maxValues: number
  /** How many lines an answer may have. */
  maxLines: number
}

/** Weighs an answer while it is read, before anything takes it apart: a short one may hold more than is read in a moment. */
export interface AnswerMeter {
  /** @throws {Error} where the answer goes beyond a limit with this. */
  add(chunk: Uint8Array): void
}

const byteOf = (character: string): number => character.charCodeAt(0)
const QUOTE = byteOf('"')
const BACKSLASH = byteOf('\\')
const LINE_FEED = byteOf('\n')
const CARRIAGE_RETURN = byteOf('\r')
const COMMA = byteOf(',')
const BRACKET = byteOf('[')
const BRACE = byteOf('{')

/**
 * A value more comes after every comma, bracket and brace outside of a text. No text of JSON goes beyond its line, also in
 * an event stream. Of what is no JSON it may count too much.
 */
export function createAnswerMeter({ maxBytes, maxValues, maxLines }: AnswerLimits): AnswerMeter {
  let bytes = 0
  let values = 1
  let lines = 1
  let inText = false
  let isEscaped = false

  const readOutside = (byte: number): void => {
    if (byte === QUOTE) inText = true
    else if (byte === COMMA || byte === BRACKET || byte === BRACE) values += 1
  }
  const readInText = (byte: number): void => {
    if (isEscaped) isEscaped = false
    else if (byte === BACKSLASH) isEscaped = true
    else if (byte === QUOTE) inText = false
  }
  const endLine = (): void => {
    lines += 1
    inText = false
    isEscaped = false
  }
  const demand = (count: number, most: number, what: string): void => {
    if (count > most) throw new Error(`the server's answer is longer than ${most} ${what}`)
  }
  return {
    add: (chunk) => {
      bytes += chunk.byteLength
      demand(bytes, maxBytes, 'bytes')
      for (const byte of chunk)
        if (byte === LINE_FEED || byte === CARRIAGE_RETURN) endLine()
        else if (inText) readInText(byte)
        else readOutside(byte)
      demand(values, maxValues, 'values')
      demand(lines, maxLines, 'lines')
    },
  }
}
