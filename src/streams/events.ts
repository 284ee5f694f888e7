import type { StoredError } from '../protocol/errors.ts'
import type { AnswerPart } from '../protocol/parts.ts'
import type {
  ChatStatus,
  MessageView,
  QueuedMessageView,
  RequiredAction,
  RetryState,
  TurnState,
} from '../protocol/views.ts'
import type { Usage } from '../protocol/usage.ts'

/** What a watcher of a chat is told. States (`status`, `queue`) are given as they are now, not as they changed. */
export type ChatEvent =
  /** A committed message. It replaces the preview of its step, if there was one. */
  | { type: 'message'; message: MessageView }
  /** A piece of the answer that is being written. */
  | { type: 'part'; turn: number; step: number; part: AnswerPart }
  | {
      type: 'status'
      status: ChatStatus
      activeTurnId: string | null
      error: StoredError | null
      title: string | null
      /** Why a model has not named the chat, where that failed last. */
      titleError: StoredError | null
      statusLabel: string | null
    }
  /** The turn waits for its client: `POST …/tool-results` answers all of these calls. */
  | ({ type: 'action_required' } & RequiredAction)
  | { type: 'queue'; queuedMessages: QueuedMessageView[] }
  /**
   * Drop what you have: with scope `preview` the unfinished answer, with scope `history` every message; the messages
   * that remain follow at once.
   */
  | { type: 'reset'; scope: 'preview' | 'history' }
  /** An attempt failed and is tried again: what was shown of it is dropped. `retryAt` may have passed already. */
  | ({ type: 'retry'; turnId: string; number: number } & RetryState)
  /** A turn has ended. */
  | {
      type: 'turn'
      turnId: string
      number: number
      state: TurnState
      usage: Usage | null
      error: StoredError | null
    }

/** An event with its place in the chat's stream. */
export interface PlacedEvent {
  id: string
  event: ChatEvent
}
