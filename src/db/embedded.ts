/**
 * A Postgres of our own: the real server from npm, for `npm start` on one machine and for the tests.
 *
 * - **E1** It ends when this process ends, however that happens, and outlives a Ctrl-C until `stop()`.
 * - **E2** What was committed is there at the next start, also after a SIGKILL or a power loss.
 * - **E3** One server per data directory; a second start says so.
 * - **E4** It listens on 127.0.0.1 alone, on no Unix socket, behind a random password.
 */
import { mkdir, realpath } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { findFreePort } from './free-port.ts'
import { startGuardedProcess } from './guarded-process.ts'
import type { GuardedProcess } from './guarded-process.ts'
import { EmbeddedPostgresError, findPostgresBinaries, POSTGRES_ENVIRONMENT } from './postgres-binaries.ts'
import type { PostgresBinaries } from './postgres-binaries.ts'
import { ensureCluster, listClusterDirectories } from './postgres-cluster.ts'
import type { PostgresCluster } from './postgres-cluster.ts'
import { findRunningPostmaster, readPostmasterFile, removeStalePostmasterFile } from './postmaster-file.ts'

export { EmbeddedPostgresError } from './postgres-binaries.ts'

/** Crash recovery comes before the first connection, and may have a long log to replay. */
const START_TIMEOUT_MS = 120_000
/** A fast shutdown writes a checkpoint; after this long the server is told to leave that to crash recovery. */
const STOP_GRACE_MS = 30_000
/** How long a server whose owner has just been killed may need to notice, and then to shut down. */
const ORPHAN_NOTICE_MS = 1_000
const READY_POLL_MS = 20
const PORT_ATTEMPTS = 5

export interface EmbeddedPostgresOptions {
  /** Where the data lives; made if absent. A root process hands it to whoever runs the server. */
  dataDir: string
  /** Further arguments of the server, such as `['-c', 'fsync=off']`. */
  flags?: readonly string[]
  /** A free one by default. */
  port?: number
}

export interface EmbeddedPostgres {
  /** Connection URL of the superuser, for the database `postgres`. Holds the password. */
  readonly url: string
  /** Process id of the server itself. */
  readonly pid: number
  /** Resolves once the server has ended, be it by `stop()` or by itself. */
  readonly exited: Promise<void>
  /** Ends all sessions, shuts down and returns when the server is gone. Calling it again is fine. */
  stop(): Promise<void>
}

/**
 * Starts the server on `dataDir` and returns once it takes connections.
 *
 * @throws {EmbeddedPostgresError} when no binaries can be run, another server has the directory, or the start fails.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const { flags = [], port } = options
  const dataDir = await prepareDataDir(options.dataDir)
  for (const directory of await listClusterDirectories(dataDir)) await awaitVacancy(directory)

  const binaries = await findPostgresBinaries(dataDir)
  const cluster = await ensureCluster(dataDir, binaries, !flags.includes('fsync=off'))
  await removeStalePostmasterFile(cluster.dataDirectory)

  for (let attempt = 1; ; attempt++) {
    const start = { binaries, cluster, flags, port: port ?? (await findFreePort()) }
    const outcome = await startServer(start)
    if (!('failure' in outcome)) return outcome
    const retry = outcome.transient && port === undefined && attempt < PORT_ATTEMPTS
    if (!retry) throw startError(start, outcome.failure)
    await sleep(100 * attempt)
  }
}

/** Only the last directory is closed to others: whoever runs the server must pass through those above it. */
async function prepareDataDir(dataDir: string): Promise<string> {
  const directory = path.resolve(dataDir)
  await mkdir(path.dirname(directory), { recursive: true })
  await mkdir(directory, { recursive: true, mode: 0o700 })
  return realpath(directory)
}

/** Lets a server whose owner was killed finish its shutdown; refuses one that has no intention to go. */
async function awaitVacancy(dataDirectory: string): Promise<void> {
  const begin = Date.now()
  for (;;) {
    const running = await findRunningPostmaster(dataDirectory)
    if (running === undefined) return
    const patienceMs = running.status === 'stopping' ? STOP_GRACE_MS : ORPHAN_NOTICE_MS
    if (Date.now() - begin > patienceMs) throw occupiedError(dataDirectory, running.pid)
    await sleep(READY_POLL_MS)
  }
}

