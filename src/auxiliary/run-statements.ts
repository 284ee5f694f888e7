import { isWanted, keyState, nameChat } from '../chats/index.ts'
import { statement } from '../db/index.ts'

/** The statements of auxiliary runs. Every write of a worker is conditional on the epoch: a zombie's changes no row. */

const jobId = (run: string): string => `'aux-' || ${run}.id || '-' || ${run}.enqueues`

// A payload that is compared must name the row's key and chat; a row whose key is gone has nothing to compare.
const agrees = (compared: string, key: string, chat: string): string =>
  `(not ${compared} or r.api_key_id is null or (r.api_key_id = ${key} and r.chat_id = ${chat}))`

const pending = (run: string): string =>
  `${run}.id as run_id, ${run}.chat_id, ${run}.api_key_id, ${run}.purpose, ${run}.enqueues`

// What the run has used so far, and this write on top of it.
const spent = (usage: string, cost: string): string => `usage = turnmill_add_usage(usage, ${usage}::jsonb),
      cost_micros = case when cost_micros is null then ${cost}::bigint else cost_micros + coalesce(${cost}::bigint, 0) end`

/**
 * $1 run, $2 lease in ms, $3 states it may be claimed from, $4 job, $5 the job's attempts made, $6 whether the payload is to
 * be compared, $7 its key, $8 its chat. No row: not to be claimed by this job.
 */
export const claimRun = statement(
  'auxiliary/claim',
  `with claimed as (
    update auxiliary_runs r set state = 'running', epoch = r.epoch + 1,
      takeovers = r.takeovers + case when r.state = 'pending' then 0 else 1 end,
      lease_until = clock_timestamp() + $2 * interval '1 ms',
      job_attempts = case when ${jobId('r')} = $4 then $5 else r.job_attempts end
    where r.id = $1 and r.state = any($3) and (r.state = 'pending' or r.lease_until < clock_timestamp())
      and ${agrees('$6', '$7', '$8')}
    returning r.*)
  select claimed.id as run_id, claimed.chat_id, claimed.turn_id, claimed.purpose, claimed.epoch, claimed.takeovers,
    claimed.api_key_id, ${keyState('claimed')} as key_state,
    (select user_id from api_keys where id = claimed.api_key_id) as key_owner_id,
    chat.user_id, owner.status as owner_status, chat.model_config_id, ${isWanted('claimed', 'chat')} as wanted
  from claimed, chats chat, users owner where chat.id = claimed.chat_id and owner.id = chat.user_id`,
)

/** $1 run. Why a claim changed nothing. */
export const readRun = statement(
  'auxiliary/read',
  'select state, chat_id, api_key_id from auxiliary_runs where id = $1',
)

/** $1 chat. What was asked first, and the first answer that has text. */
export const readBeginning = statement(
  'auxiliary/beginning',
  `select (select parts from messages where chat_id = $1 and role = 'user' and deleted_at is null order by id limit 1) as asked,
    (select parts from messages where chat_id = $1 and role = 'assistant' and deleted_at is null
      and parts @> '[{"type": "text"}]' order by id limit 1) as answered`,
)

/** $1 turn. What it was asked. */
export const readAsked = statement(
  'auxiliary/asked',
  `select m.parts as asked, null as answered from turns t join messages m on m.id = t.user_message_id where t.id = $1`,
)

/** $1 runs, $2 their epochs, $3 lease in ms, $4 states. A run without a row is lost to this worker. */
export const renewLeases = statement(
  'auxiliary/renew',
  `with mine as (
    select r.id from auxiliary_runs r join unnest($1::uuid[], $2::int[]) held (id, epoch) on r.id = held.id and r.epoch = held.epoch
    where r.state = any($4) order by r.id for no key update of r)
  update auxiliary_runs r set lease_until = clock_timestamp() + $3 * interval '1 ms' from mine where r.id = mine.id
  returning r.id as run_id, r.epoch, ${keyState('r')} as key_state`,
)

