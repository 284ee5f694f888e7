import { statement } from '../db/index.ts'
import { ADMITTED } from './admission.ts'

/**
 * The statements that commands are made of. Each runs under the row locks of the chats it names, so that what it reads
 * of them is current: a statement's snapshot is taken after the lock was granted.
 */

/** Takes the head of the queue of a chat without an active turn into history, with a turn of its own. $1 chat, $2 turn, $3 statuses. */
export const promoteHead = statement(
  'chats/promote-head',
  `with chat as (
    select * from chats where id = $1 and status = any($3) and active_turn_id is null and archived_at is null),
  head as (
    select q.id from queued_messages q, chat where q.chat_id = chat.id and q.state = 'queued' order by q.position, q.id limit 1),
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
    from promoted, message, chat returning *)
  update chats set status = 'pending', active_turn_id = turn.id, last_turn_id = turn.id, last_error = null
  from turn where chats.id = turn.chat_id returning turn.id as turn_id`,
)

/** Tells the workers of running turns to stop. $1 chats. */
export const stopRunning = statement(
  'chats/stop-running',
  `with turn as (
    update turns set state = 'interrupting' where chat_id = any($1) and state = 'running' returning id, chat_id)
  update chats c set status = 'interrupting' from turn where c.id = turn.chat_id returning turn.id as turn_id`,
)

/** Ends turns that no worker holds. $1 chats, $2 states from which that is so. */
export const endUnheld = statement(
  'chats/end-unheld',
  `with turn as (
    update turns set state = 'interrupted', finished_at = clock_timestamp(), deadline = null, awaits = '{}', retry_state = null
    where chat_id = any($1) and state = any($2) returning id, chat_id)
  update chats c set status = 'idle', active_turn_id = null from turn where c.id = turn.chat_id returning turn.id as turn_id`,
)

/**
 * Gives every call without a committed result one: what is in the ledger already, else that it was cancelled, or that
 * its outcome is unknown. $1 turns, $2 the states they must be in.
 */
export const closeOpenCalls = statement(
  'chats/close-open-calls',
  `with step as (
    select m.turn_id, m.chat_id, m.step, m.parts, m.api_key_id
    from messages m join turns t on t.id = m.turn_id
    where m.turn_id = any($1) and t.state = any($2) and m.role = 'assistant' and m.deleted_at is null
      and m.parts @> '[{"type": "tool-call"}]'
      and not exists (select 1 from messages r where r.turn_id = m.turn_id and r.step = m.step and r.role = 'tool')),
  closed as (
    update tool_calls c set finished_at = clock_timestamp(), is_error = true,
      state = case c.state when 'started' then 'unknown' else 'denied' end,
      output = to_jsonb(case c.state when 'started' then 'The outcome of this call is unknown: it was cut off while it ran.'
        else 'This call was cancelled before it ran.' end)
    from turns t where t.id = c.turn_id and c.turn_id = any($1) and t.state = any($2)
      and c.state not in ('done', 'denied', 'unknown')
    returning c.turn_id, c.call_id, c.output, c.is_error),
  result as (
    select step.turn_id, step.step, call.place, jsonb_build_object('type', 'tool-result',
      'toolCallId', call.part->>'toolCallId', 'toolName', call.part->>'toolName',
      -- A result may be null, and is one all the same.
      'output', coalesce(closed.output, ledger.output, to_jsonb('This call was cancelled before it ran.'::text)),
      'isError', coalesce(closed.is_error, ledger.is_error, true))
      || case when ledger.images <> '[]' then jsonb_build_object('images', ledger.images) else '{}' end as part
    from step, jsonb_array_elements(step.parts) with ordinality call (part, place)
      left join lateral (select output, is_error from closed
        where closed.turn_id = step.turn_id and closed.call_id = call.part->>'toolCallId') closed on true
      left join lateral (select output, is_error, images from tool_calls c
        where c.turn_id = step.turn_id and c.call_id = call.part->>'toolCallId') ledger on true
    where call.part->>'type' = 'tool-call')
  insert into messages (chat_id, turn_id, step, role, parts, api_key_id)
  select step.chat_id, step.turn_id, step.step, 'tool',
    (select jsonb_agg(result.part order by result.place) from result
      where result.turn_id = step.turn_id and result.step = step.step), step.api_key_id
  from step returning turn_id`,
)

/** $1 chat, $2 states from which a turn may be superseded. */
export const supersedeTurn = statement(
  'chats/supersede-turn',
  `with turn as (
    update turns set state = 'superseded', finished_at = clock_timestamp(), lease_until = null, deadline = null, awaits = '{}',
      retry_state = null
    where chat_id = $1 and state = any($2) returning id)
  update tool_calls c set state = case c.state when 'started' then 'unknown' else 'denied' end, finished_at = clock_timestamp(),
    is_error = true
  from turn where c.turn_id = turn.id and c.state not in ('done', 'denied', 'unknown')`,
)

/** $1 chats. */
export const supersedeQueues = statement(
  'chats/supersede-queues',
  `update queued_messages set state = 'superseded', updated_at = clock_timestamp()
  where chat_id = any($1) and state = 'queued'`,
)

/** $1 chat, $2 the first message that goes. */
export const deleteMessagesFrom = statement(
  'chats/delete-messages-from',
  `update messages set deleted_at = clock_timestamp() where chat_id = $1 and id >= $2 and deleted_at is null`,
)

/** Shows again what only boundaries from here on had compressed. $1 chat, $2 the first message that goes. */
export const showCompressed = statement(
  'chats/show-compressed',
  `update messages set compressed = false, compressed_by = null
  where chat_id = $1 and id < $2 and compressed_by >= $2 and deleted_at is null`,
)

/** $1 user, $2 pool, $3 slots. The rows are the turns it admitted, each to be enqueued under its job id. */
export const admit = statement('chats/admit', `select ${ADMITTED} from turnmill_admit($1, $2, $3) a`)

/** For the owner and the pool of a chat. $1 chat, $2 slots of a root, $3 slots of a subagent. */
export const admitFor = statement(
  'chats/admit-for',
  `select ${ADMITTED} from chats c, lateral turnmill_admit(c.user_id, case when c.parent_id is null then 'root' else 'subagent' end,
    case when c.parent_id is null then $2::int else $3::int end) a where c.id = $1`,
)
