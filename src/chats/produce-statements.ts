import { statement } from '../db/index.ts'

/**
 * The statements of the producing transitions. Each runs under the chat's row lock (a new chat needs none), so that
 * what it reads of the chat is current: a statement's snapshot is taken after the lock was granted.
 */

/** $1 chat, $2 owner or null for any. No row: no such chat for this owner. */
export const lockChat = statement(
  'chats/lock',
  `select status, active_turn_id, archived_at, user_id from chats where id = $1 and ($2::uuid is null or user_id = $2) for update`,
)

// A user over the limit of pending turns gets no row, and nothing is written.
const room = `room as (
  select 1 where (select count(*) from (
    select 1 from turns where user_id = $3 and state = 'pending' limit $4) counted) < $4)`

/** $1 chat, $2 turn, $3 user, $4 pending limit, $5 key, $6 parts, $7 model config, $8 reasoning effort, $9 title, $10 labels, $11 system prompt. */
export const insertChat = statement(
  'chats/create',
  `with ${room},
  chat as (
    insert into chats (id, user_id, root_id, status, active_turn_id, last_turn_id, model_config_id, title, labels, system_prompt)
    select $1, $3, $1, 'pending', $2, $2, $7, $9, $10, $11 from room returning *),
  message as (
    insert into messages (chat_id, turn_id, role, parts, api_key_id, created_by)
    select id, $2, 'user', $6, $5, $3 from chat returning *),
  turn as (
    insert into turns (id, chat_id, number, user_id, trigger, api_key_id, user_message_id, model_config_id, reasoning_effort)
    select $2, $1, 1, $3, 'create', $5, id, $7, $8 from message returning *)
  select to_jsonb(chat) as chat, to_jsonb(message) as message, to_jsonb(turn) as turn from chat, message, turn`,
)

/** $1 chat, $2 turn, $3 user, $4 pending limit, $5 key, $6 parts, $7 model config, $8 reasoning effort, $9 trigger. */
export const insertMessageAndTurn = statement(
  'chats/insert-message-and-turn',
  `with ${room},
  message as (
    insert into messages (chat_id, turn_id, role, parts, api_key_id, created_by)
    select $1, $2, 'user', $6, $5, $3 from room returning *),
  turn as (
    insert into turns (id, chat_id, number, user_id, trigger, api_key_id, user_message_id, model_config_id, reasoning_effort)
    select $2, $1, (select coalesce(max(number), 0) + 1 from turns where chat_id = $1), $3, $9, $5, id, $7, $8
    from message returning *),
  chat as (
    update chats set status = 'pending', active_turn_id = turn.id, last_turn_id = turn.id, last_error = null
    from turn where chats.id = turn.chat_id)
  select to_jsonb(message) as message, to_jsonb(turn) as turn from message, turn`,
)

/** $1 chat. */
export const countQueued = statement(
  'chats/count-queued',
  `select count(*)::int as queued from queued_messages where chat_id = $1 and state = 'queued'`,
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

/** Takes the head of the queue of a chat without an active turn into history, with a turn of its own. $1 chat, $2 turn. */
export const promoteHead = statement(
  'chats/promote-head',
  `with head as (
    select id from queued_messages where chat_id = $1 and state = 'queued' order by position, id limit 1),
  promoted as (
    update queued_messages q set state = 'promoted', updated_at = clock_timestamp() from head where q.id = head.id returning q.*),
  message as (
    insert into messages (chat_id, turn_id, role, parts, api_key_id, queued_message_id, created_by)
    select chat_id, $2, 'user', parts, api_key_id, id, created_by from promoted returning id),
  turn as (
    insert into turns (id, chat_id, number, user_id, pool, trigger, api_key_id, user_message_id, model_config_id, reasoning_effort)
    select $2, chat.id, (select coalesce(max(number), 0) + 1 from turns where chat_id = chat.id), chat.user_id,
      case when chat.parent_id is null then 'root' else 'subagent' end, 'promote', promoted.api_key_id, message.id,
      promoted.model_config_id, promoted.reasoning_effort
    from promoted, message, chats chat where chat.id = promoted.chat_id returning *)
  update chats set status = 'pending', active_turn_id = turn.id, last_turn_id = turn.id, last_error = null
  from turn where chats.id = turn.chat_id returning to_jsonb(turn) as turn`,
)

/** $1 chat, $2 message. */
export const readMessage = statement(
  'chats/read-message',
  `select role, deleted_at from messages where chat_id = $1 and id = $2`,
)

/** Tells the turn's worker to stop. $1 chat. */
export const interruptRunning = statement(
  'chats/interrupt-running',
  `with turn as (update turns set state = 'interrupting' where chat_id = $1 and state = 'running' returning id, chat_id)
  update chats c set status = 'interrupting' from turn where c.id = turn.chat_id returning turn.id as turn_id`,
)

/** Ends a turn that no worker holds. $1 chat, $2 states from which that is so. */
export const interruptWaiting = statement(
  'chats/interrupt-waiting',
  `with turn as (
    update turns set state = 'interrupted', finished_at = clock_timestamp()
    where chat_id = $1 and state = any($2) returning id, chat_id)
  update chats c set status = 'idle', active_turn_id = null from turn where c.id = turn.chat_id returning turn.id as turn_id`,
)

/** $1 chat, $2 states from which a turn may be superseded. */
export const supersedeTurn = statement(
  'chats/supersede-turn',
  `update turns set state = 'superseded', finished_at = clock_timestamp(), lease_until = null
  where chat_id = $1 and state = any($2)`,
)

/** $1 chat. */
export const supersedeQueue = statement(
  'chats/supersede-queue',
  `update queued_messages set state = 'superseded', updated_at = clock_timestamp() where chat_id = $1 and state = 'queued'`,
)

/** $1 chat, $2 the first message that goes. */
export const deleteMessagesFrom = statement(
  'chats/delete-messages-from',
  `update messages set deleted_at = clock_timestamp() where chat_id = $1 and id >= $2 and deleted_at is null`,
)

/** $1 user, $2 pool, $3 slots. The rows are the turns it admitted, each to be enqueued under its job id. */
export const admit = statement('chats/admit', 'select * from turnmill_admit($1, $2, $3)')
