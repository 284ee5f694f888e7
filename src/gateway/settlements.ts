import { setTimeout as sleep } from 'node:timers/promises'

/** The settlements under way: a process that ends waits for them, lest the reconciler charges their calls at the worst case. */
export interface Settlements {
  track(settlement: Promise<void>): void
  /** Resolves when all are done, or after `limitMs`. */
  idle(limitMs: number): Promise<void>
}

export function createSettlements(): Settlements {
  const pending = new Set<Promise<void>>()
  const all = async (): Promise<void> => {
    while (pending.size > 0) await Promise.all(pending)
  }
  return {
    track: (settlement) => {
      pending.add(settlement)
      void settlement.finally(() => pending.delete(settlement))
    },
    idle: async (limitMs) => {
      // Streams that were cut a moment ago are about to settle.
      await sleep(10)
      await Promise.race([all(), sleep(limitMs, undefined, { ref: false })])
    },
  }
}
