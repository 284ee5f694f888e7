import type { Database } from '../db/index.ts'
import { isTurnmillError, type TurnmillError } from '../protocol/errors.ts'
import type { MessagePart } from '../protocol/messages.ts'
import type { RetryState } from '../protocol/views.ts'
import type { AdmittedTurn, PoolSlots } from './admission.ts'
import * as auxiliary from './auxiliary.ts'
import * as commit from './commit.ts'
import { debugChat } from './debug.ts'
import type { Aftermath, Committed } from './effects.ts'
import { interruptChat, interruptSubagent } from './interrupt.ts'
import * as manage from './manage.ts'
import * as produce from './produce.ts'
import * as queue from './queue.ts'
import * as read from './read.ts'
import * as recover from './recover.ts'
import { reopenFailedTurn } from './reopen.ts'
import { compactChat, retryChat } from './retry.ts'
import type { TurnTransition } from './states.ts'
import * as subagents from './subagents.ts'
import * as titles from './titles.ts'
import * as toolResults from './tool-results.ts'
import * as watch from './watch.ts'
import * as work from './work.ts'

/**
 * The chats: the only writer of chats, messages, queued messages and turns. What an auxiliary run has found is written by
 * `src/auxiliary` in one statement with the run's end, in the words of `nameChat`.
 *
 * I1 every acknowledged message reaches exactly one terminal state.
 * I2 at most one committed assistant result per (turn, step).
 * I3 at most one turn with a valid epoch runs per chat.
 * I4 turns of a chat commit in queue order; an edit drops all later ones.
 * I5 terminal states absorb, `failed` but for reopen.
 * I7 no unarchived chat has queued messages and no active turn, `failed` ones aside.
 */
export interface ChatsOptions {
  db: Database
  limits: Omit<produce.ProducerLimits, 'slots'> &
    subagents.FamilyLimits & { runningRootTurns: number; runningSubagentTurns: number }
  leaseMs: number
  /** What small models are asked beside the turns. */
  auxiliary: {
    /** Whether a chat that nobody named gets a title after its first answer. */
    titles: boolean
    /** Whether a chat gets a label of what its turn is doing. */
    labels: boolean
  }
  /** Called after a commit with auxiliary runs: each is to be enqueued under its job id. Must not throw. */
  onRuns(runs: readonly auxiliary.PendingRun[]): Promise<void>
  /** Called after a commit with the turns that got a slot: each is to be enqueued under its job id. Must not throw. */
  onAdmitted(turns: readonly AdmittedTurn[]): Promise<void>
  /** Called after a commit that watchers of the chat may see. Must not throw. */
  onChanged(chatId: string): void
  /** Called after a commit that tells the worker of a turn to look at its row. Must not throw. */
  onStop(turnId: string): void
  /** Called when a worker's write was refused, since it had lost the turn. Must not throw. */
  onFenced(transition: TurnTransition): void
}

type BoundChats = ReturnType<typeof bindChats>

export interface Chats extends BoundChats {
  /** The same on a joined database. What follows a commit is held until that transaction has committed. */
  within(joined: Database): ChatsWithin
}

export interface ChatsWithin {
  chats: BoundChats
  /** Does what was held, in the order it came up: to be called once, after the commit. */
  tell(): Promise<void>
}

const initiatorOf = ({ userId, apiKeyId }: work.Claim): produce.Initiator => ({ userId, apiKeyId })

/** A root's turn, when it begins; one that only sums the history up says nothing to anybody. */
const wantsLabel = ({ epoch, parentId, trigger }: work.Claim): boolean =>
  epoch === 1 && parentId === null && trigger !== 'compact'

/** The slots of the two pools, as the settings have them. */
const slotsOf = ({ limits }: Pick<ChatsOptions, 'limits'>): PoolSlots => ({
  root: limits.runningRootTurns,
  subagent: limits.runningSubagentTurns,
})

