export interface Deadline {
  /** Begins anew, from now. */
  restart(): void
  clear(): void
}

/** A timer that fires later than this was held up: the process was frozen, or had no time, in ms. */
const LATE_MS = 50

/**
 * Calls back once `ms` have passed, unless it is restarted or cleared.
 *
 * A process that was frozen or busy finds its timers due before it has looked at its sockets, and may have asked nobody
 * meanwhile. So the time that it was late by is waited once more, and what has arrived by then is read first: it may
 * still restart or clear the deadline.
 */
export function startDeadline(ms: number, onPassed: () => void): Deadline {
  let timer: NodeJS.Timeout | undefined
  let judging: NodeJS.Immediate | undefined
  const judge = (): void => void (judging = setImmediate(onPassed))
  const clear = (): void => {
    clearTimeout(timer)
    clearImmediate(judging)
  }
  const restart = (): void => {
    clear()
    const dueAt = performance.now() + ms
    timer = setTimeout(() => {
      const lateMs = performance.now() - dueAt
      if (lateMs < LATE_MS) judge()
      else timer = setTimeout(judge, Math.min(lateMs, ms))
    }, ms)
  }
  restart()
  return { restart, clear }
}
