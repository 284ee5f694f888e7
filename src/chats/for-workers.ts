import type { TurnmillError } from '../protocol/errors.ts'
import type { MessagePart } from '../protocol/messages.ts'
import type { RetryState } from '../protocol/views.ts'
import { startLabel } from './auxiliary.ts'
import type { Bound } from './bound.ts'
import * as commit from './commit.ts'
import { reopenFailedTurn } from './reopen.ts'
import * as steer from './steer.ts'
import * as subagents from './subagents.ts'
import * as work from './work.ts'

/** A root's turn, when it begins; one that only sums the history up says nothing to anybody. */
const wantsLabel = ({ epoch, parentId, trigger }: work.Claim): boolean =>
  epoch === 1 && parentId === null && trigger !== 'compact'

/** What workers do with the turns they hold: every write is fenced by the claim's epoch. */
export function bindForWorkers(bound: Bound) {
  const { db, slots, limits, leaseMs, auxiliary, publish, publishing, publishWork, counting } = bound
  const { onAdmitted, onRuns, onChanged } = bound
  const hold = (claim: work.Claim): commit.HeldTurn => ({ db, slots, claim })

  /** The turn does not wait for its label, and does without it where it cannot be asked for. */
  const label = (claim: work.Claim): Promise<void> => startLabel(db, claim).then(onRuns, () => undefined)

  return {
    async claim(request: work.ClaimRequest): Promise<work.Claim | work.Unclaimed> {
      const claim = await work.claimTurn(db, leaseMs, request)
      if (typeof claim === 'string') return claim
      onChanged(claim.chatId)
      if (auxiliary.labels && wantsLabel(claim)) void label(claim)
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
    async commitStep(claim: work.Claim, result: commit.StepResult, spendingId?: string) {
      await counting('commitStep', commit.commitStep(hold(claim), result, spendingId))
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
    familySpent: (claim: work.Claim) => work.readFamilySpent(db, claim.turnId),
    spawn: (claim: work.Claim, input: subagents.SpawnInput) =>
      publishing(claim.chatId, counting('spawn', subagents.spawnSubagent(hold(claim), limits, input))),
    subagents: (claim: work.Claim) => subagents.listSubagents(db, claim.chatId),
    messageSubagent: (claim: work.Claim, childId: string, parts: MessagePart[]) =>
      publishing(childId, counting('steer', steer.messageSubagent(hold(claim), limits, childId, parts))),
    interruptSubagent: (claim: work.Claim, childId: string) =>
      publishing(childId, counting('steer', steer.interruptSubagent(hold(claim), childId))),
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
      publishWork(claim, 'finish', commit.finishTurn(hold(claim), result, auxiliary.titles)),
    finishInterrupted: (claim: work.Claim, partial: commit.StepResult | null, spent: commit.Spent) =>
      publishWork(claim, 'finishInterrupt', commit.finishInterruptedTurn(hold(claim), partial, spent)),
    fail: (claim: work.Claim, error: TurnmillError, spent: commit.Spent) =>
      publishWork(claim, 'fail', commit.failTurn(hold(claim), error, spent)),
    release: (claim: work.Claim, spent: commit.Spent) =>
      publishWork(claim, 'release', commit.releaseTurn(hold(claim), spent)),
  }
}