export const createChats = (options: ChatsOptions): Chats => ({
  ...bindChats(options, (chatId) => resumeParent(options, chatId)),
  within: (joined) => bindWithin(options, joined),
})

function bindWithin(options: ChatsOptions, joined: Database): ChatsWithin {
  const held: (() => void | Promise<void>)[] = []
  const hold = async (work: () => void | Promise<void>): Promise<void> => void held.push(work)
  const chats = bindChats(
    {
      ...options,
      db: joined,
      onAdmitted: (turns) => hold(() => options.onAdmitted(turns)),
      onRuns: (runs) => hold(() => options.onRuns(runs)),
      onChanged: (chatId) => void hold(() => options.onChanged(chatId)),
      onStop: (turnId) => void hold(() => options.onStop(turnId)),
    },
    (chatId) => hold(() => resumeParent(options, chatId)),
  )
  const tell = async (): Promise<void> => {
    for (const work of held) await work()
  }
  return { chats, tell }
}

/**
 * Lets a parent go on that waited for a child alone. A transaction of its own, after the child's: locks never go upward.
 * What is lost here the reconciler finds.
 */
async function resumeParent(options: ChatsOptions, chatId: string): Promise<void> {
  try {
    const { resumed, admitted } = await subagents.resumeWaitingParent(options.db, slotsOf(options), chatId)
    if (resumed) options.onChanged(chatId)
    await options.onAdmitted(admitted)
  } catch {
    // The child's change is committed, and its caller is not to hear of this.
  }
}

