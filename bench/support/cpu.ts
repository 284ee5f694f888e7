import { readdirSync, readFileSync } from 'node:fs'

/** Linux counts CPU time in ticks of 10 ms everywhere that Node runs. */
const TICK_MS = 10

interface Times {
  parent: number
  ownMs: number
  /** Of children that have ended. */
  reapedMs: number
}

/** `null` where the process is gone, or the platform has no /proc. */
function readTimes(pid: number | string): Times | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The name in parentheses may hold anything; the state follows it.
    const fields = stat
      .slice(stat.lastIndexOf(')') + 2)
      .split(' ')
      .map(Number)
    const at = (index: number): number => fields[index] ?? 0
    return { parent: at(1), ownMs: (at(11) + at(12)) * TICK_MS, reapedMs: (at(13) + at(14)) * TICK_MS }
  } catch {
    return null
  }
}

/** CPU time of one process so far, in ms; `NaN` where it cannot be told. */
export const cpuMsOf = (pid: number): number => readTimes(pid)?.ownMs ?? NaN

/** The same of a server with a process per connection, ended ones included. */
export function cpuMsOfFamily(pid: number): number {
  const own = readTimes(pid)
  if (own === null) return NaN
  const children = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(readTimes)
    .filter((times) => times?.parent === pid)
  return children.reduce((total, times) => total + (times?.ownMs ?? 0), own.ownMs + own.reapedMs)
}
