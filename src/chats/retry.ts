import { statement, withTransaction, type Database } from '../db/index.ts'
import { newId } from '../protocol/ids.ts'
import type { TurnView } from '../protocol/views.ts'
import { toAdmittedTurns } from './admission.ts'
import { lockOwnChat } from './lock.ts'
import { admit } from './produce-statements.ts'
import type { Committed, Initiator } from './produce.ts'
import { refuse } from './states.ts'
import { toTurnView, type JsonRow } from './views.ts'

/** A new turn over the same history, for the message of the turn that failed. $1 chat, $2 turn, $3 the caller's key. */
const repeatFailedTurn = statement(
  'chats/retry',
  `with failed as (
    select t.* from turns t join chats c on c.last_turn_id = t.id where c.id = $1 and t.state = 'failed'),
  turn as (
    insert into turns (id, chat_id, number, user_id, pool, trigger, api_key_id, user_message_id, model_config_id, reasoning_effort)
    select $2, chat_id, number + 1, user_id, pool, 'retry', $3, user_message_id, model_config_id, reasoning_effort
    from failed returning *)
  update chats set status = 'pending', active_turn_id = turn.id, last_turn_id = turn.id, last_error = null
  from turn where chats.id = turn.chat_id returning to_jsonb(turn) as turn`,
)

/**
 * Runs a failed turn again, as a new turn under the caller's key.
 *
 * @throws {TurnmillError} `not_found`, `chat_archived`, `move_refused` where the chat has not failed.
 */
export const retryChat = (
  db: Database,
  { userId, apiKeyId, slots }: Initiator & { slots: number },
  chatId: string,
): Promise<Committed<TurnView>> =>
  withTransaction(db, async (tx) => {
    const chat = await lockOwnChat(tx, chatId, userId)
    if (chat.status !== 'failed') throw refuse(`chat ${chatId}`, chat.status, 'retry')
    const [row] = await tx.query<{ turn: JsonRow }>(repeatFailedTurn(chatId, newId(), apiKeyId))
    if (row === undefined) throw refuse(`the last turn of chat ${chatId}`, 'not failed', 'retry')
    const [admitted = []] = await tx.commitWith([admit(userId, 'root', slots)])
    return { result: toTurnView(row.turn), admitted: toAdmittedTurns(admitted) }
  })
