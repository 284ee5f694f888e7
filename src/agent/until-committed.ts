import { setTimeout as sleep } from 'node:timers/promises'
import { toTurnError } from '../protocol/errors.ts'

/** Between two tries at a write while Postgres is away. */
export const RETRY_MS = 250

/**
 * Repeats a commit while Postgres is away, beyond the lease too: nobody can have taken the turn either, and what an
 * attempt has spent is known here alone. Repeating is safe: the epoch fences it.
 */
export async function untilCommitted<T>(write: () => Promise<T>, signal: AbortSignal): Promise<T> {
  for (;;) {
    try {
      return await write()
    } catch (error) {
      const problem = toTurnError(error)
      if (problem.code !== 'database_unavailable' || isLost(signal)) throw error
      await sleep(RETRY_MS)
    }
  }
}

/** Whether the turn was lost to another worker. */
export const isLost = (signal: AbortSignal): boolean =>
  signal.aborted && toTurnError(signal.reason).code === 'turn_fenced'
