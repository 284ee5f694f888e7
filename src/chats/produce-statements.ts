import { statement } from '../db/index.ts'

/**
 * The statements of the producing transitions. Each runs under the chat's row lock (a new chat needs none), so that
 * what it reads of the chat is current: a statement's snapshot is taken after the lock was granted.
 */

/** A user ($3) over the limit of pending turns ($4) gets no row, and nothing is written. */
export const ROOM = `room as (
  select 1 where (select count(*) from (
    select 1 from turns where user_id = $3 and state = 'pending' limit $4) counted) < $4)`

/** $1 chat, $2 turn, $3 user, $4 pending limit, $5 key, $6 parts, $7 model config, $8 reasoning effort, $9 title, $10 labels, $11 system prompt, $12 fallback title, $13 client tools. */
export const insertChat = statement(
  'chats/create',
  `with ${ROOM},
  chat as (
    insert into chats (id, user_id, root_id, status, active_turn_id, last_turn_id, model_config_id, title, labels, system_prompt,
      fallback_title, client_tools)
    select $1, $3, $1, 'pending', $2, $2, $7, $9, $10, $11, $12, $13 from room returning *),
  message as (
    insert into messages (chat_id, turn_id, role, parts, api_key_id, created_by)
    select id, $2, 'user', $6, $5, $3 from chat returning *),
  turn as (
    insert into turns (id, chat_id, number, user_id, trigger, api_key_id, user_message_id, model_config_id, reasoning_effort)
    select $2, $1, 1, $3, 'create', $5, id, $7, $8 from message returning *)
  select to_jsonb(chat) as chat, to_jsonb(message) as message, to_jsonb(turn) as turn from chat, message, turn`,
)

/** $1 chat, $2 turn, $3 user, $4 pending limit, $5 key, $6 parts, $7 model config, $8 reasoning effort, $9 trigger, $10 pool. */
export const insertMessageAndTurn = statement(
  'chats/insert-message-and-turn',
  `with ${ROOM},
  message as (
    insert into messages (chat_id, turn_id, role, parts, api_key_id, created_by)
    select $1, $2, 'user', $6, $5, $3 from room returning *),
  turn as (
    insert into turns (id, chat_id, number, user_id, pool, trigger, api_key_id, user_message_id, model_config_id, reasoning_effort)
    select $2, $1, (select coalesce(max(number), 0) + 1 from turns where chat_id = $1), $3, $10, $9, $5, id, $7, $8
    from message returning *),
  chat as (
    update chats set status = 'pending', active_turn_id = turn.id, last_turn_id = turn.id, last_error = null
    from turn where chats.id = turn.chat_id)
  select to_jsonb(message) as message, to_jsonb(turn) as turn from message, turn`,
)

/** $1 chat, $2 most that may be queued, $3 parts, $4 key, $5 user, $6 model config, $7 reasoning effort. No row: the queue is full. */
export const appendQueued = statement(
  'chats/append-queued',
  `with queue as (
    select count(*) as length, coalesce(max(position), 0) as last
    from queued_messages where chat_id = $1 and state = 'queued')
  insert into queued_messages (chat_id, position, parts, api_key_id, created_by, model_config_id, reasoning_effort)
  select $1, last + 1, $3, $4, $5, $6, $7 from queue where length < $2
  returning to_jsonb(queued_messages) as queued`,
)

/** The fallback title follows the first message. $1 chat, $2 the first message that goes, $3 what its replacement is called. */
export const renameByFallback = statement(
  'chats/rename-by-fallback',
  `update chats set fallback_title = $3 where id = $1 and not exists (
    select 1 from messages where chat_id = $1 and id < $2 and role = 'user' and deleted_at is null)`,
)

/** $1 chat, $2 message. */
export const readMessage = statement(
  'chats/read-message',
  `select role, deleted_at from messages where chat_id = $1 and id = $2`,
)

/** The turns whose messages an edit removes. $1 chat, $2 the first message that goes. */
export const turnsFrom = statement(
  'chats/turns-from',
  `select id from turns where chat_id = $1 and number >= coalesce((
    select t.number from turns t join messages m on m.turn_id = t.id where m.chat_id = $1 and m.id = $2), 1)`,
)
