/** How long turns waited for another worker after theirs had gone. */
import type { TurnChange } from './turn-log.ts'

/** A worker that held turns, and then did not run for a while or ever after. */
export interface Departure {
  process: string
  at: number
}

const HELD = new Set(['running', 'interrupting'])

/** Times in ms, one per turn that a departed worker held and another process claimed. */
export function recoveryTimes(
  log: ReadonlyMap<string, TurnChange[]>,
  departures: readonly Departure[],
): number[] {
  return departures.flatMap((departure) =>
    [...log.values()].flatMap((changes) => recoveryOf(changes, departure) ?? []),
  )
}

function recoveryOf(changes: readonly TurnChange[], { process, at }: Departure): number | null {
  const before = changes.findLast((change) => change.at <= at)
  if (before === undefined || !HELD.has(before.to)) return null
  const claim = changes.find((change) => change.epoch === before.epoch)
  const holder = changes.find((change) => change.epoch === before.epoch && HELD.has(change.to)) ?? claim
  if (holder?.by !== process) return null
  const next = changes.find((change) => change.at > at && change.epoch > before.epoch)
  return next === undefined ? null : next.at - at
}

/** Times in ms between the moment a stopping worker gave a turn back and its next claim. */
export function handBackTimes(
  log: ReadonlyMap<string, TurnChange[]>,
  drained: ReadonlySet<string>,
): number[] {
  return [...log.values()].flatMap((changes) =>
    changes.flatMap((change, index) => {
      if (change.from !== 'running' || change.to !== 'pending' || change.delayed || !drained.has(change.by))
        return []
      const next = changes.slice(index + 1).find(({ epoch }) => epoch > change.epoch)
      return next === undefined ? [] : [next.at - change.at]
    }),
  )
}

/** The value that a share of all is not above. `null` of nothing. */
export function quantile(values: readonly number[], share: number): number | null {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? null
}
