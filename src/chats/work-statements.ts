import { statement } from '../db/index.ts'

/** The statements of a worker. Every write is conditional on the epoch: a zombie's changes no row. */

// Whether a key may be used, as the gateway would judge it: 'none' where the turn carries no key ID.
export const keyState = (turn: string): string => `(
  select case when ${turn}.api_key_id is null then 'none'
    when k.id is null or u.status <> 'active' or k.revoked_at is not null or k.expires_at <= clock_timestamp() then 'invalid'
    else 'valid' end
  from (values (1)) one left join api_keys k on k.id = ${turn}.api_key_id left join users u on u.id = k.user_id)`

/** A statement of its own, so that the claim sees what was committed before the lock was granted. $1 turn. */
export const lockChatOfTurn = statement(
  'chats/lock-for-claim',
  `select 1 from chats where id = (select chat_id from turns where id = $1) for no key update`,
)

/**
 * Under the chat's lock. $1 turn, $2 lease in ms, $3 states it may be claimed from, $4 job, $5 the job's attempts made,
 * $6 whether the payload is to be compared, $7 its key, $8 its chat.
 * No row: not to be claimed by this job.
 */
export const claimTurn = statement(
  'chats/claim',
  `with chat as (
    select c.* from chats c where c.id = (select chat_id from turns where id = $1)),
  claimed as (
    update turns t set state = case when t.state = 'pending' then 'running' else t.state end,
      epoch = t.epoch + 1, takeovers = t.takeovers + case when t.state = 'pending' then 0 else 1 end,
      lease_until = clock_timestamp() + $2 * interval '1 ms', claimed_at = clock_timestamp(),
      -- What a claim ran that was lost, as far as its lease went.
      running_ms = t.running_ms + case when t.state = 'pending' then 0
        else greatest(0, extract(epoch from least(clock_timestamp(), t.lease_until) - t.claimed_at) * 1000)::bigint end,
      job_attempts = case when t.job_id = $4 then $5 else t.job_attempts end
    from chat
    where t.id = $1 and t.state = any($3)
      and ((t.state = 'pending' and t.admitted_at is not null and (t.not_before is null or t.not_before <= clock_timestamp()))
        or t.lease_until < clock_timestamp())
      and (not $6 or t.api_key_id is null or (t.api_key_id = $7 and t.chat_id = $8))
    returning t.*),
  shown as (
    update chats c set status = claimed.state, status_label = case when claimed.epoch = 1 then null else c.status_label end
    from claimed where c.id = claimed.chat_id returning c.snapshot_version)
  select claimed.id as turn_id, claimed.state, claimed.chat_id, claimed.number, claimed.epoch, claimed.takeovers, claimed.pool,
    claimed.user_id, claimed.api_key_id, claimed.model_config_id, claimed.reasoning_effort, claimed.user_message_id::text,
    claimed.trigger, claimed.running_ms, chat.depth, chat.subagent_type, chat.client_tools, chat.title,
    ${keyState('claimed')} as key_state,
    (select user_id from api_keys where id = claimed.api_key_id) as key_owner_id,
    owner.status as owner_status, chat.model_config_id as chat_model_config_id, chat.system_prompt, chat.parent_id,
    claimed.retry_state as retry,
    (select t.state <> 'pending' from turns t where t.id = claimed.id) as taken_over,
    (select coalesce(max(step), 0) from messages m where m.turn_id = claimed.id and m.role = 'assistant') as committed_steps,
    shown.snapshot_version,
    coalesce(chat.debug_until > clock_timestamp(), false) or (chat.root_id <> chat.id and exists (
      select 1 from chats root where root.id = chat.root_id and root.debug_until > clock_timestamp())) as debug
  from claimed, chat, shown, users owner where owner.id = chat.user_id`,
)

/** $1 turn. Why a claim or a write changed nothing. */
export const readTurnState = statement(
  'chats/read-turn-state',
  `select state, epoch, chat_id, api_key_id, admitted_at is not null as admitted,
    coalesce(lease_until > clock_timestamp(), false) as held from turns where id = $1`,
)

/** $1 chat. What the model is shown, oldest first; a summary stands before what it left in place. */
export const readContext = statement(
  'chats/read-context',
  `select m.id::text, m.role, m.parts, m.turn_id, m.boundary, m.usage from messages m
  where m.chat_id = $1 and m.deleted_at is null and not m.compressed and m.visibility <> 'user'
  -- By the number: an id without its table were the text of the answer.
  order by (m.boundary is not null) desc, m.id`,
)

// An agent writes to a subagent only while its own turn goes on, so a message that was written meanwhile is taken for its
// own. One that waited was written when it was queued; its row goes a day after its turn began, which then counts by itself.
const isSetOffBy = (turn: string, by: string): string =>
  `${turn}.trigger in ('subagent', 'send', 'promote') and ${turn}.created_at >= ${by}.created_at
    and coalesce((select q.created_at from messages m join queued_messages q on q.id = m.queued_message_id
      where m.id = ${turn}.user_message_id), ${turn}.created_at)
      between ${by}.created_at and coalesce(${by}.finished_at, 'infinity')`

const FAMILY_TURN =
  't.id, t.chat_id, t.trigger, t.user_message_id, t.created_at, t.finished_at, t.cost_micros'

/**
 * What a turn counts together with: the turn that its user began, and all that this has set off. Up from parent to parent,
 * and down again from the first. $1 turn.
 */
export const readFamilySpent = statement(
  'chats/family-spent',
  `with recursive above as (
    select ${FAMILY_TURN}, 0 as height from turns t where t.id = $1
    union all
    select ${FAMILY_TURN}, above.height + 1 from above join chats c on c.id = above.chat_id
      join turns t on t.chat_id = c.parent_id and ${isSetOffBy('above', 't')}),
  family as (
    (select ${FAMILY_TURN} from above t order by t.height desc, t.created_at desc limit 1)
    union
    select ${FAMILY_TURN} from family join chats c on c.parent_id = family.chat_id
      join turns t on t.chat_id = c.id and ${isSetOffBy('t', 'family')})
  select coalesce(sum(cost_micros), 0)::float8 as cost_micros,
    (select count(*)::int from messages m join family on m.turn_id = family.id where m.role = 'assistant') as steps
  from family`,
)

/**
 * $1 turns, $2 their epochs, $3 lease in ms. A turn without a row is lost to this worker. Rows of turns are locked in the
 * order of their ids, here and in cascades.
 */
export const renewLeases = statement(
  'chats/renew',
  `with mine as (
    select t.id from turns t join unnest($1::uuid[], $2::int[]) held (id, epoch) on t.id = held.id and t.epoch = held.epoch
    where t.state in ('running', 'interrupting') order by t.id for no key update of t)
  update turns t set lease_until = clock_timestamp() + $3 * interval '1 ms' from mine where t.id = mine.id
  returning t.id as turn_id, t.epoch, t.state, ${keyState('t')} as key_state`,
)
