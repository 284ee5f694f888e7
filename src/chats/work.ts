import { batch, query, type Database, type Statement } from '../db/index.ts'
import { toStoredError, TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import type { MessagePart, ModelMessage, ReasoningEffort } from '../protocol/messages.ts'
import type { Usage } from '../protocol/usage.ts'
import type { TurnState } from '../protocol/views.ts'
import { toAdmittedTurns, type AdmittedTurn, type Pool } from './admission.ts'
import { statesBefore, TURN_MOVES, type TurnTransition } from './states.ts'
import * as sql from './work-statements.ts'

/** Whether a turn's key may be used: `none` where the turn carries no key ID. */
export type KeyState = 'valid' | 'invalid' | 'none'

/** A turn that this worker holds, and what it needs to run it. `epoch` is the fence of every later write. */
export interface Claim {
  turnId: string
  /** `interrupting` for one that was told to stop and whose worker is gone: it is only to be ended. */
  state: 'running' | 'interrupting'
  chatId: string
  number: number
  epoch: number
  takeovers: number
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

export interface StepResult {
  /** 1, 2, … within the turn. */
  step: number
  parts: MessagePart[]
  modelConfigId: string
  finishReason: string
  usage: Usage
  costMicros: number | null
  /** Time from the claim to the first part, in ms. */
  firstPartMs: number
}

interface ClaimedRow {
  turn_id: string
  state: 'running' | 'interrupting'
  chat_id: string
  number: number
  epoch: number
  takeovers: number
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
  const [row] = await query<ClaimedRow>(db, claim)
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
  number: row.number,
  epoch: row.epoch,
  takeovers: row.takeovers,
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
})

/** What the model is shown: the committed history, oldest first. */
export const readContext = (db: Database, chatId: string): Promise<ModelMessage[]> =>
  query<ModelMessage>(db, sql.readContext(chatId))

export interface RenewedLease {
  turnId: string
  state: TurnState
  keyState: KeyState
}

/** Renews all leases of a process at once. A turn that is not in the answer belongs to somebody else now. */
export async function renewLeases(
  db: Database,
  leaseMs: number,
  held: readonly Pick<Claim, 'turnId' | 'epoch'>[],
): Promise<RenewedLease[]> {
  const renew = sql.renewLeases(held.map((turn) => turn.turnId), held.map((turn) => turn.epoch), leaseMs) // prettier-ignore
  const rows = await query<{ turn_id: string; state: TurnState; key_state: KeyState }>(db, renew)
  return rows.map((row) => ({ turnId: row.turn_id, state: row.state, keyState: row.key_state }))
}

/** A turn that this worker holds, and the slots of its pool. */
export interface HeldTurn {
  db: Database
  slots: number
  claim: Claim
}

/**
 * Commits the last step with its usage, completes the turn and promotes the head of the queue: one transaction, one
 * round trip.
 *
 * @throws {TurnmillError} `turn_fenced` where another worker holds the turn or it ended; nothing was written.
 */
export const finishTurn = (held: HeldTurn, result: StepResult): Promise<AdmittedTurn[]> =>
  writeFenced(held, 'finish', sql.finishTurn(...endTurnValues(held, 'finish', result)))

/**
 * Ends an interrupted turn with what there is of its answer and promotes the head of the queue.
 *
 * @param partial `null` where nothing was answered.
 * @throws {TurnmillError} `turn_fenced`.
 */
export const finishInterruptedTurn = (held: HeldTurn, partial: StepResult | null): Promise<AdmittedTurn[]> =>
  writeFenced(
    held,
    'finishInterrupt',
    sql.finishInterruptedTurn(...endTurnValues(held, 'finishInterrupt', partial)),
  )

const endTurnValues = ({ claim }: HeldTurn, transition: TurnTransition, result: StepResult | null): unknown[] => [
  claim.turnId, claim.epoch, statesBefore(transition), result?.step, result === null ? null : JSON.stringify(result.parts),
  result?.modelConfigId, result?.finishReason, result === null ? null : JSON.stringify(result.usage), result?.costMicros,
  result?.firstPartMs, newId(),
] // prettier-ignore

/** Whether a turn that this worker holds was told to stop. Asked when a write of its was refused. */
export async function isInterrupting(db: Database, { turnId, epoch }: Claim): Promise<boolean> {
  const [turn] = await query<TurnStateRow>(db, sql.readTurnState(turnId))
  return turn?.state === 'interrupting' && turn.epoch === epoch
}

/** What a failed turn spent all the same, where the provider reported it. */
export interface Spent {
  usage: Usage | null
  costMicros: number | null
}

/** Ends the turn as failed and keeps the queue. @throws {TurnmillError} `turn_fenced`. */
export const failTurn = (held: HeldTurn, error: TurnmillError, spent: Spent): Promise<AdmittedTurn[]> =>
  writeFenced(held, 'fail', sql.failTurn(
    held.claim.turnId, held.claim.epoch, statesBefore('fail'), JSON.stringify(toStoredError(error)),
    spent.usage === null ? null : JSON.stringify(spent.usage), spent.costMicros,
  )) // prettier-ignore

/** Gives the turn back unfinished; it is admitted and enqueued anew. @throws {TurnmillError} `turn_fenced`. */
export const releaseTurn = (held: HeldTurn): Promise<AdmittedTurn[]> =>
  writeFenced(held, 'release', sql.releaseTurn(held.claim.turnId, held.claim.epoch, statesBefore('release')))

async function writeFenced(
  { db, slots, claim }: HeldTurn,
  transition: TurnTransition,
  write: Statement,
): Promise<AdmittedTurn[]> {
  const admit = sql.admit(claim.userId, claim.pool, slots)
  const [, written = [], admitted = []] = await batch(db, [sql.lockChatOf(claim.chatId), write, admit])
  if (written.length === 0) throw fenced(claim, transition)
  return toAdmittedTurns(admitted)
}

const fenced = (claim: Claim, transition: TurnTransition): TurnmillError =>
  new TurnmillError(
    'turn_fenced',
    `${transition} of turn ${claim.turnId} under epoch ${claim.epoch} changed nothing: it is held elsewhere or ended`,
  )
