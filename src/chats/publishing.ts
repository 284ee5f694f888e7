import type { Database } from '../db/index.ts'
import { isTurnmillError, type TurnmillError } from '../protocol/errors.ts'
import type { AdmittedTurn, PoolSlots } from './admission.ts'
import type { PendingRun } from './auxiliary.ts'
import type { Aftermath, Committed } from './effects.ts'
import type { TurnTransition } from './states.ts'
import * as subagents from './subagents.ts'
import type { Claim } from './work.ts'

/** Who is told of what, after a commit and never before it. */
export interface Listeners {
  /** Called after a commit with auxiliary runs: each is to be enqueued under its job id. Must not throw. */
  onRuns(runs: readonly PendingRun[]): Promise<void>
  /** Called after a commit with the turns that got a slot: each is to be enqueued under its job id. Must not throw. */
  onAdmitted(turns: readonly AdmittedTurn[]): Promise<void>
  /** Called after a commit that watchers of the chat may see. Must not throw. */
  onChanged(chatId: string): void
  /** Called after a commit that tells the worker of a turn to look at its row. Must not throw. */
  onStop(turnId: string): void
  /** Called when a worker's write was refused, since it had lost the turn. Must not throw. */
  onFenced(transition: TurnTransition): void
}

/** Tells of commits. A crash in between costs nothing but time: the reconciler looks. */
export type Publishing = ReturnType<typeof createPublishing>

/** @param onChildRested called with the parent of a chat that has come to rest. */
export function createPublishing(
  { onAdmitted, onRuns, onChanged, onStop, onFenced }: Listeners,
  onChildRested: (parentId: string) => Promise<void>,
) {
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
    claim: Claim,
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

  return { publish, publishing, publishWork, counting }
}

/**
 * Lets a parent go on that waited for a child alone. A transaction of its own, after the child's: locks never go upward.
 * What is lost here the reconciler finds.
 */
export async function resumeParent(
  { db, slots, onChanged, onAdmitted }: Listeners & { db: Database; slots: PoolSlots },
  chatId: string,
): Promise<void> {
  try {
    const { resumed, admitted } = await subagents.resumeWaitingParent(db, slots, chatId)
    if (resumed) onChanged(chatId)
    await onAdmitted(admitted)
  } catch {
    // The child's change is committed, and its caller is not to hear of this.
  }
}
