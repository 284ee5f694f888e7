import type { Transaction } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import type { ChatStatus } from '../protocol/views.ts'
import { lockChat } from './produce-statements.ts'

/** A chat whose row lock this transaction holds: what it says stays true until the end of it. */
export interface LockedChat {
  status: ChatStatus
  active_turn_id: string | null
  archived_at: Date | null
  user_id: string
}

/** @throws {TurnmillError} `not_found` where it does not exist or belongs to somebody else, `chat_archived`. */
export async function lockOwnChat(tx: Transaction, chatId: string, userId: string): Promise<LockedChat> {
  const [chat] = await tx.query<LockedChat>(lockChat(chatId, userId))
  if (chat === undefined) throw new TurnmillError('not_found', `chat ${chatId} does not exist`)
  if (chat.archived_at !== null) throw new TurnmillError('chat_archived', `chat ${chatId} is archived`)
  return chat
}
