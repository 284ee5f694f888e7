import { afterStep, comparePositions, sameAttempt, START, type PartPosition } from './cursor.ts'
import type { LoggedPart } from './part-log.ts'

/** What to do with a part from the log. */
export type PartVerdict =
  /** Give it to the watcher. */
  | 'deliver'
  /** Give it, after a reset: another attempt at the step has begun. */
  | 'reset-and-deliver'
  /** It was given before, or a commit overtook it. */
  | 'drop'
  /** Parts between the last one and this are missing. */
  | 'gap'

/**
 * What one watcher has been shown of unfinished answers, and by that, what it may be shown next.
 *
 * I9 no part is given twice, and none is missing between two given ones: a part is given only if it stands behind the
 * cursor and directly follows the part before; where that fails the preview is withdrawn until the message comes.
 */
export class Preview {
  #cursor: PartPosition
  /** The attempt whose parts are not shown, since some were missed. */
  #withdrawn: PartPosition | null = null
  /** Whether the watcher holds parts that no message has replaced. */
  #shown: boolean

  /** @param seen where a watcher that has been here before left off. */
  constructor(seen: PartPosition = START) {
    this.#cursor = seen
    this.#shown = seen.seq > 0 && seen.seq < Infinity
  }

  get cursor(): PartPosition {
    return this.#cursor
  }

  judge(part: LoggedPart): PartVerdict {
    if (comparePositions(part, this.#cursor) <= 0) return 'drop'
    if (this.#withdrawn !== null && sameAttempt(part, this.#withdrawn)) return 'drop'
    const follows = sameAttempt(part, this.#cursor) ? part.seq === this.#cursor.seq + 1 : part.seq === 1
    if (!follows) return 'gap'
    return this.#shown && !sameAttempt(part, this.#cursor) ? 'reset-and-deliver' : 'deliver'
  }

  delivered({ turn, step, epoch, attempt, seq }: LoggedPart): void {
    this.#cursor = { turn, step, epoch, attempt, seq }
    this.#withdrawn = null
    this.#shown = true
  }

  /** Shows nothing more of the part's attempt. Whether the watcher holds a preview that must be dropped. */
  withdraw(part: LoggedPart): boolean {
    this.#withdrawn = part
    return this.drop()
  }

  /** A message was committed at this step: its preview is replaced, and no part of it follows. */
  committed(turn: number, step: number): void {
    const position = afterStep(turn, step)
    if (comparePositions(position, this.#cursor) <= 0) return
    if (this.#cursor.turn === turn && this.#cursor.step === step) this.#shown = false
    this.#cursor = position
  }

  /** An attempt failed and is tried again: nothing more of it follows. Whether a later one is shown already. */
  overtakes(attempt: Omit<PartPosition, 'seq'>): boolean {
    const end = { ...attempt, seq: Infinity }
    if (comparePositions(end, this.#cursor) <= 0) return true
    this.#cursor = end
    return false
  }

  /** The turn ended: nothing more comes of it. Whether the watcher holds a preview that must be dropped. */
  ended(turn: number): boolean {
    const mine = this.#cursor.turn <= turn
    this.committed(turn, Infinity)
    return mine && this.drop()
  }

  /** Whether there was a preview. */
  drop(): boolean {
    const shown = this.#shown
    this.#shown = false
    return shown
  }
}
