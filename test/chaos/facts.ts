/** All there is to know when the storm is over: the rows, the provider's journal, the log of changes, the queue. */
import type pg from 'pg'
import type { StoredError } from '../../src/protocol/errors.ts'
import type { TurnState } from '../../src/protocol/views.ts'
import type { JobForger } from './job-forger.ts'
import type { Ledger } from './ledger.ts'
import type { JournalEntry } from './provider-plan.ts'
import { readTurnLog, type TurnChange } from './turn-log.ts'

export interface TurnFacts {
  id: string
  chatId: string
  number: number
  state: TurnState
  trigger: string
  epoch: number
  takeovers: number
  apiKeyId: string | null
  userMessageId: string | null
  error: StoredError | null
  inputTokens: number | null
  outputTokens: number | null
  estimated: boolean | null
}

export interface MessageFacts {
  id: string
  chatId: string
  turnId: string | null
  step: number
  role: string
  text: string
  queuedMessageId: string | null
  deleted: boolean
}

export interface QueuedFacts {
  id: string
  chatId: string
  text: string
  state: 'queued' | 'promoted' | 'deleted' | 'superseded'
}

export interface ChatFacts {
  id: string
  status: string
  activeTurnId: string | null
  lastTurnId: string | null
  archived: boolean
}

/** What the gateway's books charge a turn's call with. */
export interface CallFacts {
  turnId: string
  inputTokens: number
  outputTokens: number
}

export interface Facts {
  turns: Map<string, TurnFacts>
  /** By id, which is the order in which they were committed. */
  messages: MessageFacts[]
  queued: Map<string, QueuedFacts>
  chats: Map<string, ChatFacts>
  log: Map<string, TurnChange[]>
  /** By turn, in the order in which they were begun. */
  calls: Map<string, CallFacts[]>
  journal: JournalEntry[]
  openJobs: string[]
  ledger: Ledger
}

const TURNS = `select id, chat_id as "chatId", number, state, trigger, epoch, takeovers, api_key_id as "apiKeyId",
  user_message_id as "userMessageId", error, (usage->>'inputTokens')::float8 as "inputTokens",
  (usage->>'outputTokens')::float8 as "outputTokens", (usage->>'estimated')::boolean as estimated
  from turns order by chat_id, number`

const textOfParts = `(select coalesce(string_agg(part->>'text', ''), '') from jsonb_array_elements(parts) part)`

const MESSAGES = `select id, chat_id as "chatId", turn_id as "turnId", step, role, ${textOfParts} as text,
  queued_message_id as "queuedMessageId", deleted_at is not null as deleted from messages order by id`

const QUEUED = `select id, chat_id as "chatId", ${textOfParts} as text, state from queued_messages order by id`

const CHATS = `select id, status, active_turn_id as "activeTurnId", last_turn_id as "lastTurnId", archived_at is not null as archived
  from chats order by id`

const CALLS = `select i.turn_id as "turnId", coalesce(u.input_tokens, 0)::float8 as "inputTokens",
  coalesce(u.output_tokens, 0)::float8 as "outputTokens"
  from interceptions i left join token_usages u on u.interception_id = i.id where i.turn_id is not null order by i.started_at`

export async function gatherFacts(
  pool: pg.Pool,
  { providerUrl, forger, ledger }: { providerUrl: string; forger: JobForger; ledger: Ledger },
): Promise<Facts> {
  const byId = async <T extends { id: string }>(sql: string): Promise<Map<string, T>> =>
    new Map((await pool.query<T>(sql)).rows.map((row) => [row.id, row]))
  return {
    turns: await byId<TurnFacts>(TURNS),
    messages: (await pool.query<MessageFacts>(MESSAGES)).rows,
    queued: await byId<QueuedFacts>(QUEUED),
    chats: await byId<ChatFacts>(CHATS),
    log: await readTurnLog(pool),
    calls: Map.groupBy((await pool.query<CallFacts>(CALLS)).rows, ({ turnId }) => turnId),
    journal: (await (await fetch(`${providerUrl}/journal`)).json()) as JournalEntry[],
    openJobs: await forger.openJobs(),
    ledger,
  }
}
