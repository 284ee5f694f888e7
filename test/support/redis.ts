/** Redis for tests: the one of the run, and further ones for tests that break theirs. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { findFreePort } from '../../src/db/free-port.ts'
import { startGuardedProcess } from '../../src/db/guarded-process.ts'
import type { GuardedProcess } from '../../src/db/guarded-process.ts'
import { TEST_ENVIRONMENT } from './environment.ts'

const START_TIMEOUT_MS = 10_000
const STOP_GRACE_MS = 5_000
const PORT_ATTEMPTS = 5

export interface TestRedis {
  url: string
  port: number
  /** Of redis-server itself, to freeze or to kill. */
  pid: number
  /** Stops it if it still runs. Calling it again is fine. */
  stop(): Promise<void>
}

/**
 * URL of the run's Redis, in a database number of this Jest worker's own, so that files which run at the same time do not
 * meet. Channels are common to all numbers, and so is `FLUSHALL`: a test that uses that starts its own server.
 */
export function testRedisUrl(): string {
  const url = process.env[TEST_ENVIRONMENT.redisUrl]
  if (url === undefined)
    throw new Error(`${TEST_ENVIRONMENT.redisUrl} is unset, expected Jest's global setup to set it`)
  return `${url}/${process.env.JEST_WORKER_ID ?? 0}`
}

/**
 * Starts a Redis on 127.0.0.1 that keeps nothing on disk and ends with this process.
 *
 * @param options.port a free one by default; given, a Redis can come back where another one was.
 * @param options.args further arguments of redis-server, such as `['--maxmemory', '10mb']`.
 * @throws {Error} when redis-server is not installed, or does not start.
 */
export async function startRedis(options: { port?: number; args?: string[] } = {}): Promise<TestRedis> {
  for (let attempt = 1; ; attempt++) {
    const port = options.port ?? (await findFreePort())
    const server = launch(port, options.args ?? [])
    const pid = await awaitReady(server, port)
    if (pid !== undefined) return describe(server, port, pid)
    await server.stop(STOP_GRACE_MS, () => undefined)
    if (options.port !== undefined || attempt === PORT_ATTEMPTS) throw startError(server, port)
  }
}

function launch(port: number, args: readonly string[]): GuardedProcess {
  const settings = [
    '--bind',
    '127.0.0.1',
    '--save',
    '',
    '--appendonly',
    'no',
    '--maxmemory-policy',
    'noeviction',
  ]
  const command = ['redis-server', '--port', String(port), ...settings]
  const others = ['--databases', '64', '--loglevel', 'warning']
  return startGuardedProcess({
    command: [...command, ...others, ...args],
    stopSignal: 'TERM',
    env: process.env,
  })
}

/** The server's process id once it answers, or `undefined` if it ended or took too long. */
async function awaitReady(server: GuardedProcess, port: number): Promise<number | undefined> {
  const deadline = Date.now() + START_TIMEOUT_MS
  while (server.isRunning() && Date.now() < deadline) {
    const pid = await readProcessId(port)
    if (pid !== undefined && server.isRunning()) return pid
    await Promise.race([sleep(10), server.exited])
  }
  return undefined
}

async function readProcessId(port: number): Promise<number | undefined> {
  const client = new Redis({ host: '127.0.0.1', port, lazyConnect: true, retryStrategy: () => null })
  client.on('error', () => undefined)
  try {
    await client.connect()
    return Number(/process_id:(\d+)/.exec(await client.info('server'))?.[1])
  } catch {
    return undefined
  } finally {
    client.disconnect()
  }
}

function describe(server: GuardedProcess, port: number, pid: number): TestRedis {
  const kill = (): void => {
    if (server.isRunning()) process.kill(pid, 'SIGKILL')
  }
  return { url: `redis://127.0.0.1:${port}`, port, pid, stop: () => server.stop(STOP_GRACE_MS, kill) }
}

function startError(server: GuardedProcess, port: number): Error {
  const log = server.logTail()
  if (!/redis-server: (command )?not found/.test(log)) {
    return new Error(`redis-server did not start on port ${port}, expected it to answer: ${log}`)
  }
  const remedy =
    process.env.CI === 'true'
      ? 'the CI image must bring it; .ci/run installs it with apt-get'
      : 'install it with `sudo apt-get install redis-server` (Debian, Ubuntu) or `brew install redis` (macOS)'
  return new Error(`redis-server is not on the PATH, expected it for the tests: ${remedy}`)
}