function bindChats(options: ChatsOptions, onChildRested: (parentId: string) => Promise<void>) {
  const { db, limits, leaseMs, onAdmitted, onRuns, onChanged, onStop, onFenced } = options
  const slots = slotsOf(options)
  const producing = { ...limits, slots }
  const hold = (claim: work.Claim): commit.HeldTurn => ({ db, slots, claim })

  /** What follows a commit, and never before it. A crash in between costs nothing but time: the reconciler looks. */
  async function publish(
    chatId: string,
    { admitted, stopped, changed, parentId, runs = [] }: Aftermath,
  ): Promise<void> {
    for (const id of [chatId, ...changed]) onChanged(id)
    stopped.forEach(onStop)
    await Promise.all([onAdmitted(admitted), onRuns(runs)])
    if (parentId !== null) await onChildRested(parentId)
  }

  async function publishing<T>(chatId: string, change: Promise<Committed<T>>): Promise<T> {
    const { result, ...aftermath } = await change
    await publish(chatId, aftermath)
    return result
  }

  async function publishWork(
    claim: work.Claim,
    transition: TurnTransition,
    write: Promise<Aftermath & { fenced?: TurnmillError | null }>,
  ): Promise<void> {
    const { fenced = null, ...aftermath } = await counting(transition, write)
    await publish(claim.chatId, aftermath)
    if (fenced === null) return
    onFenced(transition)
    throw fenced
  }

  /** Counts a write that was refused, since its worker had lost the turn. */
  async function counting<T>(transition: TurnTransition, write: Promise<T>): Promise<T> {
    try {
      return await write
    } catch (error) {
      if (isTurnmillError(error) && error.code === 'turn_fenced') onFenced(transition)
      throw error
    }
  }

  /** The turn does not wait for its label, and does without it where it cannot be asked for. */
  const label = (claim: work.Claim): Promise<void> =>
    auxiliary.startLabel(db, claim).then(onRuns, () => undefined)

  return {
    async create(initiator: produce.Initiator, input: produce.CreateInput) {
      const { result, ...aftermath } = await produce.createChat(db, producing, initiator, input)
      await publish(result.chat.id, aftermath)
      return result
    },
    send: (initiator: produce.Initiator, input: produce.SendInput) =>
      publishing(input.chatId, produce.sendMessage(db, producing, initiator, input)),
    edit: (initiator: produce.Initiator, input: produce.EditInput) =>
      publishing(input.chatId, produce.editMessage(db, producing, initiator, input)),
    retry: (initiator: produce.Initiator, chatId: string) =>
      publishing(chatId, retryChat(db, { ...initiator, slots }, chatId)),
    /** Sums the history up in a turn of its own. */
    compactHistory: (initiator: produce.Initiator, chatId: string) =>
      publishing(chatId, compactChat(db, { ...initiator, limits: producing }, chatId)),
    clear: (initiator: produce.Initiator, chatId: string) =>
      publishing(chatId, manage.clearChat(db, slots, initiator, chatId)),
    async interrupt(initiator: produce.Initiator, chatId: string) {
      await publishing(chatId, interruptChat(db, slots, { chatId, userId: initiator.userId }))
      return read.readChat(db, chatId, initiator.userId)
    },
    submitToolResults: (
      initiator: produce.Initiator,
      chatId: string,
      answers: readonly toolResults.ToolAnswer[],
    ) =>
      publishing(
        chatId,
        toolResults.submitToolResults(db, slots, { chatId, userId: initiator.userId }, answers),
      ),
    async requestTitle(initiator: produce.Initiator, chatId: string) {
      const { run, runs } = await titles.requestTitle(db, initiator, chatId)
      await onRuns(runs)
      return run
    },
    async change(initiator: produce.Initiator, chatId: string, change: manage.ChatChange) {
      const { result, changed } = await manage.changeChat(db, { chatId, userId: initiator.userId }, change)
      for (const id of [chatId, ...changed]) onChanged(id)
      return result
    },
    /** Gives until when the chat's model calls are recorded. */
    async debug(initiator: produce.Initiator, chatId: string, minutes: number): Promise<string | null> {
      const until = await debugChat(db, { chatId, userId: initiator.userId }, minutes)
      onChanged(chatId)
      return until
    },
    delete: (initiator: produce.Initiator, chatId: string) =>
      publishing(chatId, manage.deleteChat(db, slots, { chatId, userId: initiator.userId })),

    async changeQueued(initiator: produce.Initiator, change: queue.QueuedChange) {
      const changed = await queue.changeQueued(db, initiator, change)
      onChanged(change.chatId)
      return changed
    },
    async deleteQueued(initiator: produce.Initiator, target: queue.QueuedTarget) {
      await queue.deleteQueued(db, initiator.userId, target)
      onChanged(target.chatId)
    },
    async promoteQueued(initiator: produce.Initiator, target: queue.QueuedTarget) {
      const promoter = { userId: initiator.userId, slots }
      await publishing(target.chatId, queue.promoteQueued(db, promoter, target))
      return read.readChat(db, target.chatId, initiator.userId)
    },

    async claim(request: work.ClaimRequest): Promise<work.Claim | work.Unclaimed> {
      const claim = await work.claimTurn(db, leaseMs, request)
      if (typeof claim === 'string') return claim
      onChanged(claim.chatId)
      if (options.auxiliary.labels && wantsLabel(claim)) void label(claim)
      return claim
    },
    /** Whether an operator's retry of this job made its failed turn pending again. */
    async reopen(request: work.ClaimRequest): Promise<boolean> {
      const reopened = await reopenFailedTurn(db, slots, request)
      if (reopened === null) return false
      onChanged(reopened.chatId)
      await onAdmitted(reopened.admitted)
      return true
    },
    renew: (held: readonly Pick<work.Claim, 'turnId' | 'epoch'>[]) => work.renewLeases(db, leaseMs, held),
    context: (chatId: string) => work.readContext(db, chatId),
    isInterrupting: (claim: work.Claim) => commit.isInterrupting(db, claim),
    async commitStep(claim: work.Claim, result: commit.StepResult) {
      await counting('commitStep', commit.commitStep(hold(claim), result))
      onChanged(claim.chatId)
    },
    async commitResults(claim: work.Claim, step: number, results: readonly commit.CallResult[]) {
      await counting('commitResults', commit.commitResults(hold(claim), step, results))
      onChanged(claim.chatId)
    },
    openCalls: (claim: work.Claim) => commit.readOpenCalls(db, claim.turnId),
    callsOf: (claim: work.Claim, toolName: string) => commit.readCallsOf(db, claim.turnId, toolName),
    startCalls: (claim: work.Claim, callIds: readonly string[]) =>
      counting('startCalls', commit.startCalls(hold(claim), callIds)),
    keepResults: (claim: work.Claim, results: readonly commit.CallResult[]) =>
      counting('keepResults', commit.keepResults(hold(claim), results)),
    async compact(claim: work.Claim, compaction: commit.Compaction) {
      await counting('compact', commit.compact(hold(claim), compaction))
      onChanged(claim.chatId)
    },
    addSpent: (claim: work.Claim, spent: commit.Spent) =>
      counting('keepResults', commit.addSpent(hold(claim), spent)),
    finishWithoutAnswer: (claim: work.Claim) =>
      publishWork(claim, 'finish', commit.finishWithoutAnswer(hold(claim))),
    familySpent: (claim: work.Claim) => work.readFamilySpent(db, claim.rootChatId),
    spawn: (claim: work.Claim, input: subagents.SpawnInput) =>
      publishing(claim.chatId, counting('spawn', subagents.spawnSubagent(hold(claim), limits, input))),
    subagents: (claim: work.Claim) => subagents.listSubagents(db, claim.chatId),
    /** Sends on under the parent turn's key. @throws {TurnmillError} `not_found` where it is no child of the turn's chat. */
    async messageSubagent(claim: work.Claim, childId: string, parts: MessagePart[]) {
      const { modelConfigId } = await subagents.demandChild(db, claim.chatId, childId)
      const sent: produce.SendInput = {
        chatId: childId,
        parts,
        modelConfigId,
        reasoningEffort: null,
        whenBusy: 'queue',
      }
      return publishing(childId, produce.sendMessage(db, producing, initiatorOf(claim), sent))
    },
    /** @throws {TurnmillError} `not_found` where it is no child of the turn's chat. */
    async interruptSubagent(claim: work.Claim, childId: string) {
      await subagents.demandChild(db, claim.chatId, childId)
      await publishing(childId, interruptSubagent(db, slots, { chatId: childId, userId: claim.userId }))
    },
    requireAction: (claim: work.Claim, calls: readonly commit.AwaitedCall[], deadlineMs: number) =>
      publishWork(claim, 'requireAction', commit.requireAction(hold(claim), calls, deadlineMs)),
    /** Whether the turn waits; it runs on where no child is at work. */
    async wait(claim: work.Claim, childIds: readonly string[], deadlineMs: number): Promise<boolean> {
      const waits = commit.waitForChildren(hold(claim), childIds, deadlineMs)
      const aftermath = await counting('wait', waits)
      if (aftermath !== null) await publish(claim.chatId, aftermath)
      return aftermath !== null
    },
    async noteRetry(claim: work.Claim, retry: RetryState, spent: commit.Spent) {
      await counting('backoff', commit.noteRetry(hold(claim), retry, spent))
      onChanged(claim.chatId)
    },
    backoff: (claim: work.Claim, wait: commit.Backoff) =>
      publishWork(claim, 'backoff', commit.backOff(hold(claim), wait)),
    finish: (claim: work.Claim, result: commit.StepResult) =>
      publishWork(claim, 'finish', commit.finishTurn(hold(claim), result, options.auxiliary.titles)),
    finishInterrupted: (claim: work.Claim, partial: commit.StepResult | null, spent: commit.Spent) =>
      publishWork(claim, 'finishInterrupt', commit.finishInterruptedTurn(hold(claim), partial, spent)),
    fail: (claim: work.Claim, error: TurnmillError, spent: commit.Spent) =>
      publishWork(claim, 'fail', commit.failTurn(hold(claim), error, spent)),
    release: (claim: work.Claim, spent: commit.Spent) =>
      publishWork(claim, 'release', commit.releaseTurn(hold(claim), spent)),

    get: (chatId: string, userId: string) => read.readChat(db, chatId, userId),
    list: (userId: string, page: read.ChatsRequest) => read.listChats(db, userId, page),
    messages: (chatId: string, page: read.PageRequest) => read.listMessages(db, chatId, page),
    turns: (chatId: string, page: read.PageRequest) => read.listTurns(db, chatId, page),
    queue: (chatId: string) => read.listQueue(db, chatId),
    changes: (chatId: string, userId: string | null, since: number) =>
      watch.readChanges(db, chatId, userId, since),
    isRewritten: (chatId: string, since: number) => watch.isRewritten(db, chatId, since),
    versions: (chatIds: readonly string[]) => watch.readVersions(db, chatIds),

    counts: () => recover.countTurns(db),
    oldestWaitMs: () => recover.readOldestWaitMs(db),
    admitWaiting: (limit: number) => recover.admitWaitingTurns(db, slots, limit),
    suspects: (options: Parameters<typeof recover.findSuspects>[1]) => recover.findSuspects(db, options),
    pruneQueue: (limit: number) => recover.pruneQueue(db, limit),
    renewJobs: (lost: readonly recover.Suspect[]) => recover.renewJobs(db, lost),
    /** Query 5: queues that wait behind nothing. Gives their number: each is a bug of ours. */
    async repairQueues(limit: number): Promise<number> {
      const stuck = await recover.findStuckQueues(db, limit)
      for (const chatId of stuck) {
        await onAdmitted(await recover.promoteStuck(db, slots, chatId))
        onChanged(chatId)
      }
      return stuck.length
    },
    /** Query 4: what waited long enough goes on. Gives the number of turns; one that cannot go on keeps no other. */
    async expireWaits(limit: number, onError: (error: unknown) => void): Promise<number> {
      const [overdue, rested] = [
        await toolResults.findOverdueActions(db, limit),
        await subagents.findRestedParents(db, limit),
      ]
      for (const { turn_id: turnId, chat_id: chatId } of overdue)
        await toolResults
          .expireAction(db, slots, { turnId, chatId })
          .then((aftermath) => (aftermath === null ? undefined : publish(chatId, aftermath)))
          .catch(onError)
      for (const chatId of rested) await onChildRested(chatId)
      return overdue.length + rested.length
    },
  }
}

