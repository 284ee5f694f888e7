import { withTransaction, type Database, type Transaction } from '../db/index.ts'
import { newId } from '../protocol/ids.ts'
import { toAdmittedTurns, type AdmittedTurn } from './admission.ts'
import { lockOwnChat, type LockedChat } from './lock.ts'
import * as sql from './produce-statements.ts'

export interface Interrupted {
  /** The turn whose worker is to stop; `null` where no worker held one. */
  stopTurnId: string | null
  admitted: AdmittedTurn[]
}

export interface InterruptRequest {
  chatId: string
  userId: string
  /** Slots of the root pool. */
  slots: number
}

/** States of a turn that no worker holds: it ends at once. */
const UNHELD = ['pending', 'requires_action', 'waiting']

/**
 * Stops what the chat is doing: a running turn is told to stop and ends with what it has; one that waits ends here,
 * and the head of the queue is promoted. A chat that does nothing, or is stopping already, stays as it is.
 *
 * @throws {TurnmillError} `not_found`, `chat_archived`.
 */
export const interruptChat = (db: Database, request: InterruptRequest): Promise<Interrupted> =>
  withTransaction(db, async (tx) => {
    const chat = await lockOwnChat(tx, request.chatId, request.userId)
    return interruptLocked(tx, chat, request)
  })

/** The same within a transaction that holds the chat's lock; commits it. */
export async function interruptLocked(
  tx: Transaction,
  chat: LockedChat,
  request: InterruptRequest,
): Promise<Interrupted> {
  const { chatId, userId, slots } = request
  if (chat.status === 'running') {
    const [stopped = []] = await tx.commitWith([sql.interruptRunning(chatId)])
    const [turn] = stopped as { turn_id: string }[]
    return { stopTurnId: turn?.turn_id ?? null, admitted: [] }
  }
  if (!UNHELD.includes(chat.status)) return { stopTurnId: null, admitted: [] }
  const [, , admitted = []] = await tx.commitWith([
    sql.interruptWaiting(chatId, UNHELD),
    sql.promoteHead(chatId, newId()),
    sql.admit(userId, 'root', slots),
  ])
  return { stopTurnId: null, admitted: toAdmittedTurns(admitted) }
}
