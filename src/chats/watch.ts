import { query, statement, type Database } from '../db/index.ts'
import type { ChatChanges, RequiredAction } from '../protocol/views.ts'
import { toChatView, toMessageView, toQueuedMessageView, toTurnView, type JsonRow } from './views.ts'

/**
 * One statement, so one snapshot. $1 chat, $2 owner, $3 the version already seen.
 */
const changesSince = statement(
  'watch/changes',
  `select to_jsonb(c) as chat,
    (select coalesce(jsonb_agg(to_jsonb(m) || jsonb_build_object('turn_number', t.number) order by m.id), '[]')
      from messages m left join turns t on t.id = m.turn_id
      where m.chat_id = c.id and m.deleted_at is null and m.visibility <> 'model' and m.revision > $3) as messages,
    (select coalesce(jsonb_agg(to_jsonb(t) order by t.number), '[]')
      from turns t where t.chat_id = c.id and t.revision > $3) as turns,
    (select coalesce(jsonb_agg(to_jsonb(q) order by q.position, q.id), '[]')
      from queued_messages q where q.chat_id = c.id and q.state = 'queued') as queue,
    (select jsonb_build_object('turnId', t.id, 'deadline', t.deadline, 'calls', (
        select coalesce(jsonb_agg(jsonb_build_object('toolCallId', l.call_id, 'toolName', l.name, 'input', l.input,
          'needs', case l.state when 'awaiting_client' then 'result' else 'approval' end) order by l.created_at, l.id), '[]')
        from tool_calls l where l.turn_id = t.id and l.state in ('awaiting_client', 'awaiting_approval')))
      from turns t where t.id = c.active_turn_id and t.state = 'requires_action') as action
  from chats c where c.id = $1 and ($2::uuid is null or c.user_id = $2)`,
)

/** $1 chat, $2 a version. */
const rewrittenSince = statement(
  'watch/rewritten',
  `select exists (select 1 from messages where chat_id = $1 and deleted_at is not null and revision > $2) as rewritten`,
)

/** $1 chats. */
const versionsOf = statement('watch/versions', 'select id, snapshot_version from chats where id = any($1)')

interface ChangesRow {
  chat: JsonRow
  messages: JsonRow[]
  turns: JsonRow[]
  queue: JsonRow[]
  action: RequiredAction | null
}

/** `null` where the chat is gone or belongs to somebody else. @param since 0 for everything. */
export async function readChanges(
  db: Database,
  chatId: string,
  userId: string | null,
  since: number,
): Promise<ChatChanges | null> {
  const [row] = await query<ChangesRow>(db, changesSince(chatId, userId, since))
  if (row === undefined) return null
  return {
    chat: toChatView(row.chat),
    messages: row.messages.map((message) => ({
      message: toMessageView(message),
      turnNumber: message['turn_number'] as number | null,
    })),
    turns: row.turns.map(toTurnView),
    queue: row.queue.map(toQueuedMessageView),
    action:
      row.action === null ? null : { ...row.action, deadline: new Date(row.action.deadline).toISOString() },
  }
}

/** Whether messages were taken out of a chat's history after this version. */
export async function isRewritten(db: Database, chatId: string, since: number): Promise<boolean> {
  const [row] = await query<{ rewritten: boolean }>(db, rewrittenSince(chatId, since))
  return row?.rewritten === true
}

/** The snapshot versions of many chats, in one query. */
export async function readVersions(db: Database, chatIds: readonly string[]): Promise<Map<string, number>> {
  const rows = await query<{ id: string; snapshot_version: string }>(db, versionsOf(chatIds))
  return new Map(rows.map((row) => [row.id, Number(row.snapshot_version)]))
}
