import { setTimeout as sleep } from 'node:timers/promises'
import { startDeadline } from '../protocol/deadline.ts'
import { ComputerFailure } from './driver.ts'

/**
 * Waits for `work` no longer than until the signal is aborted. The work itself is abandoned: whoever started it ends it.
 *
 * @throws what the signal was aborted with.
 */
export async function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  const onAbort = (): void => reject(signal.reason as Error)
  if (signal.aborted) onAbort()
  signal.addEventListener('abort', onAbort)
  try {
    return await Promise.race([aborted, work])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

export interface Patience {
  ms: number
  signal: AbortSignal
  /** Said if it runs out, such as `the page did not react within 10 s`. */
  otherwise: string
}

/** The same, and for `ms` at most. @throws {ComputerFailure} after that. */
export async function within<T>(work: Promise<T>, { ms, signal, otherwise }: Patience): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => reject(new ComputerFailure(otherwise)), ms)
  try {
    return await untilAborted(Promise.race([late, work]), signal)
  } finally {
    clearTimeout(timer)
  }
}

/** Whether `work` ended, well or not, within `ms` in which this process ran. */
export async function endsWithin(work: Promise<unknown>, ms: number): Promise<boolean> {
  const { promise: late, resolve } = Promise.withResolvers<boolean>()
  const deadline = startDeadline(ms, () => resolve(false))
  const ended = work.then(
    () => true,
    () => true,
  )
  try {
    return await Promise.race([ended, late])
  } finally {
    deadline.clear()
  }
}

/** Does nothing for `ms`. @throws what the signal was aborted with. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => signal.throwIfAborted())
}
