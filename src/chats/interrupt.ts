import { withTransaction, type Database } from '../db/index.ts'
import { toAdmittedTurns, type PoolSlots } from './admission.ts'
import { admissionOf, carryOut, type Committed } from './effects.ts'
import { cascade, lockDescendants, lockFamilyTurns, runningTurnsOf } from './families.ts'
import { lockOwnChat } from './lock.ts'
import { decideMove } from './moves.ts'

/** Which chat, of which owner (`null` for anybody's). */
export interface ChatTarget {
  chatId: string
  userId: string | null
}

/**
 * Stops what the chat and its subagents are doing: a running turn is told to stop and ends with what it has; one that
 * waits ends here, and the head of the queue is promoted. A chat that does nothing, or is stopping already, stays.
 *
 * @throws {TurnmillError} `not_found`, `chat_archived`.
 */
export const interruptChat = (
  db: Database,
  slots: PoolSlots,
  { chatId, userId }: ChatTarget,
): Promise<Committed<null>> =>
  withTransaction(db, async (tx) => {
    const chat = await lockOwnChat(tx, chatId, userId)
    const { rows: _, ...aftermath } = await carryOut({ tx, chat, move: decideMove('interrupt', chat), slots })
    return { result: null, ...aftermath }
  })

/**
 * Stops a subagent as its parent does, with all below it: what is queued for them does not run either.
 *
 * @throws {TurnmillError} `not_found`, `chat_archived`.
 */
export const interruptSubagent = (
  db: Database,
  slots: PoolSlots,
  { chatId, userId }: ChatTarget,
): Promise<Committed<null>> =>
  withTransaction(db, async (tx) => {
    const chat = await lockOwnChat(tx, chatId, userId)
    decideMove('interrupt', chat)
    const below = chat.hasChildren ? await lockDescendants(tx, chatId) : []
    const family = [chat, ...below]
    const admission = admissionOf(chat, below, slots)
    const results = await tx.commitWith([...lockFamilyTurns(chatId, below), ...cascade(family), ...admission])
    return {
      result: null,
      admitted: results.slice(-admission.length).flatMap(toAdmittedTurns),
      stopped: runningTurnsOf(family),
      changed: below.map(({ id }) => id),
      parentId: chat.parentId,
    }
  })
