import { setTimeout as sleep } from 'node:timers/promises'
import type { AnswerPart } from '../protocol/parts.ts'
import type { PartPosition } from './cursor.ts'
import type { LoggedPart, PartLog } from './part-log.ts'

export interface PartWriterOptions {
  log: Pick<PartLog, 'append'>
  /** How long parts are gathered, in ms. */
  flushMs: number
  /** How much text is gathered, in characters. */
  flushBytes: number
  /** Told of an append that failed; the answer itself is not in danger. */
  onError(error: unknown): void
}

export type AttemptPosition = Omit<PartPosition, 'seq'> & { chatId: string; snapshotVersion: number }

/** Writes the parts of one attempt to the log. Never throws and never delays the turn. */
export interface PartWriter {
  write(part: AnswerPart): void
  /** Waits until what was written is in the log, for 100 ms at most. */
  flush(): Promise<void>
}

/** How long a commit waits for the log. */
const FLUSH_LIMIT_MS = 100

/** The most that the log holds of one attempt, in characters, and about what a part takes beside its text. */
const LOG_LIMIT = 1024 * 1024
const PART_OVERHEAD = 100

/** The first part goes out at once; later ones are gathered, neighbouring deltas of a block as one part. */
export function createPartWriter(attempt: AttemptPosition, options: PartWriterOptions): PartWriter {
  const { chatId, ...position } = attempt
  let gathered: AnswerPart[] = []
  let gatheredLength = 0
  let seq = 0
  let lastFlush = -Infinity
  let written = 0
  let timer: NodeJS.Timeout | undefined
  let writing: Promise<void> = Promise.resolve()
  let busy = false

  function send(): void {
    clearTimeout(timer)
    timer = undefined
    if (busy || gathered.length === 0) return
    const parts: LoggedPart[] = gathered.map((part) => ({ ...position, seq: ++seq, part }))
    gathered = []
    gatheredLength = 0
    lastFlush = performance.now()
    busy = true
    writing = options.log
      .append(chatId, parts)
      .catch(options.onError)
      .finally(() => {
        busy = false
        schedule()
      })
  }

  function schedule(): void {
    if (gathered.length === 0 || timer !== undefined) return
    const wait = gatheredLength >= options.flushBytes ? 0 : lastFlush + options.flushMs - performance.now()
    timer = setTimeout(send, Math.max(0, wait))
  }

  async function drain(): Promise<void> {
    while (busy || gathered.length > 0) {
      send()
      await writing
    }
  }

  /** Beyond the cap one number is left out: readers find the gap and withdraw the preview until the message comes. */
  function exceedsCap(part: AnswerPart): boolean {
    if (written > LOG_LIMIT) return true
    written += PART_OVERHEAD + ('text' in part ? part.text.length : 0)
    if (written > LOG_LIMIT) {
      send()
      seq++
    }
    return false
  }

  return {
    write: (part) => {
      if (exceedsCap(part)) return
      gatheredLength += 'text' in part ? part.text.length : 0
      if (!mergeInto(gathered.at(-1), part)) gathered.push({ ...part })
      if (gatheredLength >= options.flushBytes) send()
      else schedule()
    },
    flush: () => Promise.race([drain(), sleep(FLUSH_LIMIT_MS, undefined, { ref: false })]),
  }
}

/** Two neighbouring deltas of one block are one delta. */
function mergeInto(last: AnswerPart | undefined, part: AnswerPart): boolean {
  if (last?.id !== part.id) return false
  if (last.type === 'text-delta' && part.type === 'text-delta') last.text += part.text
  else if (last.type === 'reasoning-delta' && part.type === 'reasoning-delta') last.text += part.text
  else return false
  return true
}