function occupiedError(dataDirectory: string, pid: number): EmbeddedPostgresError {
  return new EmbeddedPostgresError(
    `${dataDirectory} is in use by the Postgres of process ${pid}, expected no server there: ` +
      'stop the other Turnmill first, or set another TURNMILL_DATA_DIR',
  )
}

interface ServerStart {
  binaries: PostgresBinaries
  cluster: PostgresCluster
  flags: readonly string[]
  port: number
}

interface FailedStart {
  failure: string
  /** True if another port or a moment's patience may help. */
  transient: boolean
}

async function startServer(start: ServerStart): Promise<EmbeddedPostgres | FailedStart> {
  const { binaries, cluster, port } = start
  const server = startGuardedProcess({
    command: serverCommand(start),
    stopSignal: 'INT',
    env: POSTGRES_ENVIRONMENT,
    ...(binaries.user === undefined ? {} : { user: binaries.user }),
  })
  const url = `postgres://postgres:${cluster.password}@127.0.0.1:${port}/postgres`
  const pid = await awaitReady(server, start, url)
  if (pid !== undefined) return describeServer(server, url, pid)

  const timedOut = server.isRunning()
  await server.stop(STOP_GRACE_MS, () => void abandonStart(cluster.dataDirectory))
  const log = server.logTail()
  const failure = timedOut ? `not ready after ${START_TIMEOUT_MS} ms: ${log}` : log
  return { failure, transient: /could not bind|shared memory block .* still in use/i.test(log) }
}

function serverCommand({ binaries, cluster, flags, port }: ServerStart): readonly string[] {
  const settings = [
    'listen_addresses=127.0.0.1',
    'unix_socket_directories=',
    'timezone=UTC',
    'log_timezone=UTC',
  ]
  return binaries.command('postgres', [
    '-D',
    cluster.dataDirectory,
    '-p',
    String(port),
    ...settings.flatMap((setting) => ['-c', setting]),
    ...flags,
  ])
}

/** The server's process id once it takes connections, or `undefined` if it ended or took too long. */
async function awaitReady(
  server: GuardedProcess,
  { cluster, port }: ServerStart,
  url: string,
): Promise<number | undefined> {
  const deadline = Date.now() + START_TIMEOUT_MS
  while (server.isRunning() && Date.now() < deadline) {
    const file = await readPostmasterFile(cluster.dataDirectory)
    // The port must be the one of this start: the file of a dead server lies there until the new one writes its own.
    if (file?.port === port && (await acceptsConnections(url)) && server.isRunning()) return file.pid
    await Promise.race([sleep(READY_POLL_MS), server.exited])
  }
  return undefined
}

async function acceptsConnections(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 1_000 })
  client.on('error', () => undefined)
  try {
    await client.connect()
    return true
  } catch {
    return false
  } finally {
    await client.end().catch(() => undefined)
  }
}

function describeServer(server: GuardedProcess, url: string, pid: number): EmbeddedPostgres {
  const exited = server.exited.then(() => undefined)
  return {
    url,
    pid,
    exited,
    stop: () => server.stop(STOP_GRACE_MS, () => abandonShutdown(pid)),
  }
}

/** Postgres's immediate shutdown; the next start recovers from the log, so nothing committed is lost. */
function abandonShutdown(pid: number): void {
  try {
    process.kill(pid, 'SIGQUIT')
  } catch {
    // It has just ended by itself.
  }
}

async function abandonStart(dataDirectory: string): Promise<void> {
  const file = await readPostmasterFile(dataDirectory)
  if (file !== undefined) abandonShutdown(file.pid)
}

function startError({ cluster, port }: ServerStart, log: string): EmbeddedPostgresError {
  const occupant = /lock file .* already exists[^]*?PID (\d+)/.exec(log)?.[1]
  if (occupant !== undefined) return occupiedError(cluster.dataDirectory, Number(occupant))
  return new EmbeddedPostgresError(
    `Postgres on ${cluster.dataDirectory} did not start on port ${port}, expected it to take connections: ${log}`,
  )
}
