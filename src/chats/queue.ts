import { withTransaction, type Database, type Transaction } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import type { MessagePart } from '../protocol/messages.ts'
import type { QueuedMessageView } from '../protocol/views.ts'
import type { PoolSlots } from './admission.ts'
import { carryOut, type Committed } from './effects.ts'
import { lockOwnChat, type LockedChat } from './lock.ts'
import { decideMove, type ChatCommand, type ChatMove } from './moves.ts'
import type { Initiator } from './produce.ts'
import * as sql from './queue-statements.ts'
import { toQueuedMessageView, type JsonRow } from './views.ts'

/** Which queued message of which chat. */
export interface QueuedTarget {
  chatId: string
  queuedMessageId: string
}

export interface QueuedChange extends QueuedTarget {
  /** New content, which makes the editor its sender; `null` leaves it. */
  parts: MessagePart[] | null
  /** New place, 0 for the head, the end where it is too far; `null` leaves it. */
  position: number | null
}

interface QueuedRow {
  queued: JsonRow
}

/** Edits a queued message, or moves it. @throws {TurnmillError} `not_found`, `chat_archived`. */
export const changeQueued = (
  db: Database,
  initiator: Initiator,
  change: QueuedChange,
): Promise<QueuedMessageView> =>
  withTransaction(db, async (tx) => {
    const { chatId, queuedMessageId: id, parts, position } = change
    const found = await lockQueued(tx, initiator.userId, change, parts === null ? 'moveQueued' : 'editQueued')
    let { row } = found
    if (parts !== null)
      [row = row] = await tx.query<QueuedRow>(
        sql.editQueued(chatId, id, JSON.stringify(parts), initiator.apiKeyId, initiator.userId),
      )
    if (position !== null) [row = row] = await tx.query<QueuedRow>(sql.moveQueued(chatId, id, position))
    return toQueuedMessageView(row.queued)
  })

/** Takes a queued message out of the queue. @throws {TurnmillError} `not_found`, `chat_archived`. */
export const deleteQueued = (db: Database, userId: string, target: QueuedTarget): Promise<void> =>
  withTransaction(db, async (tx) => {
    await lockQueued(tx, userId, target, 'deleteQueued')
    await tx.commitWith([sql.deleteQueued(target.chatId, target.queuedMessageId)])
  })

/**
 * Runs a queued message next: it goes to the head, and what runs is stopped; a failed chat starts with it at once.
 * Its turn carries its sender's key, not that of whoever promotes it.
 *
 * @throws {TurnmillError} `not_found`, `chat_archived`.
 */
export const promoteQueued = (
  db: Database,
  { userId, slots }: { userId: string; slots: PoolSlots },
  target: QueuedTarget,
): Promise<Committed<null>> =>
  withTransaction(db, async (tx) => {
    const { chat, move } = await lockQueued(tx, userId, target, 'promote')
    const toHead = [sql.moveQueued(target.chatId, target.queuedMessageId, 0)]
    const { rows: _, ...aftermath } = await carryOut({ tx, chat, move, slots, own: { toHead } })
    return { result: null, ...aftermath }
  })

interface LockedQueued {
  chat: LockedChat
  move: ChatMove
  row: QueuedRow
}

/** What is not in the queue does not exist, whatever state the chat is in. */
async function lockQueued(
  tx: Transaction,
  userId: string,
  target: QueuedTarget,
  command: ChatCommand,
): Promise<LockedQueued> {
  const [chat, [row]] = await Promise.all([
    lockOwnChat(tx, target.chatId, userId),
    tx.query<QueuedRow>(sql.readQueued(target.chatId, target.queuedMessageId)),
  ])
  if (chat.archived) decideMove(command, chat)
  if (row === undefined) throw notQueued(target)
  return { chat, move: decideMove(command, chat), row }
}

const notQueued = ({ chatId, queuedMessageId }: QueuedTarget): TurnmillError =>
  new TurnmillError('not_found', `message ${queuedMessageId} is not in the queue of chat ${chatId}`)
