import type { Database } from '../db/index.ts'
import type { TurnmillError } from '../protocol/errors.ts'
import type { AdmittedTurn } from './admission.ts'
import { interruptChat } from './interrupt.ts'
import * as produce from './produce.ts'
import * as queue from './queue.ts'
import * as read from './read.ts'
import * as recover from './recover.ts'
import { retryChat } from './retry.ts'
import * as watch from './watch.ts'
import * as work from './work.ts'

/**
 * The chats: the only writer of chats, messages, queued messages and turns.
 *
 * I1 every acknowledged message reaches exactly one terminal state.
 * I2 at most one committed assistant result per (turn, step).
 * I3 at most one turn with a valid epoch runs per chat.
 * I4 turns of a chat commit in queue order; an edit drops all later ones.
 * I5 terminal states absorb.
 * I7 no unarchived chat has queued messages and no active turn, `failed` ones aside.
 */
export interface ChatsOptions {
  db: Database
  limits: produce.ProducerLimits & { runningSubagentTurns: number }
  leaseMs: number
  /** Called after a commit with the turns that got a slot: each is to be enqueued under its job id. Must not throw. */
  onAdmitted(turns: readonly AdmittedTurn[]): Promise<void>
  /** Called after a commit that watchers of the chat may see. Must not throw. */
  onChanged(chatId: string): void
  /** Called after a commit that tells the worker of a turn to stop. Must not throw. */
  onStop(turnId: string): void
}

export type Chats = ReturnType<typeof createChats>

export function createChats({ db, limits, leaseMs, onAdmitted, onChanged, onStop }: ChatsOptions) {
  const slots = { root: limits.runningRootTurns, subagent: limits.runningSubagentTurns }
  const hold = (claim: work.Claim): work.HeldTurn => ({ db, slots: slots[claim.pool], claim })

  async function publish<T>(
    chatId: (result: T) => string,
    change: Promise<produce.Committed<T>>,
  ): Promise<T> {
    const { result, admitted, stopTurnId } = await change
    onChanged(chatId(result))
    if (typeof stopTurnId === 'string') onStop(stopTurnId)
    await onAdmitted(admitted)
    return result
  }

  async function publishWork(claim: work.Claim, write: Promise<AdmittedTurn[]>): Promise<void> {
    const admitted = await write
    onChanged(claim.chatId)
    await onAdmitted(admitted)
  }

  return {
    create: (initiator: produce.Initiator, input: produce.CreateInput) =>
      publish(({ chat }) => chat.id, produce.createChat(db, limits, initiator, input)),
    send: (initiator: produce.Initiator, input: produce.SendInput) =>
      publish(() => input.chatId, produce.sendMessage(db, limits, initiator, input)),
    edit: (initiator: produce.Initiator, input: produce.EditInput) =>
      publish(() => input.chatId, produce.editMessage(db, limits, initiator, input)),

    changeQueued: async (initiator: produce.Initiator, change: queue.QueuedChange) => {
      const changed = await queue.changeQueued(db, initiator, change)
      onChanged(change.chatId)
      return changed
    },
    deleteQueued: async (initiator: produce.Initiator, target: queue.QueuedTarget) => {
      await queue.deleteQueued(db, initiator.userId, target)
      onChanged(target.chatId)
    },
    promoteQueued: async (initiator: produce.Initiator, target: queue.QueuedTarget) => {
      const promoter = { userId: initiator.userId, slots: slots.root }
      await publish(() => target.chatId, queue.promoteQueued(db, promoter, target))
      return read.readChat(db, target.chatId, initiator.userId)
    },
    retry: (initiator: produce.Initiator, chatId: string) =>
      publish(() => chatId, retryChat(db, { ...initiator, slots: slots.root }, chatId)),
    interrupt: async (initiator: produce.Initiator, chatId: string) => {
      const request = { chatId, userId: initiator.userId, slots: slots.root }
      await publish(
        () => chatId,
        interruptChat(db, request).then((interrupted) => ({ result: null, ...interrupted })),
      )
      return read.readChat(db, chatId, initiator.userId)
    },

    async claim(request: work.ClaimRequest): Promise<work.Claim | work.Unclaimed> {
      const claim = await work.claimTurn(db, leaseMs, request)
      if (typeof claim !== 'string') onChanged(claim.chatId)
      return claim
    },
    renew: (held: readonly Pick<work.Claim, 'turnId' | 'epoch'>[]) => work.renewLeases(db, leaseMs, held),
    context: (chatId: string) => work.readContext(db, chatId),
    finish: (claim: work.Claim, result: work.StepResult) =>
      publishWork(claim, work.finishTurn(hold(claim), result)),
    finishInterrupted: (claim: work.Claim, partial: work.StepResult | null) =>
      publishWork(claim, work.finishInterruptedTurn(hold(claim), partial)),
    isInterrupting: (claim: work.Claim) => work.isInterrupting(db, claim),
    fail: (claim: work.Claim, error: TurnmillError, spent: work.Spent) =>
      publishWork(claim, work.failTurn(hold(claim), error, spent)),
    release: (claim: work.Claim) => publishWork(claim, work.releaseTurn(hold(claim))),

    get: (chatId: string, userId: string) => read.readChat(db, chatId, userId),
    list: (userId: string, page: read.PageRequest) => read.listChats(db, userId, page),
    messages: (chatId: string, page: read.PageRequest) => read.listMessages(db, chatId, page),
    turns: (chatId: string, page: read.PageRequest) => read.listTurns(db, chatId, page),
    queue: (chatId: string) => read.listQueue(db, chatId),
    changes: (chatId: string, userId: string | null, since: number) =>
      watch.readChanges(db, chatId, userId, since),
    versions: (chatIds: readonly string[]) => watch.readVersions(db, chatIds),

    admitWaiting: (limit: number) => recover.admitWaitingTurns(db, slots, limit),
    suspects: (options: Parameters<typeof recover.findSuspects>[1]) => recover.findSuspects(db, options),
    renewJobs: (lost: readonly recover.Suspect[]) => recover.renewJobs(db, lost),
  }
}

export type { AdmittedTurn, Pool } from './admission.ts'
export type {
  CreateInput,
  EditInput,
  Initiator,
  MessageInput,
  ProducerLimits,
  SendInput,
  Started,
} from './produce.ts'
export type { Page, PageRequest } from './read.ts'
export type { Suspect, SuspectCursor } from './recover.ts'
export { isBusy, TURN_MOVES, TURN_TRANSITIONS } from './states.ts'
export type { Claim, ClaimRequest, KeyState, RenewedLease, Spent, StepResult, Unclaimed } from './work.ts'
