import { query, statement, type Database } from '../db/index.ts'
import { newId } from '../protocol/ids.ts'
import type { AuxiliaryPurpose } from '../protocol/views.ts'
import type { Claim } from './work.ts'

/** An auxiliary run that is committed and waits for its job. */
export interface PendingRun {
  runId: string
  chatId: string
  /** The initiator: the turn's key, or the caller's of a title that was asked for. */
  apiKeyId: string | null
  purpose: AuxiliaryPurpose
  jobId: string
}

export interface PendingRunRow {
  run_id: string
  chat_id: string
  api_key_id: string | null
  purpose: AuxiliaryPurpose
  enqueues: number
}

export const toPendingRun = (row: PendingRunRow): PendingRun => ({
  runId: row.run_id,
  chatId: row.chat_id,
  apiKeyId: row.api_key_id,
  purpose: row.purpose,
  jobId: runJobId(row.run_id, row.enqueues),
})

/** A finished job that is still kept swallows an add of its ID, so each enqueueing has its own. */
export const runJobId = (runId: string, enqueues: number): string => `aux-${runId}-${enqueues}`

/** The runs that the rows of a write tell of, where there are any. */
export const pendingRunsOf = (rows: readonly object[]): PendingRun[] =>
  rows.flatMap((row) => ('run_id' in row && row.run_id !== null ? [toPendingRun(row as PendingRunRow)] : []))

/**
 * The SQL that makes the run of a chat's automatic title: once, for a root chat that nobody has named, under the key of
 * the turn that has just been answered.
 *
 * @param done the CTE with that turn. @param runId a parameter; NULL makes none.
 */
export const insertTitleRun = (done: string, runId: string): string => `
    insert into auxiliary_runs (id, chat_id, turn_id, user_id, purpose, api_key_id)
    select ${runId}, ${done}.chat_id, ${done}.id, ${done}.user_id, 'title', ${done}.api_key_id from ${done}
    where ${runId}::uuid is not null and (
      -- One value, and not a join: it is looked up by the key of this one chat, whatever is known of the tables.
      select c.title is null and c.parent_id is null and (
        select r.id from auxiliary_runs r where r.chat_id = c.id and r.purpose = 'title' limit 1) is null
      from chats c where c.id = ${done}.chat_id)
    returning id as run_id, chat_id, api_key_id, purpose, enqueues`

/**
 * The SQL that writes what a run has found to its chat. A title that somebody has set meanwhile is only overwritten by one
 * that was asked for, and a label is only written while its turn is at work.
 *
 * @param run the CTE with the run. @param words a parameter; NULL writes nothing.
 */
export const nameChat = (run: string, words: string): string => `
    update chats c set title = case ${run}.purpose when 'title' then ${words} else c.title end,
      title_error = case ${run}.purpose when 'title' then null else c.title_error end,
      status_label = case ${run}.purpose when 'quickgen' then ${words} else c.status_label end
    from ${run} where c.id = ${run}.chat_id and ${words}::text is not null and ${isWanted(run, 'c')}
    returning c.id`

/** The SQL that tells whether the chat still has a use for what a run finds. */
export const isWanted = (run: string, chat: string): string => `
    case ${run}.purpose when 'title' then ${run}.turn_id is null or ${chat}.title is null
      else coalesce(${chat}.active_turn_id = ${run}.turn_id, false) end`

/** $1 run, $2 turn. Once per turn. */
const insertLabelRun = statement(
  'auxiliary/label',
  `insert into auxiliary_runs (id, chat_id, turn_id, user_id, purpose, api_key_id)
  select $1, chat_id, id, user_id, 'quickgen', api_key_id from turns where id = $2
  on conflict do nothing returning id as run_id, chat_id, api_key_id, purpose, enqueues`,
)

/** Has a label made of what a turn is about to do, under the turn's key. */
export const startLabel = async (db: Database, { turnId }: Claim): Promise<PendingRun[]> =>
  pendingRunsOf(await query(db, insertLabelRun(newId(), turnId)))
