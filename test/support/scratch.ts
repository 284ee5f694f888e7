/** Directories for what a test run writes and throws away: in memory where there is room for it. */
import { mkdtemp } from 'node:fs/promises'
import { readFileSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

const IN_MEMORY = '/dev/shm'

/** What the databases of a run may come to, several times over. */
const ROOM_BYTES = 4 * 2 ** 30

/** A new directory; whoever asked for it removes it. A database made in memory costs a fifth less of the processor. */
export const makeScratch = (prefix: string): Promise<string> => mkdtemp(path.join(scratchRoot(), prefix))

function scratchRoot(): string {
  try {
    const { bavail, bsize } = statfsSync(IN_MEMORY)
    return bavail * bsize >= ROOM_BYTES && mayRunPrograms() ? IN_MEMORY : tmpdir()
  } catch {
    return tmpdir()
  }
}

/** Postgres is run from beside its data where it may not be read at its own place. */
function mayRunPrograms(): boolean {
  const mounts = readFileSync('/proc/mounts', 'utf8').split('\n')
  const [, , kind, options = ''] =
    mounts.map((line) => line.split(' ')).findLast(([, at]) => at === IN_MEMORY) ?? []
  return kind === 'tmpfs' && !options.split(',').includes('noexec')
}
