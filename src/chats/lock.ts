import { statement, type Transaction } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import type { ChatStatus } from '../protocol/views.ts'
import type { Pool } from './admission.ts'
import type { ChatCell } from './moves.ts'

/** A chat whose row lock this transaction holds: what it says stays true until the end of it. */
export interface LockedChat extends ChatCell {
  id: string
  userId: string
  parentId: string | null
  /** In which pool its turns count. */
  pool: Pool
  activeTurnId: string | null
  lastTurnId: string | null
  /** Queued messages. */
  queued: number
  hasChildren: boolean
}

/**
 * $1 chat, $2 owner or null for any. No row: no such chat for this owner. `no key`, here and wherever a chat is locked:
 * the foreign keys of its subagents ask for a key share, and they ask upward.
 */
const lockChat = statement(
  'chats/lock',
  `select status, active_turn_id, last_turn_id, archived_at, user_id, parent_id
  from chats where id = $1 and ($2::uuid is null or user_id = $2) for no key update`,
)

// A statement of its own, so that it sees what was committed before the lock was granted. $1 chat.
const surroundings = statement(
  'chats/surroundings',
  `select (select count(*)::int from queued_messages where chat_id = $1 and state = 'queued') as queued,
    exists (select 1 from chats where parent_id = $1) as has_children`,
)

interface ChatRow {
  status: ChatStatus
  active_turn_id: string | null
  last_turn_id: string | null
  archived_at: Date | null
  user_id: string
  parent_id: string | null
}

/**
 * Locks a chat and reads what its commands depend on. One round trip.
 *
 * @param userId the owner it must have; `null` for anybody's.
 * @throws {TurnmillError} `not_found` where it does not exist or belongs to somebody else.
 */
export async function lockOwnChat(
  tx: Transaction,
  chatId: string,
  userId: string | null,
): Promise<LockedChat> {
  const [[chat], [around]] = await Promise.all([
    tx.query<ChatRow>(lockChat(chatId, userId)),
    tx.query<{ queued: number; has_children: boolean }>(surroundings(chatId)),
  ])
  if (chat === undefined) throw new TurnmillError('not_found', `chat ${chatId} does not exist`)
  const queued = around?.queued ?? 0
  return {
    id: chatId,
    status: chat.status,
    queue: queued === 0 ? 'empty' : 'waiting',
    archived: chat.archived_at !== null,
    userId: chat.user_id,
    parentId: chat.parent_id,
    pool: chat.parent_id === null ? 'root' : 'subagent',
    activeTurnId: chat.active_turn_id,
    lastTurnId: chat.last_turn_id,
    queued,
    hasChildren: around?.has_children ?? false,
  }
}
