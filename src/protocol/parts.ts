import type { TurnmillError } from './errors.ts'
import type { Usage } from './usage.ts'

/** Why a model stopped, in one vocabulary for all wire formats. */
export type FinishReason = 'stop' | 'length' | 'content_filter' | 'refusal' | 'tool_calls'

/**
 * A piece of a streamed answer that watchers see. Noun-verb; `id` names the block within its step, so that blocks may
 * interleave. Deltas are never empty.
 */
export type AnswerPart =
  | { type: 'text-start'; id: string }
  | { type: 'text-delta'; id: string; text: string }
  | { type: 'text-end'; id: string }
  | { type: 'reasoning-start'; id: string }
  | { type: 'reasoning-delta'; id: string; text: string }
  | {
      type: 'reasoning-end'
      id: string
      /** What the provider wants back with this block in later steps (signature, encrypted content), opaque to us. */
      providerData?: Record<string, unknown>
    }
  | { type: 'tool-input-start'; id: string; toolCallId: string; toolName: string }
  /** Text of the arguments' JSON as it comes, which need not be JSON yet. */
  | { type: 'tool-input-delta'; id: string; text: string }
  | {
      type: 'tool-input-end'
      id: string
      /** The arguments, parsed; their text where that failed, and then `inputError` says why. */
      input: unknown
      inputError?: string
      /** What the provider wants back with this call in later steps, opaque to us. */
      providerData?: Record<string, unknown>
    }

/** How a model call ends: the provider's own ending was seen, or it failed. */
export type EndPart =
  | { type: 'finish'; reason: FinishReason; usage: Usage; providerModel?: string; responseId?: string }
  | {
      type: 'error'
      error: TurnmillError
      /** What the call used all the same. Left out where nothing was. */
      usage?: Usage
    }

/** Everything a provider adapter yields. The last part is always exactly one `EndPart`. */
export type StreamPart = AnswerPart | EndPart
