import { batch, query, statement, type Database } from '../db/index.ts'
import { newId } from '../protocol/ids.ts'
import { ADMITTED, toAdmittedTurns, type AdmittedTurn, type PoolSlots } from './admission.ts'
import { lockChatOf } from './commit-statements.ts'
import { admitFor, promoteHead } from './effect-statements.ts'

/** Turns that Postgres holds and whose job may be lost, with the job that was made for them. */
export interface Suspect {
  turnId: string
  jobId: string
}

/** Where a page of suspects ended. */
export interface SuspectCursor {
  enqueuedAt: Date
  turnId: string
}

export interface SuspectPage {
  suspects: Suspect[]
  next: SuspectCursor | null
}

const waitingPools = `select distinct user_id, pool from turns
  where state = 'pending' and admitted_at is null and (not_before is null or not_before <= clock_timestamp())
  order by user_id, pool limit $1`

/** $1 pools at most, $2 slots of a root pool, $3 slots of a subagent pool. */
const admitWaiting = statement(
  'reconcile/admit',
  `select ${ADMITTED} from (${waitingPools}) waiting,
    lateral turnmill_admit(waiting.user_id, waiting.pool, case waiting.pool when 'root' then $2::int else $3::int end) a`,
)

// A job is expected for an admitted turn whose time has come, and for a held one whose lease ran out.
const expectsJob = `(
    (state = 'pending' and admitted_at is not null and (not_before is null or not_before <= clock_timestamp()))
    or (state in ('running', 'interrupting') and lease_until < clock_timestamp()))`

/** $1 age of the enqueueing in ms, $2 rows at most, $3 and $4 the last row of the page before. */
const suspects = statement(
  'reconcile/suspects',
  `select id as turn_id, job_id, enqueued_at from turns
  where state in ('pending', 'running', 'interrupting') and ${expectsJob}
    and (state <> 'pending' or enqueued_at < clock_timestamp() - $1 * interval '1 ms')
    and ($3::timestamptz is null or (enqueued_at, id) > ($3::timestamptz, $4::uuid))
  order by enqueued_at, id limit $2`,
)

/** $1 turns, $2 the jobs they were suspected with. */
const enqueueAnew = statement(
  'reconcile/enqueue-anew',
  `with lost as (
    select t.id from turns t join unnest($1::uuid[], $2::text[]) lost (id, job_id) on t.id = lost.id and t.job_id = lost.job_id
    where ${expectsJob.replaceAll(/\b(state|admitted_at|not_before|lease_until)\b/g, 't.$1')}
    for no key update of t skip locked)
  update turns t set enqueues = t.enqueues + 1, enqueued_at = clock_timestamp(),
    job_id = 'turn-' || t.id || '-' || (t.enqueues + 1)
  from lost where t.id = lost.id
  returning t.id as turn_id, t.chat_id, t.api_key_id, t.trigger, t.job_id, t.epoch > 0 as begun`,
)

/** $1 rows at most. The subquery makes the time one value, so that the index finds the rows. */
const pruneEnded = statement(
  'reconcile/prune-queue',
  `delete from queued_messages where id in (
    select id from queued_messages
    where state <> 'queued' and updated_at < (select clock_timestamp() - interval '24 hours')
    order by updated_at limit $1)`,
)

const oldestWait = statement(
  'reconcile/oldest-wait',
  `select coalesce(extract(epoch from clock_timestamp() - min(greatest(admitted_at, not_before))) * 1000, 0)::float8 as wait_ms
  from turns where state = 'pending' and admitted_at is not null`,
)

/** How long the oldest turn that may run has waited for a worker, in ms; 0 where none waits. */
export async function readOldestWaitMs(db: Database): Promise<number> {
  const [row] = await query<{ wait_ms: number }>(db, oldestWait())
  return row?.wait_ms ?? 0
}

const turnCounts = statement(
  'reconcile/counts',
  `select count(*) filter (where state = 'pending')::int as pending, count(*) filter (where state <> 'pending')::int as running,
    coalesce(extract(epoch from clock_timestamp() - min(greatest(admitted_at, not_before))
      filter (where state = 'pending' and admitted_at is not null)) * 1000, 0)::float8 as "oldestWaitMs"
  from turns where state in ('pending', 'running', 'interrupting')`,
)

/** Turns that wait and turns that are held, and how long the oldest that may run has waited, in ms. */
export async function countTurns(
  db: Database,
): Promise<{ pending: number; running: number; oldestWaitMs: number }> {
  const [row] = await query<{ pending: number; running: number; oldestWaitMs: number }>(db, turnCounts())
  return row ?? { pending: 0, running: 0, oldestWaitMs: 0 }
}

/** $1 rows at most. */
const stuckQueues = statement(
  'reconcile/stuck-queues',
  `select distinct q.chat_id from queued_messages q join chats c on c.id = q.chat_id
  where q.state = 'queued' and c.status = 'idle' and c.archived_at is null limit $1`,
)

/** Chats with a queue and nothing before it (I7). */
export const findStuckQueues = async (db: Database, limit: number): Promise<string[]> =>
  (await query<{ chat_id: string }>(db, stuckQueues(limit))).map((row) => row.chat_id)

/** Promotes the head of such a queue, unless somebody has done so meanwhile. */
export async function promoteStuck(db: Database, slots: PoolSlots, chatId: string): Promise<AdmittedTurn[]> {
  const [, , admitted = []] = await batch(db, [
    lockChatOf(chatId),
    promoteHead(chatId, newId(), ['idle']),
    admitFor(chatId, slots.root, slots.subagent),
  ])
  return toAdmittedTurns(admitted)
}

/** Query 1: gives free slots to whoever waits for one. */
export const admitWaitingTurns = async (
  db: Database,
  slots: PoolSlots,
  limit: number,
): Promise<AdmittedTurn[]> =>
  toAdmittedTurns(await query(db, admitWaiting(limit, slots.root, slots.subagent)))

/** Queries 2 and 3: a page of turns that should have a job, oldest enqueueing first. */
export async function findSuspects(
  db: Database,
  options: { olderThanMs: number; limit: number; after: SuspectCursor | null },
): Promise<SuspectPage> {
  const { olderThanMs, limit, after } = options
  const statement = suspects(olderThanMs, limit, after?.enqueuedAt ?? null, after?.turnId ?? null)
  const rows = await query<{ turn_id: string; job_id: string; enqueued_at: Date }>(db, statement)
  const last = rows.length < limit ? undefined : rows.at(-1)
  return {
    suspects: rows.map((row) => ({ turnId: row.turn_id, jobId: row.job_id })),
    next: last === undefined ? null : { enqueuedAt: last.enqueued_at, turnId: last.turn_id },
  }
}

/** Names a new job for each turn that still expects the one it lost; the caller enqueues them. */
export async function renewJobs(db: Database, lost: readonly Suspect[]): Promise<AdmittedTurn[]> {
  if (lost.length === 0) return []
  return toAdmittedTurns(await query(db, enqueueAnew(lost.map((turn) => turn.turnId), lost.map((turn) => turn.jobId)))) // prettier-ignore
}

/** Retention: forgets what left the queue 24 hours ago, `limit` rows at most. */
export async function pruneQueue(db: Database, limit: number): Promise<void> {
  await query(db, pruneEnded(limit))
}
