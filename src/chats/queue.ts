import { withTransaction, type Database, type Transaction } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import type { MessagePart } from '../protocol/messages.ts'
import type { QueuedMessageView } from '../protocol/views.ts'
import { toAdmittedTurns } from './admission.ts'
import { interruptLocked } from './interrupt.ts'
import { lockOwnChat, type LockedChat } from './lock.ts'
import { admit, promoteHead } from './produce-statements.ts'
import type { Committed, Initiator } from './produce.ts'
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
    await lockOwnChat(tx, change.chatId, initiator.userId)
    const { chatId, queuedMessageId: id, parts, position } = change
    let row = await demandQueued(tx, change)
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
    await lockOwnChat(tx, target.chatId, userId)
    const [deleted] = await tx.query(sql.deleteQueued(target.chatId, target.queuedMessageId))
    if (deleted === undefined) throw notQueued(target)
  })

/**
 * Runs a queued message next: it goes to the head, and what runs is stopped; a failed chat starts with it at once.
 * Its turn carries its sender's key, not that of whoever promotes it.
 *
 * @throws {TurnmillError} `not_found`, `chat_archived`.
 */
export const promoteQueued = (
  db: Database,
  { userId, slots }: { userId: string; slots: number },
  target: QueuedTarget,
): Promise<Committed<null>> =>
  withTransaction(db, async (tx) => {
    const chat = await lockOwnChat(tx, target.chatId, userId)
    const [moved] = await tx.query(sql.moveQueued(target.chatId, target.queuedMessageId, 0))
    if (moved === undefined) throw notQueued(target)
    return { result: null, ...(await startHead(tx, chat, { chatId: target.chatId, userId, slots })) }
  })

async function startHead(
  tx: Transaction,
  chat: LockedChat,
  request: { chatId: string; userId: string; slots: number },
) {
  if (chat.status !== 'failed') return interruptLocked(tx, chat, request)
  const { chatId, userId, slots } = request
  const [, admitted = []] = await tx.commitWith([promoteHead(chatId, newId()), admit(userId, 'root', slots)])
  return { admitted: toAdmittedTurns(admitted) }
}

async function demandQueued(tx: Transaction, target: QueuedTarget): Promise<QueuedRow> {
  const [row] = await tx.query<QueuedRow>(sql.readQueued(target.chatId, target.queuedMessageId))
  if (row === undefined) throw notQueued(target)
  return row
}

const notQueued = ({ chatId, queuedMessageId }: QueuedTarget): TurnmillError =>
  new TurnmillError('not_found', `message ${queuedMessageId} is not in the queue of chat ${chatId}`)
