import type { ComputerAction } from '../protocol/computer.ts'

/** Of the display, in pixels. */
export interface DisplaySize {
  width: number
  height: number
}

/**
 * One display with a browser on it, of one chat.
 *
 * Every method throws a `ComputerFailure` in words for the model, and what the signal was aborted with as soon as it is:
 * what is under way is then abandoned, and the session is good for nothing but `close`.
 */
export interface ComputerSession {
  /** Does what can be done to the display. Its caller has checked the action. */
  perform(action: ComputerAction, signal: AbortSignal): Promise<void>
  /** Goes to a page. @throws {ComputerFailure} where it may not be reached, cannot be, or is no page. */
  goto(url: string, signal: AbortSignal): Promise<void>
  /** What the display shows once it has come to rest, or has been given enough time for it: a PNG of the display's size. */
  screenshot(signal: AbortSignal): Promise<Uint8Array>
  /** Where the page is that the display shows. */
  address(): string
  /** What happened by itself since this was asked last, such as a dialog that was dismissed: one sentence each. */
  takeNotes(): string[]
  /** Whether the browser behind it is still there, and answers. Never throws. */
  isAlive(): Promise<boolean>
  /** Ends it, and with the last one the browser. Never throws; twice is fine. */
  close(): Promise<void>
}

/** Gives displays. */
export interface ComputerDriver {
  readonly size: DisplaySize
  /** An empty page in a profile of its own. @throws {ComputerFailure} where no browser can be had. */
  open(owner: { chatId: string }): Promise<ComputerSession>
  /** Closes everything, and gives nothing any more. */
  stop(): Promise<void>
}

/** What went wrong, in words for the model. */
export class ComputerFailure extends Error {
  override readonly name = 'ComputerFailure'

  /** Whether the session is of no use any more. */
  readonly lost: boolean

  constructor(message: string, options: ErrorOptions & { lost?: boolean } = {}) {
    super(message, options)
    this.lost = options.lost ?? false
  }
}
