import { statement } from '../db/index.ts'
import { insertTitleRun } from './auxiliary.ts'

/** The writes of a worker. Each is conditional on the epoch: a zombie's changes no row. */

/** $1 chat. Taken before a worker's write, in the same round trip. */
export const lockChatOf = statement(
  'chats/lock-for-work',
  `select 1 from chats where id = $1 for no key update`,
)

// How long the claim ran, added to what earlier claims of the turn ran.
const ranFor = `running_ms = running_ms + (extract(epoch from clock_timestamp() - claimed_at) * 1000)::bigint`

// What the turn has used so far, and this write on top of it.
const spent = (usage: string, cost: string): string => `usage = turnmill_add_usage(usage, ${usage}),
      cost_micros = case when cost_micros is null then ${cost} else cost_micros + coalesce(${cost}, 0) end`

/** Of how many spendings a turn remembers that they are added. What is said twice is said right after, or beside few others. */
const REMEMBERED = 16

// The same, once for each id of a spending; always where it has none.
const spentOnce = (usage: string, cost: string, id: string): string => {
  const unlessAdded = (value: string): string =>
    `case when ${id}::uuid = any(spent_ids) then null else ${value} end`
  return `${spent(unlessAdded(usage), unlessAdded(cost))},
      spent_ids = case when ${id}::uuid is null or ${id}::uuid = any(spent_ids) then spent_ids
        else (array_prepend(${id}::uuid, spent_ids))[1:${REMEMBERED}] end`
}

/**
 * Commits the last answer, completes the turn, promotes the head of the queue and has a chat without a title named, all
 * hanging on the one update that is fenced. $1 turn, $2 epoch, $3 states to finish from, $4 step, $5 parts, $6 model config, $7 finish reason,
 * $8 usage of the step, $9 its cost, $10 ms between claim and first part, $11 id of the promoted message's turn,
 * $12 id of the run that names the chat, null for none. No row: fenced.
 */
export const finishTurn = statement(
  'chats/finish',
  `with done as (
    update turns set state = 'completed', finished_at = clock_timestamp(), lease_until = null, retry_state = null,
      ${spent('$8::jsonb', '$9::bigint')},
      first_part_at = coalesce(first_part_at, claimed_at + $10 * interval '1 ms'), ${ranFor}
    where id = $1 and epoch = $2 and state = any($3)
    returning id, chat_id, number, user_id, pool, api_key_id),
  answer as (
    insert into messages (chat_id, turn_id, step, role, parts, api_key_id, model_config_id, finish_reason, usage, cost_micros)
    select chat_id, id, $4, 'assistant', $5, api_key_id, $6, $7, $8, $9 from done returning id),
  head as (
    select q.id from queued_messages q, done where q.chat_id = done.chat_id and q.state = 'queued'
    order by q.position, q.id limit 1),
  promoted as (
    update queued_messages q set state = 'promoted', updated_at = clock_timestamp() from head where q.id = head.id returning q.*),
  message as (
    insert into messages (chat_id, turn_id, role, parts, api_key_id, queued_message_id, created_by)
    select promoted.chat_id, $11, 'user', promoted.parts, promoted.api_key_id, promoted.id, promoted.created_by
    from promoted, answer returning id),
  next as (
    insert into turns (id, chat_id, number, user_id, pool, trigger, api_key_id, user_message_id, model_config_id, reasoning_effort)
    select $11, done.chat_id, done.number + 1, done.user_id, done.pool, 'promote', promoted.api_key_id, message.id,
      promoted.model_config_id, promoted.reasoning_effort
    from done, promoted, message returning id),
  titled as (${insertTitleRun('done', '$12')})
  update chats c set status = case when next.id is null then 'idle' else 'pending' end, active_turn_id = next.id,
    last_turn_id = coalesce(next.id, done.id), last_error = null
  from done left join next on true left join titled on true where c.id = done.chat_id returning done.id as turn_id, titled.*`,
)

/**
 * Commits a step that is not the last: its answer, and a row of the ledger for each call it asked for.
 * $1 turn, $2 epoch, $3 states, $4 step, $5 parts, $6 model config, $7 finish reason, $8 usage, $9 cost,
 * $10 ms between claim and first part, $11 the calls `[{id, callId, name, input}]`, $12 id of the spending.
 * Safe to repeat. No row: fenced.
 */
