import { statement, withTransaction, type Database } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import type { AuxiliaryPurpose, AuxiliaryRunView, RunState } from '../protocol/views.ts'
import { runJobId, type PendingRun } from './auxiliary.ts'
import { lockOwnChat } from './lock.ts'
import type { Initiator } from './produce.ts'
import type { JsonRow } from './views.ts'

/** Under the chat's lock. $1 run, $2 chat, $3 user, $4 key. Asked for twice before it has begun, it is one run. */
const insertRequestedTitle = statement(
  'auxiliary/request-title',
  `with waiting as (
    select * from auxiliary_runs
    where chat_id = $2 and turn_id is null and purpose = 'title' and state = 'pending' and api_key_id = $4 limit 1),
  added as (
    insert into auxiliary_runs (id, chat_id, user_id, purpose, api_key_id)
    select $1, $2, $3, 'title', $4 where not exists (select 1 from waiting) returning *),
  forgotten as (update chats set title_error = null where id = $2 and title_error is not null)
  select to_jsonb(run) as run from (select * from waiting union all select * from added) run`,
)

export interface RequestedTitle {
  run: AuxiliaryRunView
  runs: PendingRun[]
}

/**
 * Has a title made for a chat, whatever title it has, under the caller's key.
 *
 * @throws {TurnmillError} `not_found`, `chat_archived`.
 */
export const requestTitle = (
  db: Database,
  { userId, apiKeyId }: Initiator,
  chatId: string,
): Promise<RequestedTitle> =>
  withTransaction(db, async (tx) => {
    const chat = await lockOwnChat(tx, chatId, userId)
    if (chat.archived)
      throw new TurnmillError('chat_archived', `chat ${chatId} is archived: a title is refused`)
    const [rows = []] = await tx.commitWith([insertRequestedTitle(newId(), chatId, chat.userId, apiKeyId)])
    const [row] = rows as { run: JsonRow }[]
    if (row === undefined) throw new Error(`the title of chat ${chatId} was neither found nor made`)
    const run = toRunView(row.run)
    const jobId = runJobId(run.id, Number(row.run['enqueues']))
    return { run, runs: [{ runId: run.id, chatId, apiKeyId: run.apiKeyId, purpose: run.purpose, jobId }] }
  })

const toRunView = (row: JsonRow): AuxiliaryRunView => ({
  id: row['id'] as string,
  chatId: row['chat_id'] as string,
  purpose: row['purpose'] as AuxiliaryPurpose,
  state: row['state'] as RunState,
  apiKeyId: row['api_key_id'] as string | null,
  createdAt: new Date(row['created_at'] as string).toISOString(),
})
