import type { Bound } from './bound.ts'
import * as recover from './recover.ts'
import * as subagents from './subagents.ts'
import * as toolResults from './tool-results.ts'

/** What finds and mends what was left lying, and what is counted of all turns. */
export function bindForReconciler({ db, slots, publish, onChildRested, onAdmitted, onChanged }: Bound) {
  return {
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
