import {
  lockChatOf,
  runJobId,
  toPendingRun,
  type KeyState,
  type PendingRun,
  type PendingRunRow,
  type Spent,
} from '../chats/index.ts'
import { batch, query, type Database } from '../db/index.ts'
import { toStoredError, TurnmillError } from '../protocol/errors.ts'
import type { MessagePart } from '../protocol/messages.ts'
import type { AuxiliaryPurpose, RunState } from '../protocol/views.ts'
import * as sql from './run-statements.ts'
import { RUN_MOVES, statesBefore, type RunTransition } from './states.ts'

/** A run that this worker holds. `epoch` is the fence of every later write. */
export interface RunClaim {
  runId: string
  chatId: string
  /** `null` for a title that was asked for. */
  turnId: string | null
  purpose: AuxiliaryPurpose
  epoch: number
  takeovers: number
  apiKeyId: string | null
  keyState: KeyState
  keyOwnerId: string | null
  /** The owner of the chat. */
  userId: string
  ownerActive: boolean
  chatModelConfigId: string | null
  /** Whether the chat has a use for what it finds: nobody has named the chat meanwhile, or the turn is still at work. */
  wanted: boolean
}

/** What a job says about itself. `compare` is what its payload must agree with; `null` for an unknown version. */
export interface RunClaimRequest {
  runId: string
  jobId: string
  attemptsMade: number
  compare: { chatId: string; apiKeyId: string | null } | null
}

/** Why a job does not get its run. Only `mismatch` is the job's own fault. */
export type UnclaimedRun = 'gone' | 'ended' | 'held' | 'mismatch'

/** What a run is about: what was asked, and what was answered where there is an answer. */
export interface RunMaterial {
  asked: MessagePart[]
  answered: MessagePart[]
}

/** A run that should have a job, with the job that was made for it. */
export interface RunSuspect {
  runId: string
  enqueues: number
  jobId: string
}

/** Where a page of suspects ended. */
export interface RunCursor {
  enqueuedAt: Date
  runId: string
}

export interface AuxiliaryRunsOptions {
  db: Database
  leaseMs: number
  /** Called after a commit with runs that wait: each is to be enqueued under its job id. Must not throw. */
  onPending(runs: readonly PendingRun[]): Promise<void>
  /** Called after a commit that watchers of the chat may see. Must not throw. */
  onChanged(chatId: string): void
}

/**
 * The auxiliary runs once they are made: the only writer of their rows, but for the insert that is part of what makes one.
 *
 * I6 a run's row is the only source of its initiator.
 * A1 a run never touches the state of its chat or of a turn; what it finds is a title or a label, and a failure is its own,
 *    told beside the title that the chat keeps.
 * A2 every write of a worker is fenced by the epoch, and what it found is written in one statement with its end.
 */
export type AuxiliaryRuns = ReturnType<typeof createAuxiliaryRuns>