export const commitStep = statement(
  'chats/commit-step',
  `with held as (select id, chat_id, api_key_id from turns where id = $1 and epoch = $2 and state = any($3)),
  -- One that is repeated since its answer was lost finds its message there.
  fresh as (
    select * from held where not exists (
      select 1 from messages m where m.turn_id = held.id and m.step = $4 and m.role = 'assistant')),
  turn as (
    update turns set takeovers = 0, retry_state = null,
      ${spentOnce('$8::jsonb', '$9::bigint', '$12')},
      first_part_at = coalesce(first_part_at, claimed_at + $10 * interval '1 ms')
    from fresh where turns.id = fresh.id),
  answer as (
    insert into messages (chat_id, turn_id, step, role, parts, api_key_id, model_config_id, finish_reason, usage, cost_micros)
    select chat_id, id, $4, 'assistant', $5, api_key_id, $6, $7, $8, $9 from fresh),
  calls as (
    insert into tool_calls (id, turn_id, step, call_id, name, input)
    select c.id, fresh.id, $4, c."callId", c.name, coalesce(c.input, 'null')
    from fresh, jsonb_to_recordset($11::jsonb) c (id uuid, "callId" text, name text, input jsonb))
  select id as turn_id from held`,
)

/**
 * The calls of the turn's last committed step, as long as their results are not: `[{part, step, state, …}]` in the order
 * in which the model asked. $1 turn.
 */
export const openCalls = statement(
  'chats/open-calls',
  `select call.part, m.step, c.state, c.output, c.is_error, c.images,
    (extract(epoch from clock_timestamp() - c.started_at) * 1000)::float8 as started_ms
  from messages m cross join lateral jsonb_array_elements(m.parts) with ordinality call (part, place)
    left join tool_calls c on c.turn_id = m.turn_id and c.call_id = call.part->>'toolCallId'
  where m.turn_id = $1 and m.role = 'assistant' and m.deleted_at is null and call.part->>'type' = 'tool-call'
    and not exists (select 1 from messages r where r.turn_id = m.turn_id and r.step = m.step and r.role = 'tool')
  order by m.step, call.place`,
)

/** The calls of a tool in a turn, also those that a summary took the place of. $1 turn, $2 tool. */
export const callsOf = statement(
  'chats/calls-of',
  `select call_id from tool_calls where turn_id = $1 and name = $2 order by step, id`,
)

/** Notes that calls are about to run. $1 turn, $2 epoch, $3 states, $4 calls. No row: fenced. */
export const startCalls = statement(
  'chats/start-calls',
  `with turn as (select id from turns where id = $1 and epoch = $2 and state = any($3)),
  started as (
    update tool_calls c set state = 'started', started_at = coalesce(c.started_at, clock_timestamp())
    from turn where c.turn_id = turn.id and c.call_id = any($4) and c.state in ('requested', 'approved', 'started'))
  select id as turn_id from turn`,
)

/**
 * Keeps results in the ledger. $1 turn, $2 epoch, $3 states, $4 the results `[{toolCallId, output, isError, images, state}]`.
 * No row: fenced.
 */
export const keepResults = statement(
  'chats/keep-results',
  `with turn as (select id from turns where id = $1 and epoch = $2 and state = any($3)),
  ledger as (
    update tool_calls c set state = r.state, output = coalesce(r.output, 'null'), is_error = r."isError",
      images = coalesce(r.images, '[]'), finished_at = coalesce(c.finished_at, clock_timestamp())
    from turn, jsonb_to_recordset($4::jsonb) r ("toolCallId" text, output jsonb, "isError" boolean, images jsonb, state text)
    where c.turn_id = turn.id and c.call_id = r."toolCallId")
  select id as turn_id from turn`,
)

/**
 * Puts a summary in the place of the history before it, of which only what is named stays. Safe to repeat.
 * $1 turn, $2 epoch, $3 states, $4 step, $5 parts of the summary, $6 the messages that stay, $7 model config, $8 usage,
 * $9 cost, $10 id of the spending. No row: fenced.
 */
