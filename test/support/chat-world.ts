import { createChats, type Chats, type Claim, type StepResult } from '../../src/chats/index.ts'
import { openDatabase, query, statement, type Database } from '../../src/db/index.ts'
import { newId } from '../../src/protocol/ids.ts'
import type { MessagePart } from '../../src/protocol/messages.ts'
import { NO_USAGE } from '../../src/protocol/usage.ts'
import { createTestDatabase } from './database.ts'

/** The chats module on a Postgres of the test's own, without queue, workers and API. */
export interface ChatWorld {
  db: Database
  chats: Chats
  initiator: { userId: string; apiKeyId: string }
  /** A further user with a key. */
  addUser(): Promise<{ userId: string; apiKeyId: string }>
  close(): Promise<void>
}

export const WORLD_SLOTS = { root: 10_000, subagent: 10_000 }

/** @param leaseMs 1 lets every lease be over at once, so that a running turn can be claimed. */
export async function openChatWorld(leaseMs = 60_000, slots = WORLD_SLOTS): Promise<ChatWorld> {
  const database = await createTestDatabase()
  const db = openDatabase({
    url: database.url,
    poolSize: 10,
    connectTimeoutMs: 10_000,
    silenceMs: 10_000,
    applicationName: 'chat-world',
  })
  const limits = {
    queueLimit: 3, pendingTurns: 100_000, runningRootTurns: slots.root, runningSubagentTurns: slots.subagent,
    subagentDepth: 2, subagentChildren: 8,
  } // prettier-ignore
  const chats = createChats({
    db,
    limits,
    leaseMs,
    auxiliary: { titles: false, labels: false },
    onAdmitted: async () => undefined,
    onRuns: async () => undefined,
    onChanged: () => undefined,
    onStop: () => undefined,
    onFenced: () => undefined,
  })
  const addUser = async () => {
    const { id: userId } = await db.prisma.user.create({ data: { id: newId(), name: 'test' } })
    const data = { id: newId(), userId, name: 'test', secretHash: new Uint8Array(32), scopes: [] }
    const { id: apiKeyId } = await db.prisma.apiKey.create({ data })
    return { userId, apiKeyId }
  }
  const close = async () => {
    await db.close()
    await database.drop()
  }
  return { db, chats, initiator: await addUser(), addUser, close }
}

export const text = (value: string): MessagePart[] => [{ type: 'text', text: value }]

export const message = (value: string) => ({ parts: text(value), modelConfigId: null, reasoningEffort: null })

export const newChat = (value: string) => ({
  ...message(value),
  title: null,
  labels: [],
  systemPrompt: null,
  clientTools: [],
})

export const step = (number: number, parts: MessagePart[]): StepResult => ({
  step: number,
  parts,
  modelConfigId: newId(),
  finishReason: 'stop',
  usage: { ...NO_USAGE, inputTokens: 3, outputTokens: 5 },
  costMicros: 7,
  firstPartMs: 1,
})

export const call = (toolCallId: string): MessagePart => ({
  type: 'tool-call',
  toolCallId,
  toolName: 'look_up',
  input: { of: toolCallId },
})

/** Takes a turn as a worker does. */
export async function claimTurn({ chats }: Pick<ChatWorld, 'chats'>, turnId: string): Promise<Claim> {
  const claim = await chats.claim({ turnId, jobId: `job-of-${turnId}`, attemptsMade: 0, compare: null })
  if (typeof claim === 'string') throw new Error(`turn ${turnId} was not claimed: ${claim}`)
  return claim
}

/** $1 chat. Every row of its family, as it stands. */
const familyRows = statement(
  'test/family',
  `with family as (select * from chats where root_id = (select root_id from chats where id = $1))
  select
    (select jsonb_agg(to_jsonb(c) order by c.id) from family c) as chats,
    (select jsonb_agg(to_jsonb(m) order by m.id) from messages m where m.chat_id in (select id from family)) as messages,
    (select jsonb_agg(to_jsonb(q) order by q.id) from queued_messages q where q.chat_id in (select id from family)) as queue,
    (select jsonb_agg(to_jsonb(t) order by t.id) from turns t where t.chat_id in (select id from family)) as turns,
    (select jsonb_agg(to_jsonb(l) order by l.id) from tool_calls l join turns t on t.id = l.turn_id
      where t.chat_id in (select id from family)) as calls`,
)

type Rows = Record<string, unknown>[] | null

export interface Family {
  chats: Rows
  messages: Rows
  queue: Rows
  turns: Rows
  calls: Rows
}

export async function readFamily(db: Database, chatId: string): Promise<Family> {
  const [family] = await query<Family>(db, familyRows(chatId))
  if (family === undefined) throw new Error('an aggregate gave no row')
  return family
}
