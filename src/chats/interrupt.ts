import { withTransaction, type Database } from '../db/index.ts'
import type { PoolSlots } from './admission.ts'
import { carryOut, type Committed } from './effects.ts'
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
