import { query, statement, withTransaction, type Database, type Transaction } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import type { TurnView } from '../protocol/views.ts'
import type { PoolSlots } from './admission.ts'
import { carryOut, type Aftermath, type Committed } from './effects.ts'
import type { ChatTarget } from './interrupt.ts'
import { lockOwnChat } from './lock.ts'
import { decideMove } from './moves.ts'
import { statesBefore } from './states.ts'
import { toTurnView, type JsonRow } from './views.ts'

/** What a client says about a call that waits for it: its output, or whether it may run. */
export interface ToolAnswer {
  toolCallId: string
  output?: unknown
  isError?: boolean | undefined
  approved?: boolean | undefined
}

interface OpenCall {
  call_id: string
  name: string
  state: 'awaiting_client' | 'awaiting_approval'
}

/** $1 turn. */
const openCalls = statement(
  'tools/open-calls',
  `select call_id, name, state from tool_calls
  where turn_id = $1 and state in ('awaiting_client', 'awaiting_approval') order by created_at, id`,
)

/** Keeps the answers in the ledger, for the next claim to commit. $1 turn, $2 `[{callId, state, output, isError}]`. */
const answerCalls = statement(
  'tools/answer',
  `update tool_calls c set state = a.state, output = coalesce(a.output, 'null'), is_error = a."isError",
    finished_at = case when a.state = 'approved' then null else clock_timestamp() end
  from jsonb_to_recordset($2::jsonb) a ("callId" text, state text, output jsonb, "isError" boolean)
  where c.turn_id = $1 and c.call_id = a."callId"`,
)

/** The same turn goes on, once a worker takes it. $1 turn, $2 states. */
const resumeTurn = statement(
  'tools/resume',
  `with turn as (
    update turns set state = 'pending', deadline = null, awaits = '{}', admitted_at = null, not_before = null
    where id = $1 and state = any($2) returning *)
  update chats c set status = 'pending' from turn where c.id = turn.chat_id returning to_jsonb(turn) as turn`,
)

/** Refuses what nobody has answered in time. $1 turn. */
const refuseCalls = statement(
  'tools/expire',
  `update tool_calls set state = 'denied', is_error = true, finished_at = clock_timestamp(),
    output = to_jsonb('Nobody answered this call in time.'::text)
  where turn_id = $1 and state in ('awaiting_client', 'awaiting_approval')`,
)

/** $1 rows. */
const overdueActions = statement(
  'tools/overdue',
  `select id as turn_id, chat_id from turns
  where state = 'requires_action' and deadline < clock_timestamp() order by deadline limit $1`,
)

/** $1 turn. */
const isOverdue = statement(
  'tools/is-overdue',
  `select 1 from turns where id = $1 and state = 'requires_action' and deadline < clock_timestamp()`,
)

/**
 * Takes the client's answers to all calls that wait for it; the same turn goes on under the same key.
 *
 * @throws {TurnmillError} `not_found`, `chat_archived`, `not_waiting`; `invalid_request` where a call is unknown,
 * answered twice, or left out. Nothing is kept then.
 */
export const submitToolResults = (
  db: Database,
  slots: PoolSlots,
  target: ChatTarget,
  answers: readonly ToolAnswer[],
): Promise<Committed<TurnView>> =>
  withTransaction(db, async (tx) => {
    const chat = await lockOwnChat(tx, target.chatId, target.userId)
    const move = decideMove('submitToolResults', chat)
    const rows = toLedgerRows(await tx.query<OpenCall>(openCalls(chat.activeTurnId)), answers)
    const resume = resumeTurn(chat.activeTurnId, statesBefore('submitToolResults'))
    const own = { resume: [answerCalls(chat.activeTurnId, JSON.stringify(rows)), resume] }
    const done = await carryOut({ tx, chat, move, slots, own })
    const [row] = done.rows<{ turn: JsonRow }>(resume.name)
    if (row === undefined)
      throw new TurnmillError('internal', `chat ${chat.id} waits without a turn that waits`)
    const { rows: _, ...aftermath } = done
    return { result: toTurnView(row.turn), ...aftermath }
  })

interface AnsweredCall {
  callId: string
  state: 'done' | 'approved' | 'denied'
  output: unknown
  isError: boolean
}

function toLedgerRows(open: readonly OpenCall[], answers: readonly ToolAnswer[]): AnsweredCall[] {
  const byId = new Map(answers.map((answer) => [answer.toolCallId, answer]))
  if (byId.size < answers.length) throw invalid('a tool call is answered twice, expected once')
  const ids = open.map((call) => call.call_id)
  const unknown = answers.find(({ toolCallId }) => !ids.includes(toolCallId))
  if (unknown !== undefined)
    throw invalid(`no tool call ${JSON.stringify(unknown.toolCallId)} waits, expected ${ids.join(', ')}`)
  return open.map((call) => toLedgerRow(call, byId.get(call.call_id)))
}

function toLedgerRow(call: OpenCall, answer: ToolAnswer | undefined): AnsweredCall {
  const callId = call.call_id
  if (answer === undefined)
    throw invalid(`tool call ${callId} (${call.name}) is not answered, expected a result`)
  const { output, isError = false, approved } = answer
  if (call.state === 'awaiting_approval') {
    if (approved === undefined)
      throw invalid(`tool call ${callId} (${call.name}) waits for approved: true or false`)
    return approved
      ? { callId, state: 'approved', output: null, isError: false }
      : { callId, state: 'denied', output: output ?? 'The user denied this call.', isError: true }
  }
  if (output === undefined) throw invalid(`tool call ${callId} (${call.name}) waits for an output`)
  return { callId, state: 'done', output, isError }
}

const invalid = (message: string): TurnmillError => new TurnmillError('invalid_request', message)

/** Turns whose client has not answered in time, the longest overdue first. */
export const findOverdueActions = (
  db: Database,
  limit: number,
): Promise<{ turn_id: string; chat_id: string }[]> => query(db, overdueActions(limit))

/** Lets a turn go on with refusals where its client did not answer in time; `null` where it has answered after all. */
export const expireAction = (
  db: Database,
  slots: PoolSlots,
  { turnId, chatId }: { turnId: string; chatId: string },
): Promise<Aftermath | null> =>
  withTransaction(db, async (tx) => {
    const chat = await lockOwnChat(tx, chatId, null)
    if (!(await stillOverdue(tx, turnId))) return null
    const resume = resumeTurn(turnId, statesBefore('expireAction'))
    const own = { resume: [refuseCalls(turnId), resume] }
    const move = decideMove('submitToolResults', chat)
    const { rows: _, ...aftermath } = await carryOut({ tx, chat, move, slots, own })
    return aftermath
  })

const stillOverdue = async (tx: Transaction, turnId: string): Promise<boolean> =>
  (await tx.query(isOverdue(turnId))).length > 0