export const compact = statement(
  'chats/compact',
  `with held as (select id, chat_id, api_key_id from turns where id = $1 and epoch = $2 and state = any($3)),
  -- One that is repeated since its answer was lost finds the summary there.
  fresh as (
    select * from held where not exists (
      select 1 from messages b where b.turn_id = held.id and b.step = $4 and b.boundary = 'compaction' and not b.compressed)),
  turn as (
    update turns set ${spentOnce('$8::jsonb', '$9::bigint', '$10')} from fresh where turns.id = fresh.id),
  boundary as (
    insert into messages (chat_id, turn_id, step, role, parts, visibility, boundary, api_key_id, model_config_id, usage, cost_micros)
    select chat_id, id, $4, 'system', $5, 'both', 'compaction', api_key_id, $7, $8, $9 from fresh returning id, chat_id),
  hidden as (
    update messages m set compressed = true, compressed_by = boundary.id from boundary
    where m.chat_id = boundary.chat_id and m.id < boundary.id and not m.id = any($6) and m.deleted_at is null and not m.compressed)
  select id as turn_id from held`,
)

/**
 * Commits the results of a step. $1 turn, $2 epoch, $3 states, $4 step, $5 the message's parts,
 * $6 the results `[{toolCallId, output, isError, images, state}]`. Safe to repeat. No row: fenced.
 */
export const commitResults = statement(
  'chats/commit-results',
  `with turn as (
    update turns set takeovers = 0 where id = $1 and epoch = $2 and state = any($3) returning id, chat_id, api_key_id),
  results as (
    insert into messages (chat_id, turn_id, step, role, parts, api_key_id)
    select chat_id, id, $4, 'tool', $5, api_key_id from turn
    where not exists (select 1 from messages r where r.turn_id = turn.id and r.step = $4 and r.role = 'tool')),
  ledger as (
    update tool_calls c set state = r.state, output = coalesce(r.output, 'null'), is_error = r."isError",
      images = coalesce(r.images, '[]'), finished_at = coalesce(c.finished_at, clock_timestamp())
    from turn, jsonb_to_recordset($6::jsonb) r ("toolCallId" text, output jsonb, "isError" boolean, images jsonb, state text)
    where c.turn_id = turn.id and c.call_id = r."toolCallId")
  select id as turn_id from turn`,
)

/**
 * Waits for the client: nobody holds the turn until it has answered these calls or the time is up.
 * $1 turn, $2 epoch, $3 states, $4 deadline in ms, $5 the calls `[{callId, state}]`. No row: fenced.
 */
export const requireAction = statement(
  'chats/require-action',
  `with turn as (
    update turns set state = 'requires_action', lease_until = null, admitted_at = null, takeovers = 0,
      deadline = clock_timestamp() + $4 * interval '1 ms', ${ranFor}
    where id = $1 and epoch = $2 and state = any($3) returning id, chat_id),
  calls as (
    update tool_calls c set state = w.state from turn, jsonb_to_recordset($5::jsonb) w ("callId" text, state text)
    where c.turn_id = turn.id and c.call_id = w."callId" and c.state = 'requested')
  update chats c set status = 'requires_action' from turn where c.id = turn.chat_id returning turn.id as turn_id`,
)

/**
 * Waits for subagents, where one of them is still at work. $1 turn, $2 epoch, $3 states, $4 deadline in ms, $5 their chats.
 * No row: fenced. `waits` is false where none is open: the turn runs on.
 */
export const waitForChildren = statement(
  'chats/wait',
  `with held as (select id, chat_id from turns where id = $1 and epoch = $2 and state = any($3)),
  open as (
    select array_agg(c.id) as ids from chats c, held where c.parent_id = held.chat_id and c.id = any($5) and c.active_turn_id is not null),
  turn as (
    update turns t set state = 'waiting', lease_until = null, admitted_at = null, takeovers = 0, awaits = open.ids,
      deadline = clock_timestamp() + $4 * interval '1 ms', ${ranFor}
    from held, open where t.id = held.id and open.ids is not null returning t.id, t.chat_id),
  chat as (update chats c set status = 'waiting' from turn where c.id = turn.chat_id)
  select held.id as turn_id, turn.id is not null as waits from held left join turn on true`,
)

/** Completes a turn that gave no answer. $1 turn, $2 epoch, $3 states. The queue's head is promoted after it. No row: fenced. */
export const finishWithoutAnswer = statement(
  'chats/finish-without-answer',
  `with done as (
    update turns set state = 'completed', finished_at = clock_timestamp(), lease_until = null, retry_state = null, ${ranFor}
    where id = $1 and epoch = $2 and state = any($3) returning id, chat_id)
  update chats c set status = 'idle', active_turn_id = null, last_error = null
  from done where c.id = done.chat_id returning done.id as turn_id`,
)

