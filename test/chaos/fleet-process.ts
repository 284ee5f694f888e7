import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
/** Ends a process whose parent is gone. */
const LEASH = path.join(ROOT, 'bench/support/leash.ts')

export interface FleetProcessOptions {
  name: string
  /** From the root of the project. */
  entry: string
  environment: Readonly<Record<string, string>>
  /** The message of the log line that says it is ready. */
  readyMessage: string
  logDir: string
  onLine(line: LogLine): void
}

export type LogLine = Readonly<Record<string, unknown>>

/** One process of the fleet, started as in production: from its entry file, with an environment. */
export interface FleetProcess {
  readonly name: string
  readonly pid: number
  /** Rejects where it ends before it is ready. */
  readonly ready: Promise<LogLine>
  /** Resolves with its exit code, `null` after a signal. */
  readonly exited: Promise<number | null>
  isRunning(): boolean
  signal(name: NodeJS.Signals): void
  /** The last lines it logged. */
  tail(): readonly string[]
}

const TAIL_LINES = 12

export function startFleetProcess(options: FleetProcessOptions): FleetProcess {
  const { name, entry, environment, readyMessage } = options
  const child = spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', '--import', LEASH, path.join(ROOT, entry)],
    {
      // A session of its own: Ctrl-C reaches the storm alone, which then stops everything in order.
      detached: true,
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...environment },
    },
  )
  const tail: string[] = []
  const ready = Promise.withResolvers<LogLine>()
  ready.promise.catch(() => undefined)
  child.stdin.on('error', () => undefined)
  const log = createWriteStream(path.join(options.logDir, `${name}.log`))
  for (const output of [child.stdout, child.stderr])
    createInterface({ input: output }).on('line', (text) => {
      log.write(`${text}\n`)
      tail.push(text)
      if (tail.length > TAIL_LINES) tail.shift()
      const line = parseLine(text)
      if (line['msg'] === readyMessage) ready.resolve(line)
      options.onLine(line)
    })
  const exited = once(child, 'exit').then(([code]) => {
    ready.reject(new Error(`${name} ended before it was ready: ${tail.join('\n')}`))
    log.end()
    return code as number | null
  })
  const isRunning = (): boolean => child.exitCode === null && child.signalCode === null
  return {
    name,
    pid: child.pid ?? 0,
    ready: ready.promise,
    exited,
    isRunning,
    signal: (signalName) => void child.kill(signalName),
    tail: () => tail,
  }
}

function parseLine(text: string): LogLine {
  try {
    return JSON.parse(text) as LogLine
  } catch {
    return { level: 'text', msg: text }
  }
}