export type { AdmittedTurn, Pool, PoolSlots } from './admission.ts'
export {
  isWanted,
  nameChat,
  runJobId,
  toPendingRun,
  type PendingRun,
  type PendingRunRow,
} from './auxiliary.ts'
export { lockChatOf } from './commit-statements.ts'
export type { AwaitedCall, Backoff, CallResult, Compaction, OpenCall, Spent, StepResult } from './commit.ts'
export type { ChatChange } from './manage.ts'
export {
  CHAT_COMMANDS,
  CHAT_MOVES,
  EFFECTS,
  findMove,
  type ChatCell,
  type ChatCommand,
  type ChatMove,
  type Effect,
} from './moves.ts'
export type {
  CreateInput,
  EditInput,
  Initiator,
  MessageInput,
  ProducerLimits,
  SendInput,
  Started,
} from './produce.ts'
export type { ChatsRequest, Page, PageRequest } from './read.ts'
export type { Suspect, SuspectCursor } from './recover.ts'
export {
  chatAfter,
  isBusy,
  TURN_MOVES,
  TURN_TRANSITION_MEANINGS,
  TURN_TRANSITIONS,
  type TurnTransition,
} from './states.ts'
export type { SpawnInput, Subagent } from './subagents.ts'
export type { ToolAnswer } from './tool-results.ts'
export type {
  Claim,
  ClaimRequest,
  ContextMessage,
  FamilySpent,
  KeyState,
  RenewedLease,
  Unclaimed,
} from './work.ts'
export { keyState } from './work-statements.ts'