/** Under the chat's lock. $1 run, $2 epoch, $3 states, $4 usage, $5 cost, $6 what was found. No row: fenced. */
export const completeRun = statement(
  'auxiliary/complete',
  `with run as (
    update auxiliary_runs set state = 'completed', finished_at = clock_timestamp(), lease_until = null, ${spent('$4', '$5')}
    where id = $1 and epoch = $2 and state = any($3) returning id, chat_id, turn_id, purpose),
  named as (${nameChat('run', '$6')})
  select run.id as run_id, named.id is not null as named from run left join named on true`,
)

/** Under the chat's lock. $1 run, $2 epoch, $3 states, $4 usage, $5 cost, $6 error. No row: fenced. */
export const failRun = statement(
  'auxiliary/fail',
  `with run as (
    update auxiliary_runs set state = 'failed', finished_at = clock_timestamp(), lease_until = null, error = $6,
      ${spent('$4', '$5')}
    where id = $1 and epoch = $2 and state = any($3) returning id, chat_id, turn_id, purpose),
  told as (
    update chats c set title_error = $6 from run where c.id = run.chat_id and run.purpose = 'title' and ${isWanted('run', 'c')}
    returning c.id)
  select run.id as run_id, told.id is not null as told from run left join told on true`,
)

/** $1 run, $2 epoch, $3 states, $4 usage, $5 cost. No row: fenced. */
export const releaseRun = statement(
  'auxiliary/release',
  `update auxiliary_runs r set state = 'pending', lease_until = null, enqueues = r.enqueues + 1,
    enqueued_at = clock_timestamp(), ${spent('$4', '$5')}
  where r.id = $1 and r.epoch = $2 and r.state = any($3) returning ${pending('r')}`,
)

// Only the job that is on the row, and only a delivery that was asked for anew: a duplicate has made no attempt.
/** $1 run, $2 states, $3 job, $4 attempts made, $5 whether the payload is to be compared, $6 its key, $7 its chat. */
export const reopenRun = statement(
  'auxiliary/reopen',
  `update auxiliary_runs r set state = 'pending', error = null, finished_at = null, takeovers = 0, job_attempts = $4,
    enqueues = r.enqueues + 1, enqueued_at = clock_timestamp()
  where r.id = $1 and r.state = any($2) and ${jobId('r')} = $3 and r.job_attempts < $4 and ${agrees('$5', '$6', '$7')}
  returning ${pending('r')}`,
)

// A job is expected for a run that waits, and for one whose lease ran out.
const expectsJob = `(r.state = 'pending' or (r.state = 'running' and r.lease_until < clock_timestamp()))`

/** $1 age of the enqueueing in ms, $2 rows at most, $3 and $4 the last row of the page before. */
export const suspects = statement(
  'auxiliary/suspects',
  `select r.id as run_id, r.enqueues, r.enqueued_at from auxiliary_runs r
  where r.state in ('pending', 'running') and ${expectsJob}
    and (r.state <> 'pending' or r.enqueued_at < clock_timestamp() - $1 * interval '1 ms')
    and ($3::timestamptz is null or (r.enqueued_at, r.id) > ($3::timestamptz, $4::uuid))
  order by r.enqueued_at, r.id limit $2`,
)

/** $1 runs, $2 the enqueueings they were suspected with. */
export const enqueueAnew = statement(
  'auxiliary/enqueue-anew',
  `with lost as (
    select r.id from auxiliary_runs r
    join unnest($1::uuid[], $2::int[]) lost (id, enqueues) on r.id = lost.id and r.enqueues = lost.enqueues
    where ${expectsJob} for no key update of r skip locked)
  update auxiliary_runs r set enqueues = r.enqueues + 1, enqueued_at = clock_timestamp() from lost where r.id = lost.id
  returning ${pending('r')}`,
)

/** $1 rows at most. The subquery makes the time one value, so that the index finds the rows. */
export const pruneFinished = statement(
  'auxiliary/prune',
  `delete from auxiliary_runs where id in (
    select id from auxiliary_runs where finished_at < (select clock_timestamp() - interval '7 days')
    order by finished_at limit $1)`,
)
