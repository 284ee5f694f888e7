/** What the clients asked for and were told: the record that the database is held against at the end. */

/** `acknowledged`: a 2xx came. `refused`: a 4xx came. `unknown`: no answer in time, so it may or may not have happened. */
export type Outcome = 'acknowledged' | 'refused' | 'unknown'

export type MessageKind = 'create' | 'send' | 'edit'

/** A message that a client asked to be taken. Its text is unlike any other. */
export interface SentMessage {
  kind: MessageKind
  text: string
  chatId: string | null
  outcome: Outcome
  /** Which of the three the answer gave. */
  messageId: string | null
  turnId: string | null
  queuedMessageId: string | null
}

/** What else was asked of a chat that may end a turn or a queued message. All that was not refused counts. */
export interface ChatRecord {
  edits: number
  /** Interrupts, sends that interrupt, promotions by hand. */
  stops: number
  retries: number
  deletedQueued: Set<string>
  /** Promoted or moved by hand, so that the queue's order is not that of arrival. */
  movedQueued: Set<string>
  /** The latest text of queued messages that were edited, while nobody knows whether an edit came too late. */
  editedQueued: Map<string, Set<string>>
}

export class Ledger {
  readonly messages: SentMessage[] = []
  readonly chats = new Map<string, ChatRecord>()
  /** Answers that no client should ever get. */
  readonly offences: string[] = []
  /** Problem codes that were answered, with how often. */
  readonly refusals = new Map<string, number>()
  /** Requests that got no answer, and were sent again. */
  unanswered = 0
  /** Answers given again under an Idempotency-Key. */
  replayed = 0
  watched = 0
  /** Messages for which a 2xx came. */
  acknowledged = 0
  #texts = 0

  newText(): string {
    return `message ${++this.#texts} of the storm`
  }

  chat(id: string): ChatRecord {
    const found = this.chats.get(id)
    if (found !== undefined) return found
    const record: ChatRecord = {
      edits: 0,
      stops: 0,
      retries: 0,
      deletedQueued: new Set(),
      movedQueued: new Set(),
      editedQueued: new Map(),
    }
    this.chats.set(id, record)
    return record
  }

  refuse(code: string): void {
    this.refusals.set(code, (this.refusals.get(code) ?? 0) + 1)
  }
}
