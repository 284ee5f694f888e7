/** Leaves out of an event stream what its reader cannot take. */
export interface EventFilter {
  /** The whole events that end with this chunk. Borders of chunks may fall anywhere. */
  pass(chunk: Uint8Array): Uint8Array
  /** What there is at the end, as an event. */
  rest(): Uint8Array
}

/**
 * Leaves out events without data, with which some servers keep a connection open: by the specification they are not
 * dispatched, but an SDK parses what they lack.
 */
export function eventsWithData(): EventFilter {
  const { pass, rest } = filterEvents((event) => HAS_DATA.test(event))
  return {
    pass,
    rest: () => {
      const event = rest()
      return event.length === 0 ? event : Buffer.concat([event, EMPTY_LINE])
    },
  }
}

/**
 * Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
 *
 * @param isKept is given an event as it is written, with a character per byte.
 */
export function filterEvents(isKept: (event: string) => boolean): EventFilter {
  /** Of an event that has not ended. */
  let pieces: string[] = []
  /** The last two characters so far. */
  let last = ''
  return {
    pass: (chunk) => {
      // A character per byte, whatever they mean.
      const text = toBuffer(chunk).toString('latin1')
      // An end may begin with the chunk before.
      const end = endOfLast(last + text) - last.length
      last = (last + text).slice(-2)
      if (end <= 0) {
        pieces.push(text)
        return NOTHING
      }
      const events = [...pieces, text.slice(0, end)].join('')
      const isWhole = pieces.length === 0 && end === text.length
      pieces = end === text.length ? [] : [text.slice(end)]
      const passed = events.replace(EVENT, (event) => (isKept(event) ? event : ''))
      return isWhole && passed.length === text.length ? chunk : Buffer.from(passed, 'latin1')
    },
    rest: () => {
      const event = pieces.join('')
      return isKept(event) ? Buffer.from(event, 'latin1') : NOTHING
    },
  }
}

const NOTHING = new Uint8Array(0)
const EMPTY_LINE = Buffer.from('\n\n')

/** The same bytes, not a copy. */
const toBuffer = ({ buffer, byteOffset, byteLength }: Uint8Array): Buffer =>
  Buffer.from(buffer, byteOffset, byteLength)

/** An empty line ends an event, with line ends of any kind. */
const EVENT = /[^]*?(?:\n\r?\n|\r\r)/g

/** A stream may begin with a byte order mark. */
const HAS_DATA = /(?:^(?:\xEF\xBB\xBF)?|[\n\r])data:[^\S\n\r]*\S/

const EMPTY_LINES = ['\n\n', '\n\r\n', '\r\r']

/** Where the last whole event ends; 0 where none does. */
function endOfLast(text: string): number {
  const ends = EMPTY_LINES.map((line) => text.lastIndexOf(line) + line.length)
  return Math.max(0, ...ends.filter((end, index) => end >= (EMPTY_LINES[index] ?? '').length))
}
