import { batch, query, withTransaction, type Database, type Statement } from '../db/index.ts'
import { toStoredError, TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import {
  isToolCall,
  toStorableJson,
  type ImagePart,
  type MessagePart,
  type ToolCallPart,
  type ToolResultPart,
} from '../protocol/messages.ts'
import type { Usage } from '../protocol/usage.ts'
import type { RetryState, ToolCallState } from '../protocol/views.ts'
import { toAdmittedTurns, type AdmittedTurn, type PoolSlots } from './admission.ts'
import { pendingRunsOf } from './auxiliary.ts'
import * as sql from './commit-statements.ts'
import { admit, closeOpenCalls, promoteHead } from './effect-statements.ts'
import { admissionOf, type Aftermath } from './effects.ts'
import { cascade, lockDescendants, lockFamilyTurns, runningTurnsOf } from './families.ts'
import { statesBefore, type TurnTransition } from './states.ts'
import type { Claim } from './work.ts'
import { readTurnState } from './work-statements.ts'

/** An answer of a model, as it is committed. */
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

/** What a call without an answer spent all the same, where the provider reported it. */
export interface Spent {
  /** Of this spending: however often it is said, it is added once. Absent where nothing was spent. */
  id?: string
  usage: Usage | null
  costMicros: number | null
}

/** A result of a call, and what becomes of the call in the ledger. */
export interface CallResult extends Omit<ToolResultPart, 'type'> {
  state: 'done' | 'denied' | 'unknown'
}

/** A wait before the next attempt that is too long to hold a slot. */
export interface Backoff {
  delayMs: number
  retry: RetryState
  /** By the attempt that failed. */
  spent: Spent
}

/** A call that only the client can answer. */
export interface AwaitedCall {
  callId: string
  state: 'awaiting_client' | 'awaiting_approval'
}

/** A turn that this worker holds. Where it no longer does, a write below throws `turn_fenced` or says so in `fenced`. */
export interface HeldTurn {
  db: Database
  slots: PoolSlots
  claim: Claim
}

/** What a worker's last write on a turn did. Where it is fenced, it changed nothing of the turn. */
export interface Written extends Aftermath {
  fenced: TurnmillError | null
}

/**
 * Commits the last step, completes the turn and promotes the head of the queue: one round trip.
 *
 * @param named whether a chat without a title is to get one.
 */
export const finishTurn = (held: HeldTurn, result: StepResult, named: boolean): Promise<Written> =>
  writeLast(held, 'finish', [
    sql.finishTurn(
      ...fence(held, 'finish'),
      ...stepValues(toStorableStep(result)),
      newId(),
      named ? newId() : null,
    ),
  ])

/**
 * Ends an interrupted turn with what there is of its answer, closes its open calls and promotes the head of the queue.
 *
 * @param partial `null` where nothing was answered.
 * @param spent by a call that left no partial answer.
 */
export const finishInterruptedTurn = (
  held: HeldTurn,
  partial: StepResult | null,
  spent: Spent,
): Promise<Written> =>
  writeLast(held, 'finishInterrupt', [
    sql.finishInterruptedTurn(
      ...fence(held, 'finishInterrupt'),
      ...stepValues(partial && toStorableStep(partial), spent),
      partial === null ? (spent.id ?? null) : null,
    ),
    // Both find nothing to do where the first was fenced.
    closeOpenCalls([held.claim.turnId], ['interrupted']),
    promoteHead(held.claim.chatId, newId(), ['idle']),
  ])

/** Completes a turn that gave no answer, and promotes the head of the queue. */
export const finishWithoutAnswer = (held: HeldTurn): Promise<Written> =>
  writeLast(held, 'finish', [
    sql.finishWithoutAnswer(...fence(held, 'finish')),
    promoteHead(held.claim.chatId, newId(), ['idle']),
  ])

/**
 * Commits a step that asked for tools, before any of them starts. Safe to repeat.
 *
 * @param spendingId of what the step used, for whoever may have to add it where this was fenced.
 */
export async function commitStep(held: HeldTurn, result: StepResult, spendingId?: string): Promise<void> {
  const storable = toStorableStep(result)
  const calls = storable.parts.filter(isToolCall).map(toLedgerRow)
  const values = [...fence(held, 'commitStep'), ...stepValues(storable), JSON.stringify(calls)]
  await writeOn(held, 'commitStep', sql.commitStep(...values, spendingId ?? null))
}

/** A call that the model asked for and that has no committed result yet, as the ledger knows it. */
export interface OpenCall {
  step: number
  call: ToolCallPart
  state: ToolCallState
  /** What it came to, in the states that end it. */
  result: { output: unknown; isError: boolean; images: ImagePart[] }
  /** How long ago it was started, in ms; `null` where it was not. */
  startedMs: number | null
}

interface OpenCallRow {
  part: ToolCallPart
  step: number
  state: ToolCallState | null
  output: unknown
  is_error: boolean | null
  images: ImagePart[] | null
  started_ms: number | null
}

/** The calls of the last committed step whose results are not committed, in the order in which the model asked. */
export const readOpenCalls = async (db: Database, turnId: string): Promise<OpenCall[]> =>
  (await query<OpenCallRow>(db, sql.openCalls(turnId))).map((row) => ({
    step: row.step,
    call: row.part,
    state: row.state ?? 'unknown',
    result: { output: row.output, isError: row.is_error ?? false, images: row.images ?? [] },
    startedMs: row.started_ms,
  }))

/** Notes that calls are about to run: after a crash they may have. */
export const startCalls = (held: HeldTurn, callIds: readonly string[]): Promise<void> =>
  writeOn(held, 'startCalls', sql.startCalls(...fence(held, 'startCalls'), callIds))

/** Keeps what calls came to until all of their step are answered. Safe to repeat. */
export const keepResults = (held: HeldTurn, results: readonly CallResult[]): Promise<void> => {
  const kept = JSON.stringify(results.map(toStorableResult))
  return writeOn(held, 'keepResults', sql.keepResults(...fence(held, 'keepResults'), kept))
}

/** A summary that takes the place of the history before it. */
export interface Compaction {
  /** The step after which it stands: the last committed one, 0 before the first. */
  step: number
  parts: MessagePart[]
  /** The messages that stay as they are. */
  keep: readonly string[]
  modelConfigId: string
  /** By the call that summed up. */
  spent: Spent
}

/** Puts a summary in the place of the history. Safe to repeat. */
export const compact = (held: HeldTurn, compaction: Compaction): Promise<void> => {
  const { step, parts, keep, modelConfigId, spent } = compaction
  const values = [step, JSON.stringify(parts), keep, modelConfigId, ...spentValues(spent)]
  return writeOn(held, 'compact', sql.compact(...fence(held, 'compact'), ...values))
}

/** Adds what a call has used that no step's commit tells, also where the turn was told to stop or superseded meanwhile. */
export const addSpent = (held: HeldTurn, spent: Spent): Promise<void> =>
  writeOn(held, 'keepResults', sql.addSpent(held.claim.turnId, held.claim.epoch, ...spentValues(spent)))

/** The ids of all calls of a tool in a turn, in the order in which the model asked. */
export const readCallsOf = async (db: Database, turnId: string, toolName: string): Promise<string[]> =>
  (await query<{ call_id: string }>(db, sql.callsOf(turnId, toolName))).map((row) => row.call_id)

const toLedgerRow = ({ toolCallId, toolName, input }: ToolCallPart) => ({
  id: newId(),
  callId: toolCallId,
  name: toolName,
  input,
})

/** Commits all results of a step together. Safe to repeat. */
export async function commitResults(
  held: HeldTurn,
  step: number,
  results: readonly CallResult[],
): Promise<void> {
  const kept = results.map(toStorableResult)
  const parts = kept.map(({ state: _, ...result }) => ({ type: 'tool-result', ...result }))
  const values = [...fence(held, 'commitResults'), step, JSON.stringify(parts), JSON.stringify(kept)]
  await writeOn(held, 'commitResults', sql.commitResults(...values))
}

const toStorableResult = (result: CallResult): CallResult => ({
  ...result,
  output: toStorableJson(result.output),
})

/** Waits for the client's results and approvals, holding no slot. @param deadlineMs how long. */
export const requireAction = (
  held: HeldTurn,
  calls: readonly AwaitedCall[],
  deadlineMs: number,
): Promise<Written> =>
  writeLast(held, 'requireAction', [
    sql.requireAction(...fence(held, 'requireAction'), deadlineMs, JSON.stringify(calls)),
  ])

/**
 * Waits for subagents, holding no slot, where one of them is still at work.
 *
 * @returns `null` where none is: the turn runs on.
 */
export async function waitForChildren(
  held: HeldTurn,
  childIds: readonly string[],
  deadlineMs: number,
): Promise<Aftermath | null> {
  const wait = sql.waitForChildren(...fence(held, 'wait'), deadlineMs, childIds)
  const { rows, admitted } = await write(held, [wait])
  const [written] = rows as { waits: boolean }[]
  if (written === undefined) throw fenced(held.claim, 'wait')
  return written.waits ? { ...aftermathOf(held.claim), admitted } : null
}

/** Notes an attempt that failed and is tried again under this claim, and what it spent. Safe to repeat. */
export const noteRetry = (held: HeldTurn, retry: RetryState, spent: Spent): Promise<void> =>
  writeOn(held, 'backoff', sql.noteRetry(...retryValues(held, retry, spent)))

/** Gives the turn back until its next attempt is due. */
export const backOff = (held: HeldTurn, { delayMs, retry, spent }: Backoff): Promise<Written> =>
  writeLast(held, 'backoff', [sql.backOff(...retryValues(held, retry, spent), delayMs)])

/** A retry is noted from where a turn may also back off. */
const retryValues = (held: HeldTurn, retry: RetryState, spent: Spent): unknown[] => [
  ...fence(held, 'backoff'),
  JSON.stringify(retry),
  ...spentValues(spent),
]

/** Gives the turn back unfinished; it is admitted and enqueued anew. @param spent by the call that was broken off. */
export const releaseTurn = (held: HeldTurn, spent: Spent): Promise<Written> =>
  writeLast(held, 'release', [sql.releaseTurn(...fence(held, 'release'), ...spentValues(spent))])

/** Ends the turn as failed and keeps the queue; subagents that are still at work are interrupted. */
export const failTurn = (held: HeldTurn, error: TurnmillError, spent: Spent): Promise<Aftermath> =>
  withTransaction(held.db, async (tx) => {
    const { claim, slots } = held
    await tx.query(sql.lockChatOf(claim.chatId))
    const descendants = await lockDescendants(tx, claim.chatId)
    const values = [...fence(held, 'fail'), JSON.stringify(toStoredError(error)), ...spentValues(spent)]
    const rows = await Promise.all(
      [...lockFamilyTurns(claim.chatId, descendants), sql.failTurn(...values)].map((one) => tx.query(one)),
    )
    if (rows.at(-1)?.length === 0) throw fenced(claim, 'fail')
    const admission = admissionOf(claim, descendants, slots)
    const results = await tx.commitWith([...cascade(descendants), ...admission])
    return {
      ...aftermathOf(claim),
      admitted: results.slice(-admission.length).flatMap(toAdmittedTurns),
      stopped: runningTurnsOf(descendants),
      changed: descendants.map(({ id }) => id),
    }
  })

/** Whether a turn that this worker holds was told to stop. Asked when a write of its was refused. */
export async function isInterrupting(db: Database, { turnId, epoch }: Claim): Promise<boolean> {
  const [turn] = await query<{ state: string; epoch: number }>(db, readTurnState(turnId))
  return turn?.state === 'interrupting' && turn.epoch === epoch
}

const fence = ({ claim }: HeldTurn, transition: TurnTransition): [string, number, string[]] => [
  claim.turnId,
  claim.epoch,
  statesBefore(transition),
]

const stepValues = (result: StepResult | null, spent?: Spent): unknown[] => [
  result?.step, result === null ? null : JSON.stringify(result.parts), result?.modelConfigId, result?.finishReason,
  ...usedValues(result ?? spent ?? { usage: null, costMicros: null }), result?.firstPartMs,
] // prettier-ignore

const toStorableStep = (result: StepResult): StepResult => ({
  ...result,
  parts: result.parts.map(toStorablePart),
})

/** Text is storable since the adapter; what a call is asked with is whatever the model wrote. */
const toStorablePart = (part: MessagePart): MessagePart =>
  part.type === 'tool-call' ? { ...part, input: toStorableJson(part.input) } : part

const usedValues = ({ usage, costMicros }: Spent): unknown[] => [
  usage === null ? null : JSON.stringify(usage),
  costMicros,
]

const spentValues = (spent: Spent): unknown[] => [...usedValues(spent), spent.id ?? null]

/** A write that takes the turn out of running. Whoever gets a slot with it gets it also where the write was fenced. */
async function writeLast(
  held: HeldTurn,
  transition: TurnTransition,
  statements: readonly Statement[],
): Promise<Written> {
  const { rows, admitted } = await write(held, statements)
  const refusal = rows.length === 0 ? fenced(held.claim, transition) : null
  return { ...aftermathOf(held.claim), admitted, runs: pendingRunsOf(rows), fenced: refusal }
}

/** A write after which the turn runs on. */
async function writeOn({ db, claim }: HeldTurn, transition: TurnTransition, write: Statement): Promise<void> {
  const [, written = []] = await batch(db, [sql.lockChatOf(claim.chatId), write])
  if (written.length === 0) throw fenced(claim, transition)
}

/** The rows are those of the first statement. */
async function write(
  { db, slots, claim }: HeldTurn,
  statements: readonly Statement[],
): Promise<{ rows: object[]; admitted: AdmittedTurn[] }> {
  const admission = admit(claim.userId, claim.pool, slots[claim.pool])
  const results = await batch(db, [sql.lockChatOf(claim.chatId), ...statements, admission])
  return { rows: results[1] ?? [], admitted: toAdmittedTurns(results.at(-1) ?? []) }
}

const aftermathOf = ({ parentId }: Claim): Omit<Aftermath, 'admitted'> => ({
  stopped: [],
  changed: [],
  parentId,
})

export const fenced = (claim: Pick<Claim, 'turnId' | 'epoch'>, transition: TurnTransition): TurnmillError =>
  new TurnmillError(
    'turn_fenced',
    `${transition} of turn ${claim.turnId} under epoch ${claim.epoch} changed nothing: it is held elsewhere or ended`,
  )
