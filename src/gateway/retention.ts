import { batch, statement, type Database } from '../db/index.ts'
import { firstId } from './ids-in-time.ts'

/** How long the gateway's books are kept. */
export interface Retention {
  /** The record of a call with its usage and tools, in days. */
  recordRetentionDays: number
  /** What the user said before it, in days. */
  promptRetentionDays: number
}

// In a subquery the moment is one value, so that the primary keys find the rows.
const before = (days: string): string =>
  `(select ${firstId(`clock_timestamp() - ${days} * interval '1 day'`)})`

/** What is not settled is still a reservation. $1 days, $2 rows at most. */
export const pruneInterceptions = statement(
  'gateway/prune-records',
  `with old as materialized (
    select id from interceptions where id < ${before('$1')} and settled_at is not null order by id limit $2),
  usages as (delete from token_usages where interception_id in (select id from old)),
  prompts as (delete from user_prompts where interception_id in (select id from old)),
  tools as (delete from tool_usages where interception_id in (select id from old))
  delete from interceptions where id in (select id from old)`,
)

/** They are written when a call is settled. $1 days, $2 rows at most. */
export const prunePrompts = statement(
  'gateway/prune-prompts',
  `delete from user_prompts where interception_id in (
    select interception_id from user_prompts where interception_id < ${before('$1')} order by interception_id limit $2)`,
)

/** Retention: forgets what was kept for long enough, `limit` rows of a kind at most, the oldest first. One round trip. */
export async function pruneRecords(
  db: Database,
  { recordRetentionDays, promptRetentionDays }: Retention,
  limit: number,
): Promise<void> {
  await batch(db, [pruneInterceptions(recordRetentionDays, limit), prunePrompts(promptRetentionDays, limit)])
}
