import type { BodyGuard } from '../models/index.ts'
import { asList, isRecord } from '../providers/index.ts'

/** Between two events, in each of the forms that the format allows. */
const BOUNDARY = /\r\n\r\n|\n\n|\r\r/g

/** An event that is longer is passed on as it comes: it is not the one. */
const MAX_HELD = 1_000_000

/**
 * Takes the chunk of usage out of a stream of chat completions whose caller has not asked for it.
 * Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
export function hideUsage(): BodyGuard {
  const decoder = new TextDecoder()
  let held = ''
  return {
    pass: (chunk) => {
      // A boundary may have begun in what was held.
      BOUNDARY.lastIndex = Math.max(0, held.length - 3)
      held += decoder.decode(chunk, { stream: true })
      let shown = ''
      let start = 0
      for (let found = BOUNDARY.exec(held); found !== null; found = BOUNDARY.exec(held)) {
        const event = held.slice(start, BOUNDARY.lastIndex)
        if (!isUsageAlone(event)) shown += event
        start = BOUNDARY.lastIndex
      }
      held = held.slice(start)
      if (held.length > MAX_HELD) {
        shown += held
        held = ''
      }
      return Buffer.from(shown)
    },
    rest: () => Buffer.from(held),
  }
}

function isUsageAlone(event: string): boolean {
  const data = /^data: ?(\{.*)$/m.exec(event)?.[1]
  if (data?.includes('"usage"') !== true) return false
  try {
    const chunk: unknown = JSON.parse(data)
    return isRecord(chunk) && isRecord(chunk.usage) && asList(chunk.choices).length === 0
  } catch {
    return false
  }
}
