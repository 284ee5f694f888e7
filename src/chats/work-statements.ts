import { statement } from '../db/index.ts'

/** The statements of a worker. Every write is conditional on the epoch: a zombie's changes no row. */

// Whether a key may be used, as the gateway would judge it: 'none' where the turn carries no key ID.
const keyState = (turn: string): string => `(
  select case when ${turn}.api_key_id is null then 'none'
    when k.id is null or u.status <> 'active' or k.revoked_at is not null or k.expires_at <= clock_timestamp() then 'invalid'
    else 'valid' end
  from (values (1)) one left join api_keys k on k.id = ${turn}.api_key_id left join users u on u.id = k.user_id)`

/**
 * $1 turn, $2 lease in ms, $3 states it may be claimed from, $4 job, $5 the job's attempts made,
 * $6 whether the payload is to be compared, $7 its key, $8 its chat.
 * No row: not to be claimed by this job.
 */
export const claimTurn = statement(
  'chats/claim',
  `with chat as (
    select c.* from chats c where c.id = (select chat_id from turns where id = $1) for update),
  claimed as (
    update turns t set state = case when t.state = 'pending' then 'running' else t.state end,
      epoch = t.epoch + 1, takeovers = t.takeovers + case when t.state = 'pending' then 0 else 1 end,
      lease_until = clock_timestamp() + $2 * interval '1 ms', claimed_at = clock_timestamp(),
      job_attempts = case when t.job_id = $4 then $5 else t.job_attempts end
    from chat
    where t.id = $1 and t.state = any($3)
      and ((t.state = 'pending' and t.admitted_at is not null and (t.not_before is null or t.not_before <= clock_timestamp()))
        or t.lease_until < clock_timestamp())
      and (not $6 or t.api_key_id is null or (t.api_key_id = $7 and t.chat_id = $8))
    returning t.*),
  shown as (
    update chats c set status = claimed.state from claimed where c.id = claimed.chat_id returning c.snapshot_version)
  select claimed.id as turn_id, claimed.state, claimed.chat_id, claimed.number, claimed.epoch, claimed.takeovers, claimed.pool,
    claimed.user_id, claimed.api_key_id, claimed.model_config_id, claimed.reasoning_effort, claimed.user_message_id,
    ${keyState('claimed')} as key_state,
    (select user_id from api_keys where id = claimed.api_key_id) as key_owner_id,
    owner.status as owner_status, chat.model_config_id as chat_model_config_id, chat.system_prompt,
    shown.snapshot_version
  from claimed, chat, shown, users owner where owner.id = chat.user_id`,
)

/** $1 turn. Why a claim or a write changed nothing. */
export const readTurnState = statement(
  'chats/read-turn-state',
  `select state, epoch, chat_id, api_key_id, admitted_at is not null as admitted,
    coalesce(lease_until > clock_timestamp(), false) as held from turns where id = $1`,
)

/** $1 chat. What the model is shown, oldest first. */
export const readContext = statement(
  'chats/read-context',
  `select role, parts from messages
  where chat_id = $1 and deleted_at is null and not compressed and visibility <> 'user' order by id`,
)

/** $1 turns, $2 their epochs, $3 lease in ms. A turn without a row is lost to this worker. */
export const renewLeases = statement(
  'chats/renew',
  `update turns t set lease_until = clock_timestamp() + $3 * interval '1 ms'
  from unnest($1::uuid[], $2::int[]) held (id, epoch)
  where t.id = held.id and t.epoch = held.epoch and t.state in ('running', 'interrupting')
  returning t.id as turn_id, t.state, ${keyState('t')} as key_state`,
)

/** $1 chat. Taken before a worker's write, in the same round trip. */
export const lockChatOf = statement('chats/lock-for-work', `select 1 from chats where id = $1 for update`)

// How long the claim ran, added to what earlier claims of the turn ran.
const ranFor = `running_ms = running_ms + (extract(epoch from clock_timestamp() - claimed_at) * 1000)::bigint`

/**
 * Commits an answer, ends the turn and promotes the head of the queue, all hanging on the one update that is fenced.
 * $1 turn, $2 epoch, $3 states to end from, $4 step, $5 parts or null for no answer, $6 model config, $7 finish reason,
 * $8 usage, $9 cost, $10 ms between claim and first part, $11 id of the promoted message's turn.
 * No row: fenced.
 */
const endTurn = (name: string, state: 'completed' | 'interrupted') =>
  statement(
    name,
    `with done as (
    update turns set state = '${state}', finished_at = clock_timestamp(), lease_until = null, usage = $8, cost_micros = $9,
      first_part_at = claimed_at + $10 * interval '1 ms', ${ranFor}
    where id = $1 and epoch = $2 and state = any($3)
    returning id, chat_id, number, user_id, pool, api_key_id),
  answer as (
    insert into messages (chat_id, turn_id, step, role, parts, api_key_id, model_config_id, finish_reason, usage, cost_micros)
    select chat_id, id, $4, 'assistant', $5, api_key_id, $6, $7, $8, $9 from done where $5::jsonb is not null returning id),
  head as (
    select q.id from queued_messages q, done where q.chat_id = done.chat_id and q.state = 'queued'
    order by q.position, q.id limit 1),
  promoted as (
    update queued_messages q set state = 'promoted', updated_at = clock_timestamp() from head where q.id = head.id returning q.*),
  message as (
    insert into messages (chat_id, turn_id, role, parts, api_key_id, queued_message_id, created_by)
    select promoted.chat_id, $11, 'user', promoted.parts, promoted.api_key_id, promoted.id, promoted.created_by
    from promoted left join answer on true returning id),
  next as (
    insert into turns (id, chat_id, number, user_id, pool, trigger, api_key_id, user_message_id, model_config_id, reasoning_effort)
    select $11, done.chat_id, done.number + 1, done.user_id, done.pool, 'promote', promoted.api_key_id, message.id,
      promoted.model_config_id, promoted.reasoning_effort
    from done, promoted, message returning id)
  update chats c set status = case when next.id is null then 'idle' else 'pending' end, active_turn_id = next.id,
    last_turn_id = coalesce(next.id, done.id), last_error = null
  from done left join next on true where c.id = done.chat_id returning done.id as turn_id, next.id as next_turn_id`,
  )

export const finishTurn = endTurn('chats/finish', 'completed')

export const finishInterruptedTurn = endTurn('chats/finish-interrupt', 'interrupted')

/** $1 turn, $2 epoch, $3 states to fail from, $4 error, $5 usage, $6 cost. The queue stays. No row: fenced. */
export const failTurn = statement(
  'chats/fail',
  `with failed as (
    update turns set state = 'failed', finished_at = clock_timestamp(), lease_until = null, error = $4, usage = $5,
      cost_micros = $6, ${ranFor}
    where id = $1 and epoch = $2 and state = any($3) returning id, chat_id)
  update chats c set status = 'failed', active_turn_id = null, last_error = $4
  from failed where c.id = failed.chat_id returning failed.id as turn_id`,
)

/** Gives a turn back unfinished, to be admitted and enqueued anew. $1 turn, $2 epoch, $3 states to release from. No row: fenced. */
export const releaseTurn = statement(
  'chats/release',
  `with released as (
    update turns set state = 'pending', lease_until = null, admitted_at = null, ${ranFor}
    where id = $1 and epoch = $2 and state = any($3) returning id, chat_id)
  update chats c set status = 'pending' from released where c.id = released.chat_id returning released.id as turn_id`,
)

export { admit } from './produce-statements.ts'
