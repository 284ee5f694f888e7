import { batch, query, type Database } from '../db/index.ts'
import type { ModelMessage, ReasoningEffort } from '../protocol/messages.ts'
import type { FunctionTool, SubagentType } from '../protocol/tools.ts'
import type { Usage } from '../protocol/usage.ts'
import type { RetryState, TurnState, TurnTrigger } from '../protocol/views.ts'
import type { Pool } from './admission.ts'
import { statesBefore, TURN_MOVES } from './states.ts'
import * as sql from './work-statements.ts'

/** Whether a turn's key may be used: `none` where the turn carries no key ID. */
export type KeyState = 'valid' | 'invalid' | 'none'

/** A turn that this worker holds, and what it needs to run it. `epoch` is the fence of every later write. */
export interface Claim {
  turnId: string
  /** `interrupting` for one that was told to stop and whose worker is gone: it is only to be ended. */
  state: 'running' | 'interrupting'
  chatId: string
  /** The chat of the parent, for a subagent. */
  parentId: string | null
  number: number
  epoch: number
  takeovers: number
  /** Whether this claim took it from a worker that was lost. */
  takenOver: boolean
  /** Steps that are committed already. */
  committedSteps: number
  /** The attempts at the next step that have failed. */
  retry: RetryState | null
  pool: Pool
  /** The owner of the chat. */
  userId: string
  apiKeyId: string | null
  keyState: KeyState
  keyOwnerId: string | null
  ownerActive: boolean
  modelConfigId: string | null
  chatModelConfigId: string | null
  reasoningEffort: ReasoningEffort | null
  systemPrompt: string | null
  snapshotVersion: number
  trigger: TurnTrigger
  /** What its user said; a retry has the message of the turn it repeats. `null` for a compaction. */
  userMessageId: string | null
  /** How long earlier claims of the turn ran, in ms. */
  runningMs: number
  /** 0 for a root, 1 for its children, … */
  depth: number
  subagentType: SubagentType | null
  /** Declared by the client, who answers their calls. */
  clientTools: readonly FunctionTool[]
  /** Whether the chat's model calls are recorded. */
  debug: boolean
}

/** What a job says about itself. `compare` is what its payload must agree with; `null` for an unknown version. */
export interface ClaimRequest {
  turnId: string
  jobId: string
  attemptsMade: number
  compare: { chatId: string; apiKeyId: string | null } | null
}

/** Why a job does not get its turn. Only `mismatch` is the job's own fault. */
export type Unclaimed = 'gone' | 'ended' | 'unadmitted' | 'held' | 'mismatch'

interface ClaimedRow {
  turn_id: string
  state: 'running' | 'interrupting'
  chat_id: string
  parent_id: string | null
  number: number
  epoch: number
  takeovers: number
  taken_over: boolean
  committed_steps: number
  retry: RetryState | null
  pool: Pool
  user_id: string
  api_key_id: string | null
  key_state: KeyState
  key_owner_id: string | null
  owner_status: string
  model_config_id: string | null
  chat_model_config_id: string | null
  reasoning_effort: ReasoningEffort | null
  system_prompt: string | null
  snapshot_version: string
  trigger: TurnTrigger
  user_message_id: string | null
  running_ms: string
  depth: number
  subagent_type: SubagentType | null
  client_tools: Omit<FunctionTool, 'kind'>[]
  debug: boolean
}

interface TurnStateRow {
  state: TurnState
  epoch: number
  chat_id: string
  api_key_id: string | null
  admitted: boolean
  held: boolean
}

/** Takes the turn for this worker, or says why not. One round trip where it succeeds. */
export async function claimTurn(
  db: Database,
  leaseMs: number,
  request: ClaimRequest,
): Promise<Claim | Unclaimed> {
  const { turnId, jobId, attemptsMade, compare } = request
  const claim = sql.claimTurn(
    turnId, leaseMs, statesBefore('claim'), jobId, attemptsMade, compare !== null, compare?.apiKeyId, compare?.chatId,
  ) // prettier-ignore
  const [, [row]] = (await batch(db, [sql.lockChatOfTurn(turnId), claim])) as [object[], ClaimedRow[]]
  return row === undefined ? explainUnclaimed(db, request) : toClaim(row)
}

