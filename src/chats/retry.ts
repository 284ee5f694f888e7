import { statement, withTransaction, type Database } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import type { TurnView } from '../protocol/views.ts'
import type { PoolSlots } from './admission.ts'
import { carryOut, type Committed, type RowsOf } from './effects.ts'
import { lockOwnChat } from './lock.ts'
import { decideMove } from './moves.ts'
import { ROOM } from './produce-statements.ts'
import { tooManyPending, type Initiator, type ProducerLimits } from './produce.ts'
import { toTurnView, type JsonRow } from './views.ts'

/** A new turn over the same history, for the message of the turn that failed. $1 chat, $2 turn, $3 the caller's key. */
const repeatFailedTurn = statement(
  'chats/retry',
  `with failed as (
    select t.* from turns t join chats c on c.last_turn_id = t.id where c.id = $1 and t.state = 'failed'),
  turn as (
    insert into turns (id, chat_id, number, user_id, pool, trigger, api_key_id, user_message_id, model_config_id, reasoning_effort)
    select $2, chat_id, number + 1, user_id, pool, case trigger when 'compact' then trigger else 'retry' end, $3, user_message_id, model_config_id, reasoning_effort
    from failed returning *)
  update chats set status = 'pending', active_turn_id = turn.id, last_turn_id = turn.id, last_error = null
  from turn where chats.id = turn.chat_id returning to_jsonb(turn) as turn`,
)

/** A turn that sums the history up. $1 chat, $2 turn, $3 user, $4 pending limit, $5 key. No row: too many are pending. */
const insertCompaction = statement(
  'chats/compact-turn',
  `with ${ROOM},
  turn as (
    insert into turns (id, chat_id, number, user_id, pool, trigger, api_key_id)
    select $2, c.id, (select coalesce(max(number), 0) + 1 from turns where chat_id = $1), c.user_id,
      case when c.parent_id is null then 'root' else 'subagent' end, 'compact', $5
    from chats c, room where c.id = $1 returning *)
  update chats set status = 'pending', active_turn_id = turn.id, last_turn_id = turn.id, last_error = null
  from turn where chats.id = turn.chat_id returning to_jsonb(turn) as turn`,
)

/**
 * Sums the history up in a turn of its own, under the caller's key.
 *
 * @throws {TurnmillError} `not_found`, `chat_archived`, `move_refused` where the chat is busy, `too_many_pending_turns`.
 */
export const compactChat = (
  db: Database,
  { userId, apiKeyId, limits }: Initiator & { limits: ProducerLimits },
  chatId: string,
): Promise<Committed<TurnView>> =>
  withTransaction(db, async (tx) => {
    const chat = await lockOwnChat(tx, chatId, userId)
    const insert = insertCompaction(chatId, newId(), userId, limits.pendingTurns, apiKeyId)
    const move = decideMove('compact', chat)
    const demandRow = (rows: RowsOf): { turn: JsonRow } => {
      const [row] = rows<{ turn: JsonRow }>(insert.name)
      if (row === undefined) throw tooManyPending(limits)
      return row
    }
    const { slots } = limits
    const { rows, ...aftermath } = await carryOut({
      tx,
      chat,
      move,
      slots,
      own: { compact: [insert] },
      check: (found) => void demandRow(found),
    })
    return { result: toTurnView(demandRow(rows).turn), ...aftermath }
  })

/**
 * Runs a failed turn again, as a new turn under the caller's key.
 *
 * @throws {TurnmillError} `not_found`, `chat_archived`, `move_refused` where the chat has not failed.
 */
export const retryChat = (
  db: Database,
  { userId, apiKeyId, slots }: Initiator & { slots: PoolSlots },
  chatId: string,
): Promise<Committed<TurnView>> =>
  withTransaction(db, async (tx) => {
    const chat = await lockOwnChat(tx, chatId, userId)
    const repeat = repeatFailedTurn(chatId, newId(), apiKeyId)
    const move = decideMove('retry', chat)
    const { rows, ...aftermath } = await carryOut({ tx, chat, move, slots, own: { repeat: [repeat] } })
    const [row] = rows<{ turn: JsonRow }>(repeat.name)
    if (row === undefined)
      throw new TurnmillError('internal', `chat ${chatId} has failed without a failed turn`)
    return { result: toTurnView(row.turn), ...aftermath }
  })
