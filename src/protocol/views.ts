import type { StoredError } from './errors.ts'
import type { MessageBoundary, MessagePart, MessageRole, ReasoningEffort } from './messages.ts'
import type { Usage } from './usage.ts'

export const TURN_STATES = [
  'pending',
  'running',
  'interrupting',
  'requires_action',
  'waiting',
  'completed',
  'failed',
  'interrupted',
  'superseded',
] as const
export type TurnState = (typeof TURN_STATES)[number]

/** A chat repeats the state of its active turn; without one it is idle, or failed if its last turn failed. */
export type ChatStatus =
  'idle' | 'failed' | 'pending' | 'running' | 'interrupting' | 'requires_action' | 'waiting'

/** What a small model is asked beside the turns: a title for a chat, or a label of what it is doing (`quickgen`). */
export const AUXILIARY_PURPOSES = ['title', 'quickgen'] as const
export type AuxiliaryPurpose = (typeof AUXILIARY_PURPOSES)[number]

export const RUN_STATES = ['pending', 'running', 'completed', 'failed'] as const
export type RunState = (typeof RUN_STATES)[number]

/** A chat as its owner sees it. Times are ISO 8601 in UTC, versions count up from 1. */
export interface ChatView {
  id: string
  /** Its owner's, or a model's; until there is one, the beginning of the first message. */
  title: string | null
  /** Why a model has not named it, where that failed last; its title stays. */
  titleError: StoredError | null
  status: ChatStatus
  /** What its turn is doing, in a few words of a small model; `null` without one, and while no turn is at work. */
  statusLabel: string | null
  activeTurnId: string | null
  lastTurnId: string | null
  modelConfigId: string | null
  labels: string[]
  /** The chat whose turn spawned this one, for a subagent. */
  parentId: string | null
  systemPrompt: string | null
  lastError: StoredError | null
  archivedAt: string | null
  snapshotVersion: number
  historyVersion: number
  queueVersion: number
  createdAt: string
  updatedAt: string
}

export interface MessageView {
  id: string
  chatId: string
  turnId: string | null
  step: number
  role: MessageRole
  parts: MessagePart[]
  /** Set where the model's context begins anew. */
  boundary: MessageBoundary | null
  /** Not shown to the model any more: it lies before a boundary. */
  compressed: boolean
  revision: number
  apiKeyId: string | null
  modelConfigId: string | null
  finishReason: string | null
  usage: Usage | null
  costMicros: number | null
  createdAt: string
}

/** Why a turn tries a step again, and when. */
export interface RetryState {
  step: number
  /** Attempts of that step that failed so far. */
  attempts: number
  error: StoredError
  /** When the next attempt begins, ISO 8601. */
  retryAt: string
}

export interface TurnView {
  id: string
  chatId: string
  number: number
  trigger: TurnTrigger
  state: TurnState
  epoch: number
  apiKeyId: string | null
  userMessageId: string | null
  modelConfigId: string | null
  error: StoredError | null
  /** Of the last attempt that failed and is tried again; shown while the turn is pending or running. */
  retry: RetryState | null
  usage: Usage | null
  costMicros: number | null
  /** The chat's snapshot version at its last change of state. */
  revision: number
  createdAt: string
  claimedAt: string | null
  firstPartAt: string | null
  finishedAt: string | null
}

/** A title that was asked for. */
export interface AuxiliaryRunView {
  id: string
  chatId: string
  purpose: AuxiliaryPurpose
  state: RunState
  apiKeyId: string | null
  createdAt: string
}

export interface QueuedMessageView {
  id: string
  chatId: string
  parts: MessagePart[]
  apiKeyId: string | null
  modelConfigId: string | null
  reasoningEffort: ReasoningEffort | null
  createdAt: string
}

/** What made a turn. */
export type TurnTrigger = 'create' | 'send' | 'edit' | 'promote' | 'subagent' | 'compact' | 'retry'

/** Where a call stands in the ledger: asked for, waiting, about to run or running, ended. */
export type ToolCallState =
  | 'requested'
  | 'awaiting_client'
  | 'awaiting_approval'
  | 'approved'
  | 'started'
  | 'done'
  | 'denied'
  | 'unknown'

/** The calls that a turn waits for its client to answer. */
export interface RequiredAction {
  turnId: string
  calls: { toolCallId: string; toolName: string; input: unknown; needs: 'result' | 'approval' }[]
  /** When they are refused and the turn goes on, ISO 8601. */
  deadline: string
}

/** What changed in a chat since a version, all of one moment. */
export interface ChatChanges {
  chat: ChatView
  /** Committed messages, oldest first, each with its turn's number. */
  messages: { message: MessageView; turnNumber: number | null }[]
  /** Turns that changed their state, oldest first. */
  turns: TurnView[]
  queue: QueuedMessageView[]
  /** `null` unless the chat waits for its client. */
  action: RequiredAction | null
}

/** How a job came to nothing, for operators to see and for the metrics to count. Text never goes into a job. */
export const JOB_NOTES = [
  /** An operator's retry that came too late. */
  'superseded',
  /** An operator's retry, whose turn runs once more under a job of its own. */
  'reopened',
  /** There is no such turn. */
  'gone',
  /** The turn is in a terminal state. */
  'ended',
  /** The turn waits for a slot, or until it is due. */
  'unadmitted',
  /** A worker that lives has the turn. */
  'held',
  /** The payload names no turn. */
  'nameless',
] as const
export type JobNote = (typeof JOB_NOTES)[number]
