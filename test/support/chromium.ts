import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

const DEBIANS = '/usr/bin/chromium'

/** The Chromium of the tests: `TURNMILL_CHROMIUM_PATH`, or Debian's. */
export function chromiumPath(): string {
  const path = process.env['TURNMILL_CHROMIUM_PATH'] ?? DEBIANS
  if (!existsSync(path))
    throw new Error(
      `there is no Chromium at ${path}: install it (apt-get install --no-install-recommends chromium), or name one in TURNMILL_CHROMIUM_PATH`,
    )
  return path
}

/** The process IDs of the Chromiums that a process has started, this one by default; without the processes of their own. */
export function chromiumsOf(parent = process.pid): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => parentOf(pid) === parent && isChromium(pid))
}

/** Whether there is such a process that has not ended. */
export const isAlive = (pid: number): boolean => parentOf(pid) !== null

/** `null` where it has ended. The name, in parentheses, may hold anything. */
function parentOf(pid: number): number | null {
  const [state, parent] =
    read(pid, 'stat')
      ?.replace(/^.*\) /s, '')
      .split(' ') ?? []
  return state === undefined || state === 'Z' ? null : Number(parent)
}

const isChromium = (pid: number): boolean => read(pid, 'cmdline')?.includes('--remote-debugging') === true

function read(pid: number, file: string): string | null {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8')
  } catch {
    return null
  }
}

/** Resolves once there is no such process any more. */
export async function untilGone(pid: number): Promise<void> {
  while (isAlive(pid)) await sleep(20)
}
