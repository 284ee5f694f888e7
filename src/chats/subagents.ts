import { query, statement, withTransaction, type Database } from '../db/index.ts'
import { TurnmillError, type StoredError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import type { MessagePart } from '../protocol/messages.ts'
import type { SubagentType } from '../protocol/tools.ts'
import type { ChatStatus, ChatView } from '../protocol/views.ts'
import { toAdmittedTurns, type AdmittedTurn, type PoolSlots } from './admission.ts'
import { lockChatOf } from './commit-statements.ts'
import { fenced, type HeldTurn } from './commit.ts'
import { admit, admitFor } from './effect-statements.ts'
import type { Committed } from './effects.ts'
import { fallbackTitle } from './fallback-title.ts'
import { statesBefore } from './states.ts'
import { toChatView, type JsonRow } from './views.ts'

export interface FamilyLimits {
  /** How deep subagents may spawn subagents; children of a root are at depth 1. */
  subagentDepth: number
  /** Children of one chat that are at work at once. */
  subagentChildren: number
}

export interface SpawnInput {
  /** The call that asked for it, in the ledger of the parent's turn: it spawns once. */
  callId: string
  type: SubagentType
  title: string | null
  parts: MessagePart[]
  systemPrompt: string | null
  modelConfigId: string | null
}

/**
 * Commits a child chat, its message and its turn under the parent turn's key, and the call as done with what the model is
 * told, all hanging on the one call that is still open and whose turn is held. $1 parent's turn, $2 epoch, $3 states, $4 call, $5 child chat,
 * $6 its turn, $7 type, $8 title, $9 parts, $10 system prompt, $11 model config, $12 what the
 * child is called without a title.
 */
const spawn = statement(
  'subagents/spawn',
  `with parent as (
    select t.id as turn_id, t.api_key_id, c.id, c.user_id, c.root_id, c.depth, coalesce(
      -- The model of the step that asks, unless it was deleted meanwhile.
      (select used.id from messages m join model_configs used on used.id = m.model_config_id
        where m.turn_id = t.id and m.role = 'assistant' order by m.step desc limit 1),
      c.model_config_id) as model_config_id
    from turns t join chats c on c.id = t.chat_id where t.id = $1 and t.epoch = $2 and t.state = any($3)),
  call as (
    update tool_calls set state = 'done', finished_at = clock_timestamp(), output = jsonb_build_object('agentId', $5::uuid)
    from parent where tool_calls.turn_id = parent.turn_id and call_id = $4 and state in ('requested', 'approved', 'started')
    returning tool_calls.id),
  chat as (
    insert into chats (id, user_id, parent_id, root_id, depth, status, active_turn_id, last_turn_id, model_config_id, title,
      fallback_title, system_prompt, subagent_type, spawned_by_turn_id)
    select $5, user_id, parent.id, root_id, depth + 1, 'pending', $6, $6, coalesce($11, parent.model_config_id), $8, $12, $10, $7, turn_id
    from parent, call returning *),
  message as (
    insert into messages (chat_id, turn_id, role, parts, api_key_id, created_by)
    select chat.id, $6, 'user', $9, parent.api_key_id, parent.user_id from chat, parent returning id),
  turn as (
    insert into turns (id, chat_id, number, user_id, pool, trigger, api_key_id, user_message_id, model_config_id)
    select $6, chat.id, 1, parent.user_id, 'subagent', 'subagent', parent.api_key_id, message.id, $11 from chat, parent, message)
  select to_jsonb(chat) as chat from chat`,
)

/** $1 parent's turn, $2 epoch, $3 states, $4 call. What a spawn must respect. */
const surroundings = statement(
  'subagents/surroundings',
  `select c.depth, l.state as call_state, l.output->>'agentId' as child_id,
    (select count(*)::int from chats child where child.parent_id = c.id and child.active_turn_id is not null) as open_children
  from turns t join chats c on c.id = t.chat_id left join tool_calls l on l.turn_id = t.id and l.call_id = $4
  where t.id = $1 and t.epoch = $2 and t.state = any($3)`,
)

/** $1 chat. */
const chatRow = statement('subagents/chat', 'select to_jsonb(c) as chat from chats c where id = $1')

interface SurroundingsRow {
  depth: number
  call_state: string | null
  child_id: string | null
  open_children: number
}

/**
 * Spawns a subagent for a call of the parent's turn. The same call spawns once, whatever died in between: later ones
 * are given the child that is there.
 *
 * @throws {TurnmillError} `turn_fenced`; `subagent_limit` beyond the depth or the number of children at work.
 */
export const spawnSubagent = (
  { db, slots, claim }: HeldTurn,
  limits: FamilyLimits,
  input: SpawnInput,
): Promise<Committed<ChatView>> =>
  withTransaction(db, async (tx) => {
    const fence = [claim.turnId, claim.epoch, statesBefore('spawn')]
    const [, [around]] = await Promise.all([
      tx.query(lockChatOf(claim.chatId)),
      tx.query<SurroundingsRow>(surroundings(...fence, input.callId)),
    ])
    if (around === undefined) throw fenced(claim, 'spawn')
    const nothing = { stopped: [], changed: [], parentId: null }
    if (around.child_id !== null) {
      const [row] = await tx.query<{ chat: JsonRow }>(chatRow(around.child_id))
      if (row !== undefined) return { result: toChatView(row.chat), admitted: [], ...nothing }
    }
    demandRoom(around, limits)
    const [rows = [], admitted = []] = await tx.commitWith([
      spawn(
        ...fence, input.callId, newId(), newId(), input.type, input.title, JSON.stringify(input.parts),
        input.systemPrompt, input.modelConfigId, fallbackTitle(input.parts),
      ), // prettier-ignore
      admit(claim.userId, 'subagent', slots.subagent),
    ])
    const [row] = rows as { chat: JsonRow }[]
    if (row === undefined)
      throw new TurnmillError(
        'invalid_request',
        `call ${input.callId} of turn ${claim.turnId} is ${around.call_state ?? 'not in the ledger'}, expected one that is open`,
      )
    const result = toChatView(row.chat)
    return { result, admitted: toAdmittedTurns(admitted), ...nothing, changed: [result.id] }
  })

function demandRoom({ depth, open_children }: SurroundingsRow, limits: FamilyLimits): void {
  if (depth >= limits.subagentDepth)
    throw new TurnmillError('subagent_limit', `subagents are ${limits.subagentDepth} deep at most`)
  if (open_children >= limits.subagentChildren)
    throw new TurnmillError(
      'subagent_limit',
      `${limits.subagentChildren} subagents are at work, expected fewer`,
    )
}

/** A child of a chat, as the turn that spawned it may read of it. */
export interface Subagent {
  /** Its chat. */
  id: string
  type: SubagentType
  /** Or the beginning of its task. */
  title: string | null
  status: ChatStatus
  /** Whether a turn of it has not ended. */
  atWork: boolean
  /** The text of its last answer, up to a bound; `null` where there is none yet. */
  answer: string | null
  error: StoredError | null
}

/** The longest answer of a subagent that its parent reads, in characters. */
const LONGEST_ANSWER = 50_000

/** $1 parent. */
const children = statement(
  'subagents/children',
  `select c.id, c.subagent_type as type, coalesce(c.title, c.fallback_title) as title, c.status, c.active_turn_id is not null as at_work, c.last_error as error,
    (select left(string_agg(part->>'text', '' order by place), ${LONGEST_ANSWER})
      from (select parts from messages m where m.chat_id = c.id and m.role = 'assistant' and m.deleted_at is null
        and m.parts @> '[{"type": "text"}]' order by m.id desc limit 1) last,
        jsonb_array_elements(last.parts) with ordinality part (part, place)
      where part->>'type' = 'text') as answer
  from chats c where c.parent_id = $1 order by c.id`,
)

interface ChildRow extends Omit<Subagent, 'atWork'> {
  at_work: boolean
}

/** The children of a chat, oldest first. */
export const listSubagents = async (db: Database, chatId: string): Promise<Subagent[]> =>
  (await query<ChildRow>(db, children(chatId))).map(({ at_work: atWork, ...child }) => ({ ...child, atWork }))

// The children are read anew under the parent's lock, so that the last of several to end is never overlooked.
/** $1 parent, $2 states. */
const resumeParent = statement(
  'subagents/resume',
  `with turn as (
    update turns t set state = 'pending', deadline = null, awaits = '{}', admitted_at = null, not_before = null
    where t.chat_id = $1 and t.state = any($2) and (t.deadline < clock_timestamp()
      or not exists (select 1 from chats c where c.id = any(t.awaits) and c.active_turn_id is not null))
    returning t.id, t.chat_id)
  update chats c set status = 'pending' from turn where c.id = turn.chat_id returning turn.id as turn_id`,
)

/** $1 rows. */
const restedParents = statement(
  'subagents/rested-parents',
  `select t.chat_id from turns t where t.state = 'waiting' and (t.deadline < clock_timestamp()
    or not exists (select 1 from chats c where c.id = any(t.awaits) and c.active_turn_id is not null))
  order by t.deadline limit $1`,
)

/** Lets a waiting parent go on where none of the children it waits for is at work, or it has waited long enough. */
export async function resumeWaitingParent(
  db: Database,
  slots: PoolSlots,
  chatId: string,
): Promise<{ resumed: boolean; admitted: AdmittedTurn[] }> {
  return withTransaction(db, async (tx) => {
    const [, resumed = [], admitted = []] = await tx.commitWith([
      lockChatOf(chatId),
      resumeParent(chatId, statesBefore('resume')),
      admitFor(chatId, slots.root, slots.subagent),
    ])
    return { resumed: resumed.length > 0, admitted: toAdmittedTurns(admitted) }
  })
}

/** Parents whose resumption was lost, or whose time is up. */
export const findRestedParents = async (db: Database, limit: number): Promise<string[]> =>
  (await query<{ chat_id: string }>(db, restedParents(limit))).map((row) => row.chat_id)
