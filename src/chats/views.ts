import type { StoredError } from '../protocol/errors.ts'
import type { MessageBoundary, MessagePart, MessageRole, ReasoningEffort } from '../protocol/messages.ts'
import type { Usage } from '../protocol/usage.ts'
import type {
  ChatStatus,
  ChatView,
  MessageView,
  QueuedMessageView,
  RetryState,
  TurnState,
  TurnTrigger,
  TurnView,
} from '../protocol/views.ts'

/** A row as Postgres' `to_jsonb` gives it: snake_case, timestamps as text, bigints as numbers. */
export type JsonRow = Record<string, unknown>

const time = (value: unknown): string => new Date(value as string).toISOString()
const timeOrNull = (value: unknown): string | null => (value === null ? null : time(value))
const idOrNull = (value: unknown): string | null => (value === null ? null : `${value as number}`)
const numberOrNull = (value: unknown): number | null => (value === null ? null : Number(value))

/** In these a turn is at work, and a label tells at what. */
const AT_WORK = new Set<unknown>(['running', 'interrupting', 'requires_action', 'waiting'])

export const toChatView = (row: JsonRow): ChatView => ({
  id: row['id'] as string,
  title: (row['title'] ?? row['fallback_title']) as string | null,
  titleError: row['title_error'] as StoredError | null,
  status: row['status'] as ChatStatus,
  statusLabel: AT_WORK.has(row['status']) ? (row['status_label'] as string | null) : null,
  activeTurnId: row['active_turn_id'] as string | null,
  lastTurnId: row['last_turn_id'] as string | null,
  modelConfigId: row['model_config_id'] as string | null,
  labels: row['labels'] as string[],
  parentId: row['parent_id'] as string | null,
  systemPrompt: row['system_prompt'] as string | null,
  lastError: row['last_error'] as StoredError | null,
  archivedAt: timeOrNull(row['archived_at']),
  snapshotVersion: Number(row['snapshot_version']),
  historyVersion: Number(row['history_version']),
  queueVersion: Number(row['queue_version']),
  createdAt: time(row['created_at']),
  updatedAt: time(row['updated_at']),
})

export const toMessageView = (row: JsonRow): MessageView => ({
  id: String(row['id']),
  chatId: row['chat_id'] as string,
  turnId: row['turn_id'] as string | null,
  step: Number(row['step']),
  role: row['role'] as MessageRole,
  parts: row['parts'] as MessagePart[],
  boundary: row['boundary'] as MessageBoundary | null,
  compressed: row['compressed'] as boolean,
  revision: Number(row['revision']),
  apiKeyId: row['api_key_id'] as string | null,
  modelConfigId: row['model_config_id'] as string | null,
  finishReason: row['finish_reason'] as string | null,
  usage: row['usage'] as Usage | null,
  costMicros: numberOrNull(row['cost_micros']),
  createdAt: time(row['created_at']),
})

/** An ended turn keeps its retry state, but tries nothing again. */
const isUnderWay = (turn: JsonRow): boolean => ['pending', 'running'].includes(turn['state'] as string)

export const toTurnView = (row: JsonRow): TurnView => ({
  id: row['id'] as string,
  chatId: row['chat_id'] as string,
  number: Number(row['number']),
  trigger: row['trigger'] as TurnTrigger,
  state: row['state'] as TurnState,
  epoch: Number(row['epoch']),
  apiKeyId: row['api_key_id'] as string | null,
  userMessageId: idOrNull(row['user_message_id']),
  modelConfigId: row['model_config_id'] as string | null,
  error: row['error'] as StoredError | null,
  retry: isUnderWay(row) ? (row['retry_state'] as RetryState | null) : null,
  usage: row['usage'] as Usage | null,
  costMicros: numberOrNull(row['cost_micros']),
  revision: Number(row['revision']),
  createdAt: time(row['created_at']),
  claimedAt: timeOrNull(row['claimed_at']),
  firstPartAt: timeOrNull(row['first_part_at']),
  finishedAt: timeOrNull(row['finished_at']),
})

export const toQueuedMessageView = (row: JsonRow): QueuedMessageView => ({
  id: String(row['id']),
  chatId: row['chat_id'] as string,
  parts: row['parts'] as MessagePart[],
  apiKeyId: row['api_key_id'] as string | null,
  modelConfigId: row['model_config_id'] as string | null,
  reasoningEffort: row['reasoning_effort'] as ReasoningEffort | null,
  createdAt: time(row['created_at']),
})
