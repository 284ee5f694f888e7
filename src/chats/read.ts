import { query, statement, type Database } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import type { ChatStatus, ChatView, MessageView, QueuedMessageView, TurnView } from '../protocol/views.ts'
import { toChatView, toMessageView, toQueuedMessageView, toTurnView, type JsonRow } from './views.ts'

/** A page of a list, oldest or newest first as the list says; `next` goes into the next request as `after`. */
export interface Page<T> {
  items: T[]
  next: string | null
}

export interface PageRequest {
  limit: number
  after: string | null
}

/** $1 chat, $2 owner. */
const chatById = statement(
  'read/chat',
  'select to_jsonb(c) as row from chats c where id = $1 and user_id = $2',
)

/** Which of a user's chats; `null` does not choose. */
export interface ChatsRequest extends PageRequest {
  status: ChatStatus | null
  label: string | null
  /** Found in the title or in what was said, whatever its case. */
  text: string | null
  archived: boolean
}

/** $1 owner, $2 rows, $3 the last id of the page before, $4 archived, $5 status, $6 label, $7 a LIKE pattern. Newest first. */
const chatsOfUser = statement(
  'read/chats',
  `select to_jsonb(c) as row from chats c
  where user_id = $1 and parent_id is null and ($3::uuid is null or id < $3) and (archived_at is not null) = $4
    and ($5::text is null or status = $5) and ($6::text is null or $6 = any(labels))
    and ($7::text is null or title ilike $7 or (
      -- With a limit it is asked per chat; an EXISTS would be hashed over everybody's messages.
      select true from messages m, jsonb_array_elements(m.parts) part
      where m.chat_id = c.id and m.deleted_at is null and part->>'type' = 'text' and part->>'text' ilike $7 limit 1))
  order by id desc limit $2`,
)

/** $1 chat, $2 rows, $3 the last id of the page before. Oldest first. */
const messagesOfChat = statement(
  'read/messages',
  `select to_jsonb(m) as row from messages m
  where chat_id = $1 and deleted_at is null and visibility <> 'model' and ($3::bigint is null or id > $3)
  order by id limit $2`,
)

/** $1 chat, $2 rows, $3 the last number of the page before. Newest first. */
const turnsOfChat = statement(
  'read/turns',
  `select to_jsonb(t) as row from turns t
  where chat_id = $1 and ($3::int is null or number < $3) order by number desc limit $2`,
)

/** $1 chat. In the order of promotion. */
const queueOfChat = statement(
  'read/queue',
  `select to_jsonb(q) as row from queued_messages q where chat_id = $1 and state = 'queued' order by position, id`,
)

interface Row {
  row: JsonRow
}

/** @throws {TurnmillError} `not_found` where the chat does not exist or belongs to somebody else. */
export async function readChat(db: Database, chatId: string, userId: string): Promise<ChatView> {
  const [found] = await query<Row>(db, chatById(chatId, userId))
  if (found === undefined) throw new TurnmillError('not_found', `chat ${chatId} does not exist`)
  return toChatView(found.row)
}

/** A user's chats without the children of subagents, newest first. */
export async function listChats(db: Database, userId: string, page: ChatsRequest): Promise<Page<ChatView>> {
  const { limit, after, archived, status, label, text } = page
  const pattern = text === null ? null : `%${text.replaceAll(/[\\%_]/g, '\\$&')}%`
  const chats = chatsOfUser(userId, limit + 1, after, archived, status, label, pattern)
  return toPage(await query<Row>(db, chats), page, toChatView, (chat) => chat.id)
}

/** Committed messages, oldest first. */
export const listMessages = async (
  db: Database,
  chatId: string,
  page: PageRequest,
): Promise<Page<MessageView>> =>
  toPage(
    await query<Row>(db, messagesOfChat(chatId, page.limit + 1, page.after)),
    page,
    toMessageView,
    (message) => message.id,
  )

/** Turns, newest first. */
export const listTurns = async (db: Database, chatId: string, page: PageRequest): Promise<Page<TurnView>> =>
  toPage(await query<Row>(db, turnsOfChat(chatId, page.limit + 1, page.after)), page, toTurnView, (turn) =>
    String(turn.number),
  )

/** Queued messages in the order of their promotion. */
export const listQueue = async (db: Database, chatId: string): Promise<QueuedMessageView[]> =>
  (await query<Row>(db, queueOfChat(chatId))).map(({ row }) => toQueuedMessageView(row))

// One row more than asked for tells whether there is a next page.
function toPage<T>(
  rows: Row[],
  { limit }: PageRequest,
  toView: (row: JsonRow) => T,
  cursor: (view: T) => string,
): Page<T> {
  const items = rows.slice(0, limit).map(({ row }) => toView(row))
  const last = items.at(-1)
  return { items, next: rows.length > limit && last !== undefined ? cursor(last) : null }
}
