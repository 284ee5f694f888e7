/** Reads `postmaster.pid`, by which a running Postgres marks its data directory. */
import { execFile } from 'node:child_process'
import { readFile, rm } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'

/** Lines of the file; `port` and `status` come once the server listens. Source: src/include/utils/pidfile.h of Postgres 18. */
export interface PostmasterFile {
  pid: number
  port: number | undefined
  status: 'starting' | 'stopping' | 'ready' | 'standby' | undefined
}

const STATUSES = ['starting', 'stopping', 'ready', 'standby'] as const

function pathOf(dataDirectory: string): string {
  return path.join(dataDirectory, 'postmaster.pid')
}

function parse(text: string): PostmasterFile | undefined {
  const lines = text.split('\n')
  const pid = Number(lines[0])
  if (!Number.isInteger(pid) || pid <= 0) return undefined
  const status = lines[7]?.trim()
  return { pid, port: Number(lines[3]) || undefined, status: STATUSES.find((known) => known === status) }
}

/** What the data directory's server wrote, or `undefined` if there is no file, or only half of one. */
export async function readPostmasterFile(dataDirectory: string): Promise<PostmasterFile | undefined> {
  return parse(await readFile(pathOf(dataDirectory), 'utf8').catch(() => ''))
}

/** The command line of a process, or an empty string if there is none of that id. */
async function commandLine(pid: number): Promise<string> {
  if (process.platform === 'linux') return readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
  return promisify(execFile)('ps', ['-o', 'command=', '-p', String(pid)]).then(
    ({ stdout }) => stdout,
    () => '',
  )
}

/** The server that runs on the data directory (an absolute path without symbolic links), or `undefined`. */
export async function findRunningPostmaster(dataDirectory: string): Promise<PostmasterFile | undefined> {
  const file = await readPostmasterFile(dataDirectory)
  if (file === undefined) return undefined
  return (await commandLine(file.pid)).includes(dataDirectory) ? file : undefined
}

/**
 * Removes a `postmaster.pid` whose process id now belongs to something that is no Postgres.
 *
 * After a power loss or a SIGKILL the id may have been given to another process, in a restarted container almost surely,
 * and Postgres would refuse to start over it. A file of a dead process Postgres removes by itself.
 */
export async function removeStalePostmasterFile(dataDirectory: string): Promise<void> {
  const file = await readPostmasterFile(dataDirectory)
  if (file === undefined) return
  const command = await commandLine(file.pid)
  if (command !== '' && !command.includes('postgres')) await rm(pathOf(dataDirectory), { force: true })
}
