import type { Database } from '../db/index.ts'
import type { PoolSlots } from './admission.ts'
import type { Bound } from './bound.ts'
import { bindForReconciler } from './for-reconciler.ts'
import { bindForUsers } from './for-users.ts'
import { bindForWorkers } from './for-workers.ts'
import type { ProducerLimits } from './produce.ts'
import { createPublishing, resumeParent, type Listeners } from './publishing.ts'
import type { FamilyLimits } from './subagents.ts'

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
export interface ChatsOptions extends Listeners, Pick<Bound, 'db' | 'leaseMs' | 'auxiliary'> {
  limits: Omit<ProducerLimits, 'slots'> &
    FamilyLimits & { runningRootTurns: number; runningSubagentTurns: number }
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

/** The slots of the two pools, as the settings have them. */
const slotsOf = ({ limits }: Pick<ChatsOptions, 'limits'>): PoolSlots => ({
  root: limits.runningRootTurns,
  subagent: limits.runningSubagentTurns,
})

export const createChats = (options: ChatsOptions): Chats => ({
  ...bindChats(options, (chatId) => resumeParent({ ...options, slots: slotsOf(options) }, chatId)),
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
    (chatId) => hold(() => resumeParent({ ...options, slots: slotsOf(options) }, chatId)),
  )
  const tell = async (): Promise<void> => {
    for (const work of held) await work()
  }
  return { chats, tell }
}

function bindChats(options: ChatsOptions, onChildRested: Bound['onChildRested']) {
  const slots = slotsOf(options)
  const bound: Bound = {
    ...options,
    ...createPublishing(options, onChildRested),
    slots,
    limits: { ...options.limits, slots },
    onChildRested,
  }
  return { ...bindForUsers(bound), ...bindForWorkers(bound), ...bindForReconciler(bound) }
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