async function explainUnclaimed(db: Database, { turnId, compare }: ClaimRequest): Promise<Unclaimed> {
  const [turn] = await query<TurnStateRow>(db, sql.readTurnState(turnId))
  if (turn === undefined) return 'gone'
  if (TURN_MOVES[turn.state].claim === undefined) return 'ended'
  if (compare !== null && turn.api_key_id !== null && !agrees(turn, compare)) return 'mismatch'
  return turn.held ? 'held' : 'unadmitted'
}

const agrees = (turn: TurnStateRow, compare: NonNullable<ClaimRequest['compare']>): boolean =>
  turn.api_key_id === compare.apiKeyId && turn.chat_id === compare.chatId

const toClaim = (row: ClaimedRow): Claim => ({
  turnId: row.turn_id,
  state: row.state,
  chatId: row.chat_id,
  parentId: row.parent_id,
  number: row.number,
  epoch: row.epoch,
  takeovers: row.takeovers,
  takenOver: row.taken_over,
  committedSteps: row.committed_steps,
  retry: row.retry,
  pool: row.pool,
  userId: row.user_id,
  apiKeyId: row.api_key_id,
  keyState: row.key_state,
  keyOwnerId: row.key_owner_id,
  ownerActive: row.owner_status === 'active',
  modelConfigId: row.model_config_id,
  chatModelConfigId: row.chat_model_config_id,
  reasoningEffort: row.reasoning_effort,
  systemPrompt: row.system_prompt,
  snapshotVersion: Number(row.snapshot_version),
  trigger: row.trigger,
  userMessageId: row.user_message_id,
  runningMs: Number(row.running_ms),
  depth: row.depth,
  subagentType: row.subagent_type,
  clientTools: row.client_tools.map((tool) => ({ ...tool, kind: 'function' })),
  debug: row.debug,
})

/** A committed message as a model is shown it, and what is known of it. */
export interface ContextMessage extends ModelMessage {
  id: string
  turnId: string | null
  /** Whether it is the summary of what came before. */
  isSummary: boolean
  /** What the call that gave it used. */
  usage: Usage | null
}

interface ContextRow extends ModelMessage {
  id: string
  turn_id: string | null
  boundary: string | null
  usage: Usage | null
}

/** What the model is shown: the committed history, oldest first. */
export const readContext = async (db: Database, chatId: string): Promise<ContextMessage[]> =>
  (await query<ContextRow>(db, sql.readContext(chatId))).map(({ turn_id: turnId, boundary, ...message }) => ({
    ...message,
    turnId,
    isSummary: boundary !== null,
  }))

/** What a turn that a user began has done, with all turns of subagents that it has set off, directly or not. */
export interface FamilySpent {
  steps: number
  costMicros: number
}

export async function readFamilySpent(db: Database, turnId: string): Promise<FamilySpent> {
  const [row] = await query<{ steps: number; cost_micros: number }>(db, sql.readFamilySpent(turnId))
  return { steps: row?.steps ?? 0, costMicros: row?.cost_micros ?? 0 }
}

export interface RenewedLease {
  turnId: string
  epoch: number
  state: TurnState
  keyState: KeyState
}

interface RenewedRow {
  turn_id: string
  epoch: number
  state: TurnState
  key_state: KeyState
}

/** Renews all leases of a process at once. A turn that is not in the answer belongs to somebody else now. */
export async function renewLeases(
  db: Database,
  leaseMs: number,
  held: readonly Pick<Claim, 'turnId' | 'epoch'>[],
): Promise<RenewedLease[]> {
  const renew = sql.renewLeases(held.map((turn) => turn.turnId), held.map((turn) => turn.epoch), leaseMs) // prettier-ignore
  const rows = await query<RenewedRow>(db, renew)
  return rows.map(({ turn_id: turnId, epoch, state, key_state: keyState }) => ({
    turnId,
    epoch,
    state,
    keyState,
  }))
}
