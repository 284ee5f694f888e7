import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { Cleanup } from './cleanup.ts'
import { withoutIds } from './without-ids.ts'

export interface NodeProcessOptions {
  /** For messages to people. */
  name: string
  /** Absolute path of the program. */
  entry: string
  env: Readonly<Record<string, string>>
  /** The message of the log line that says it is ready. */
  readyMessage: string
  /** Where its CPU profile is written when it ends. */
  profileDir?: string
}

/** A log line; the product's and those of our own programs are JSON. */
export type LogLine = Readonly<Record<string, unknown>>

export interface NodeProcess {
  name: string
  pid: number
  /** What it said when it was ready. */
  ready: LogLine
  /** Warnings and errors it logged, and whatever was no JSON, with how often each came. */
  complaints(): ReadonlyMap<string, number>
  stop(): Promise<void>
}

const LEASH = fileURLToPath(new URL('./leash.ts', import.meta.url))
const READY_TIMEOUT_MS = 30_000
const STOP_TIMEOUT_MS = 10_000

/** Starts a Node program, registers its end with `cleanup`, and returns once it is ready. */
export async function startNodeProcess(cleanup: Cleanup, options: NodeProcessOptions): Promise<NodeProcess> {
  const { name, entry, env, readyMessage } = options
  const complaints = new Map<string, number>()
  const ready = Promise.withResolvers<LogLine>()
  const child = spawn(process.execPath, [...nodeFlags(options), entry], {
    // A session of its own: Ctrl-C reaches the bench alone, which then stops everything in order.
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env },
  })
  const exited = once(child, 'exit').then(([code, signal]) => {
    ready.reject(new Error(`${name} ended (${String(signal ?? code)}): ${[...complaints.keys()].join('\n')}`))
  })
  exited.catch(() => undefined)
  for (const output of [child.stdout, child.stderr])
    createInterface({ input: output }).on('line', (line) => {
      const entryOfLog = parseLine(line)
      if (entryOfLog?.msg === readyMessage) ready.resolve(entryOfLog)
      const complaint = complaintOf(line, entryOfLog)
      if (complaint !== null) complaints.set(complaint, (complaints.get(complaint) ?? 0) + 1)
    })
  const stop = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGTERM')
    const overdue = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS)
    await exited
    clearTimeout(overdue)
  }
  cleanup.add(stop)
  const late = setTimeout(() => ready.reject(new Error(`${name} was not ready in time`)), READY_TIMEOUT_MS)
  try {
    return { name, pid: child.pid ?? 0, ready: await ready.promise, complaints: () => complaints, stop }
  } finally {
    clearTimeout(late)
  }
}

const nodeFlags = ({ name, profileDir }: NodeProcessOptions): string[] => [
  '--disable-warning=ExperimentalWarning',
  '--import',
  LEASH,
  ...(profileDir === undefined
    ? []
    : [
        '--cpu-prof',
        `--cpu-prof-dir=${profileDir}`,
        `--cpu-prof-name=${name.replaceAll(' ', '-')}.cpuprofile`,
      ]),
]

function parseLine(line: string): LogLine | null {
  try {
    const parsed = JSON.parse(line) as unknown
    return typeof parsed === 'object' && parsed !== null ? (parsed as LogLine) : null
  } catch {
    return null
  }
}

/** `null` for an ordinary line. */
function complaintOf(line: string, entry: LogLine | null): string | null {
  if (entry === null) return line.trim() === '' ? null : line.slice(0, 300)
  if (entry.level !== 'warn' && entry.level !== 'error' && entry.level !== 'fatal') return null
  const { code, message } = (entry.error ?? {}) as { code?: unknown; message?: unknown }
  const text = [entry.level, entry.msg, code, message].filter((part) => part !== undefined).join(' | ')
  return withoutIds(text)
}