/**
 * Adds what a call beside the steps has used, such as an advisor's, or one whose turn was superseded meanwhile. $1 turn,
 * $2 epoch, $3 usage, $4 cost, $5 id of the spending. No row: fenced.
 */
export const addSpent = statement(
  'chats/add-spent',
  `update turns set ${spentOnce('$3::jsonb', '$4::bigint', '$5')}
  where id = $1 and epoch = $2 and state in ('running', 'interrupting', 'superseded') returning id as turn_id`,
)

/**
 * Ends an interrupted turn with what there is of its answer, unless that is committed: the worker of a step may not have
 * been told so. Values as with finishing, but $11 id of the spending where there is no answer. No row: fenced.
 */
export const finishInterruptedTurn = statement(
  'chats/finish-interrupt',
  `with fresh as (
    select $8::jsonb as used, $9::bigint as cost where not exists (
      select 1 from messages m where m.turn_id = $1 and m.step = $4 and m.role = 'assistant')),
  done as (
    update turns set state = 'interrupted', finished_at = clock_timestamp(), lease_until = null, retry_state = null,
      ${spentOnce('(select used from fresh)', '(select cost from fresh)', '$11')},
      first_part_at = coalesce(first_part_at, claimed_at + $10 * interval '1 ms'), ${ranFor}
    where id = $1 and epoch = $2 and state = any($3) returning id, chat_id, api_key_id),
  answer as (
    insert into messages (chat_id, turn_id, step, role, parts, api_key_id, model_config_id, finish_reason, usage, cost_micros)
    select chat_id, id, $4, 'assistant', $5, api_key_id, $6, $7, $8, $9 from done, fresh where $5::jsonb is not null)
  update chats c set status = 'idle', active_turn_id = null, last_error = null
  from done where c.id = done.chat_id returning done.id as turn_id`,
)

/** $1 turn, $2 epoch, $3 states to fail from, $4 error, $5 usage, $6 cost, $7 id of the spending. The queue stays. No row: fenced. */
export const failTurn = statement(
  'chats/fail',
  `with failed as (
    update turns set state = 'failed', finished_at = clock_timestamp(), lease_until = null, retry_state = null, error = $4,
      ${spentOnce('$5::jsonb', '$6::bigint', '$7')}, ${ranFor}
    where id = $1 and epoch = $2 and state = any($3) returning id, chat_id)
  update chats c set status = 'failed', active_turn_id = null, last_error = $4
  from failed where c.id = failed.chat_id returning failed.id as turn_id`,
)

/**
 * Gives a turn back unfinished, to be admitted and enqueued anew. $1 turn, $2 epoch, $3 states to release from, $4 usage,
 * $5 cost, $6 id of the spending. No row: fenced.
 */
export const releaseTurn = statement(
  'chats/release',
  `with released as (
    update turns set state = 'pending', lease_until = null, admitted_at = null,
      ${spentOnce('$4::jsonb', '$5::bigint', '$6')}, ${ranFor}
    where id = $1 and epoch = $2 and state = any($3) returning id, chat_id)
  update chats c set status = 'pending' from released where c.id = released.chat_id returning released.id as turn_id`,
)

/**
 * Notes that an attempt failed and is tried again, and what it spent. Repeating it changes nothing.
 * $1 turn, $2 epoch, $3 states, $4 retry state, $5 usage, $6 cost, $7 id of the spending. No row: fenced.
 */
export const noteRetry = statement(
  'chats/note-retry',
  `update turns set retry_state = $4, ${spentOnce('$5::jsonb', '$6::bigint', '$7')}
    where id = $1 and epoch = $2 and state = any($3) returning id as turn_id`,
)

/**
 * Gives a turn back until its next attempt is due. $1 turn, $2 epoch, $3 states, $4 retry state, $5 usage, $6 cost,
 * $7 id of the spending, $8 wait in ms. No row: fenced.
 */
export const backOff = statement(
  'chats/backoff',
  `with waiting as (
    update turns set state = 'pending', lease_until = null, admitted_at = null, retry_state = $4,
      not_before = clock_timestamp() + $8 * interval '1 ms', ${spentOnce('$5::jsonb', '$6::bigint', '$7')}, ${ranFor}
    where id = $1 and epoch = $2 and state = any($3) returning id, chat_id)
  update chats c set status = 'pending' from waiting where c.id = waiting.chat_id returning waiting.id as turn_id`,
)
