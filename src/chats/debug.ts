import { query, statement, type Database } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import type { ChatTarget } from './interrupt.ts'

/** $1 chat, $2 owner, $3 minutes, 0 to stop. */
const setDebug = statement(
  'chats/debug',
  `update chats set debug_until = case when $3 > 0 then clock_timestamp() + $3 * interval '1 minute' end
  where id = $1 and user_id = $2 returning debug_until`,
)

/**
 * Has the model calls of a chat and its subagents recorded for some minutes; 0 stops it. Gives until when.
 *
 * @throws {TurnmillError} `not_found`.
 */
export async function debugChat(
  db: Database,
  { chatId, userId }: ChatTarget,
  minutes: number,
): Promise<string | null> {
  const [row] = await query<{ debug_until: Date | null }>(db, setDebug(chatId, userId, minutes))
  if (row === undefined) throw new TurnmillError('not_found', `chat ${chatId} does not exist`)
  return row.debug_until?.toISOString() ?? null
}
