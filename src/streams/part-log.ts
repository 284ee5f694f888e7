import type { AnswerPart } from '../protocol/parts.ts'
import type { PartPosition } from './cursor.ts'

/** A part as it lies in the log. `snapshotVersion` is the chat's at the claim that wrote it. */
export interface LoggedPart extends PartPosition {
  snapshotVersion: number
  part: AnswerPart
}

/** What a subscriber of a chat hears. Both are hints: parts may be missing, a change may be told twice or not at all. */
export type LogNews = { type: 'parts'; parts: LoggedPart[] } | { type: 'changed' }

/** A short log of the parts of each chat's running step, and the news of it. Losing it loses no answer. */
export interface PartLog {
  /**
   * Appends parts of one attempt, in order. The first part of an attempt (seq 1) empties the log before it, unless that
   * holds a later attempt: a worker that has lost its turn may not know.
   */
  append(chatId: string, parts: readonly LoggedPart[]): Promise<void>
  /** What the log holds, oldest first. */
  read(chatId: string): Promise<LoggedPart[]>
  /** Tells watchers that the chat's committed state changed. Never waits, never throws. */
  announce(chatId: string): void
  /** Tells the worker of a turn to look at the turn's row at once. A hint: never waits, never throws. */
  poke(turnId: string): void
  /** Hears what `poke` says, from any process. The result stops it. */
  onPoke(listener: (turnId: string) => void): Promise<() => void>
  /** Resolves when news is being listened for. The result stops it. */
  subscribe(chatId: string, listener: (news: LogNews) => void): Promise<() => void>
  close(): Promise<void>
}