export function createAuxiliaryRuns({ db, leaseMs, onPending, onChanged }: AuxiliaryRunsOptions) {
  /** A run that waits again: its job is made after the commit. */
  async function givenBack(rows: object[]): Promise<boolean> {
    await onPending((rows as PendingRunRow[]).map(toPendingRun))
    return rows.length > 0
  }

  return {
    /** Takes the run for this worker, or says why not. */
    async claim(request: RunClaimRequest): Promise<RunClaim | UnclaimedRun> {
      const { runId, jobId, attemptsMade, compare } = request
      const claim = sql.claimRun(
        runId, leaseMs, statesBefore('claim'), jobId, attemptsMade, compare !== null, compare?.apiKeyId, compare?.chatId,
      ) // prettier-ignore
      const [row] = await query<ClaimedRow>(db, claim)
      return row === undefined ? explainUnclaimed(db, request) : toClaim(row)
    },

    /** Whether an operator's retry of this job made its failed run pending again. */
    async reopen({ runId, jobId, attemptsMade, compare }: RunClaimRequest): Promise<boolean> {
      const reopen = sql.reopenRun(
        runId, statesBefore('reopen'), jobId, attemptsMade, compare !== null, compare?.apiKeyId, compare?.chatId,
      ) // prettier-ignore
      return givenBack(await query(db, reopen))
    },

    /** Renews all leases of a process at once. A run that is not in the answer belongs to somebody else now. */
    async renew(held: readonly HeldRun[]): Promise<RenewedRun[]> {
      const ids = [held.map(({ runId }) => runId), held.map(({ epoch }) => epoch)]
      const renew = sql.renewLeases(...ids, leaseMs, statesBefore('complete'))
      const rows = await query<{ run_id: string; epoch: number; key_state: KeyState }>(db, renew)
      return rows.map((row) => ({ runId: row.run_id, epoch: row.epoch, keyState: row.key_state }))
    },

    async material({ purpose, chatId, turnId }: RunClaim): Promise<RunMaterial> {
      const read = purpose === 'title' ? sql.readBeginning(chatId) : sql.readAsked(turnId)
      const [row] = await query<{ asked: MessagePart[] | null; answered: MessagePart[] | null }>(db, read)
      return { asked: row?.asked ?? [], answered: row?.answered ?? [] }
    },

    /**
     * Ends the run and gives the chat what was found, where it still has a use for it.
     *
     * @param words `null` where nothing was found: the chat stays as it is.
     * @throws {TurnmillError} `turn_fenced`.
     */
    async complete(claim: RunClaim, words: string | null, spent: Spent): Promise<void> {
      const complete = sql.completeRun(...fence(claim, 'complete'), ...valuesOf(spent), words)
      // The chat first, as in every other transaction.
      const [, rows = []] = await batch(db, [lockChatOf(claim.chatId), complete])
      const [row] = rows as { named: boolean }[]
      if (row === undefined) throw fenced(claim, 'complete')
      if (row.named) onChanged(claim.chatId)
    },

    /** Ends the run as failed, and tells the chat why it has no title of it. @throws {TurnmillError} `turn_fenced`. */
    async fail(claim: RunClaim, error: TurnmillError, spent: Spent): Promise<void> {
      const stored = JSON.stringify(toStoredError(error))
      const fail = sql.failRun(...fence(claim, 'fail'), ...valuesOf(spent), stored)
      const [, rows = []] = await batch(db, [lockChatOf(claim.chatId), fail])
      const [row] = rows as { told: boolean }[]
      if (row === undefined) throw fenced(claim, 'fail')
      if (row.told) onChanged(claim.chatId)
    },

    /** Gives the run back unfinished, with a job of its own. @throws {TurnmillError} `turn_fenced`. */
    async release(claim: RunClaim, spent: Spent): Promise<void> {
      const release = sql.releaseRun(...fence(claim, 'release'), ...valuesOf(spent))
      if (!(await givenBack(await query(db, release)))) throw fenced(claim, 'release')
    },

    /** A page of runs that should have a job, oldest enqueueing first. */
    async suspects(options: { olderThanMs: number; limit: number; after: RunCursor | null }) {
      const { olderThanMs, limit, after } = options
      const find = sql.suspects(olderThanMs, limit, after?.enqueuedAt ?? null, after?.runId ?? null)
      const rows = await query<SuspectRow>(db, find)
      const last = rows.length < limit ? undefined : rows.at(-1)
      const next: RunCursor | null =
        last === undefined ? null : { enqueuedAt: last.enqueued_at, runId: last.run_id }
      return { suspects: rows.map(toSuspect), next }
    },

    /** Names a new job for each run that still expects the one it lost; the caller enqueues them. */
    async renewJobs(lost: readonly RunSuspect[]): Promise<PendingRun[]> {
      if (lost.length === 0) return []
      const ids = [lost.map(({ runId }) => runId), lost.map(({ enqueues }) => enqueues)]
      return (await query<PendingRunRow>(db, sql.enqueueAnew(...ids))).map(toPendingRun)
    },

    /** Retention: forgets what ended 7 days ago, `limit` rows at most. */
    async prune(limit: number): Promise<void> {
      await query(db, sql.pruneFinished(limit))
    },
  }
}

type HeldRun = Pick<RunClaim, 'runId' | 'epoch'>

type RenewedRun = HeldRun & { keyState: KeyState }

interface ClaimedRow {
  run_id: string
  chat_id: string
  turn_id: string | null
  purpose: AuxiliaryPurpose
  epoch: number
  takeovers: number
  api_key_id: string | null
  key_state: KeyState
  key_owner_id: string | null
  user_id: string
  owner_status: string
  model_config_id: string | null
  wanted: boolean
}

const toClaim = (row: ClaimedRow): RunClaim => ({
  runId: row.run_id,
  chatId: row.chat_id,
  turnId: row.turn_id,
  purpose: row.purpose,
  epoch: row.epoch,
  takeovers: row.takeovers,
  apiKeyId: row.api_key_id,
  keyState: row.key_state,
  keyOwnerId: row.key_owner_id,
  userId: row.user_id,
  ownerActive: row.owner_status === 'active',
  chatModelConfigId: row.model_config_id,
  wanted: row.wanted,
})

interface RunRow {
  state: RunState
  chat_id: string
  api_key_id: string | null
}

async function explainUnclaimed(db: Database, { runId, compare }: RunClaimRequest): Promise<UnclaimedRun> {
  const [run] = await query<RunRow>(db, sql.readRun(runId))
  if (run === undefined) return 'gone'
  if (RUN_MOVES[run.state].claim === undefined) return 'ended'
  if (compare === null || run.api_key_id === null) return 'held'
  return run.api_key_id === compare.apiKeyId && run.chat_id === compare.chatId ? 'held' : 'mismatch'
}

interface SuspectRow {
  run_id: string
  enqueues: number
  enqueued_at: Date
}

const toSuspect = ({ run_id: runId, enqueues }: SuspectRow): RunSuspect => ({
  runId,
  enqueues,
  jobId: runJobId(runId, enqueues),
})

const fence = ({ runId, epoch }: RunClaim, transition: RunTransition): [string, number, RunState[]] => [
  runId,
  epoch,
  statesBefore(transition),
]

const valuesOf = ({ usage, costMicros }: Spent): [string | null, number | null] => [
  usage === null ? null : JSON.stringify(usage),
  costMicros,
]

const fenced = ({ runId, epoch }: RunClaim, transition: RunTransition): TurnmillError =>
  new TurnmillError(
    'turn_fenced',
    `${transition} of run ${runId} under epoch ${epoch} changed nothing: it is held elsewhere or ended`,
  )
