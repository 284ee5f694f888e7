import { statement, withTransaction, type Database, type Transaction } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import type { ChatView } from '../protocol/views.ts'
import type { PoolSlots } from './admission.ts'
import { carryOut, type Committed } from './effects.ts'
import { lockDescendants, type Descendant } from './families.ts'
import type { ChatTarget } from './interrupt.ts'
import { lockOwnChat, type LockedChat } from './lock.ts'
import { decideMove } from './moves.ts'
import type { Initiator } from './produce.ts'
import { isBusy } from './states.ts'
import { toChatView, type JsonRow } from './views.ts'

/** What its owner may set of a chat; what is absent stays. */
export interface ChatChange {
  title?: string | null
  labels?: string[]
  modelConfigId?: string | null
  archived?: boolean
}

/** Begins the model's context anew. $1 chat, $2 user, $3 key. */
const insertBoundary = statement(
  'manage/clear',
  `with boundary as (
    insert into messages (chat_id, role, parts, visibility, boundary, created_by, api_key_id)
    values ($1, 'system', '[]', 'user', 'clear', $2, $3) returning id),
  hidden as (
    update messages m set compressed = true, compressed_by = boundary.id from boundary
    where m.chat_id = $1 and m.id < boundary.id and m.deleted_at is null and not m.compressed)
  update chats set status = 'idle', last_error = null where id = $1 returning to_jsonb(chats) as chat`,
)

/** $1 chats, $2 whether. */
const setArchived = statement(
  'manage/archive',
  `update chats set archived_at = case when $2 then clock_timestamp() end where id = any($1)`,
)

/** $1 chat, $2 `{title, labels, modelConfigId}`, of which only what is there is set. */
const updateChat = statement(
  'manage/update',
  `update chats set
    title = case when $2::jsonb ? 'title' then $2::jsonb->>'title' else title end,
    title_error = case when $2::jsonb ? 'title' then null else title_error end,
    labels = case when $2::jsonb ? 'labels' then array(select jsonb_array_elements_text($2::jsonb->'labels')) else labels end,
    model_config_id = case when $2::jsonb ? 'modelConfigId' then ($2::jsonb->>'modelConfigId')::uuid else model_config_id end
  where id = $1 returning to_jsonb(chats) as chat`,
)

/** A chat and all below it, with everything that hangs on them. $1 chats. */
const deleteChats = statement('manage/delete', 'delete from chats where id = any($1)')

/** Begins the context anew: the model is shown nothing of what was said before. @throws {TurnmillError} `move_refused` while busy or with a queue. */
export const clearChat = (
  db: Database,
  slots: PoolSlots,
  initiator: Initiator,
  chatId: string,
): Promise<Committed<ChatView>> =>
  withTransaction(db, async (tx) => {
    const chat = await lockOwnChat(tx, chatId, initiator.userId)
    const move = decideMove('clear', chat)
    const clear = insertBoundary(chatId, initiator.userId, initiator.apiKeyId)
    const { rows, ...aftermath } = await carryOut({ tx, chat, move, slots, own: { clear: [clear] } })
    const [row] = rows<{ chat: JsonRow }>(clear.name)
    return { result: toChatView((row as { chat: JsonRow }).chat), ...aftermath }
  })

/**
 * Changes what its owner may change. Archiving goes for a whole family from its root, or nothing changes.
 *
 * @throws {TurnmillError} `not_found`; `chat_busy` where a chat of the family is at work; `move_refused` for a child.
 */
export const changeChat = (
  db: Database,
  { chatId, userId }: ChatTarget,
  { archived, ...fields }: ChatChange,
): Promise<{ result: ChatView; changed: string[] }> =>
  withTransaction(db, async (tx) => {
    const chat = await lockOwnChat(tx, chatId, userId)
    const changed =
      archived === undefined || archived === chat.archived ? [] : await archiveFamily(tx, chat, archived)
    const [row] = await tx.query<{ chat: JsonRow }>(updateChat(chatId, JSON.stringify(fields)))
    return { result: toChatView((row as { chat: JsonRow }).chat), changed }
  })

async function archiveFamily(tx: Transaction, chat: LockedChat, archived: boolean): Promise<string[]> {
  decideMove(archived ? 'archive' : 'unarchive', chat)
  if (chat.parentId !== null)
    throw new TurnmillError(
      'move_refused',
      `chat ${chat.id} is a subagent's: archive and unarchive are for the root of its family`,
    )
  const descendants = chat.hasChildren ? await lockDescendants(tx, chat.id) : []
  if (archived) demandRest(descendants)
  const ids = descendants.map(({ id }) => id)
  await tx.query(setArchived([chat.id, ...ids], archived))
  return ids
}

function demandRest(descendants: readonly Descendant[]): void {
  const busy = descendants.find(({ status }) => isBusy(status))
  if (busy !== undefined)
    throw new TurnmillError(
      'chat_busy',
      `subagent ${busy.id} is ${busy.status}: archive needs a family at rest`,
    )
}

/** Deletes a chat and its subagents; what runs is stopped. @throws {TurnmillError} `not_found`. */
export const deleteChat = (
  db: Database,
  slots: PoolSlots,
  { chatId, userId }: ChatTarget,
): Promise<Committed<null>> =>
  withTransaction(db, async (tx) => {
    const chat = await lockOwnChat(tx, chatId, userId)
    const move = decideMove('delete', chat)
    const descendants = chat.hasChildren ? await lockDescendants(tx, chat.id) : []
    const ids = [chat.id, ...descendants.map(({ id }) => id)]
    const own = { remove: [deleteChats(ids)], cascade: [] }
    const { rows: _, ...aftermath } = await carryOut({ tx, chat, move, slots, own, descendants })
    return { result: null, ...aftermath }
  })
