/**
 * Runs a server process that lives exactly as long as this one.
 *
 * A shell stands between: it starts the server and reads our end of a pipe. However we end (exit, SIGKILL, a crash),
 * the kernel closes the pipe, the shell reads end of file and signals the server. The server has a session of its own,
 * so that Ctrl-C in a terminal does not reach it before we have drained.
 */
import { spawn } from 'node:child_process'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** How much of the server's output is kept for error messages, in characters. */
const LOG_TAIL_LENGTH = 8_000

// SIGCONT goes last: a server that somebody stopped (a test freezes one) would never see the signal before it.
const GUARD_SCRIPT = `
stop_signal=$1; shift
exec 3<&0
"$@" 3<&- </dev/null &
server=$!
(read -r _ <&3; kill -s "$stop_signal" "$server"; kill -s CONT "$server") 2>/dev/null &
guard=$!
exec 3<&-
wait "$server"
status=$?
kill "$guard" 2>/dev/null
exit "$status"
`

export interface GuardedProcessOptions {
  /** Command and its arguments. */
  command: readonly string[]
  /** What asks the server to end, without `SIG`: `INT` is Postgres's fast shutdown. */
  stopSignal: 'INT' | 'TERM'
  /** The server's whole environment; nothing of ours is handed on. */
  env: Record<string, string | undefined>
  /** User and group to run as; ours when absent. */
  user?: { uid: number; gid: number }
}

export interface GuardedProcess {
  /** Resolves with the exit status once the server has ended, for whatever reason; -1 if it never started. */
  readonly exited: Promise<number>
  /** False once `exited` has resolved. */
  isRunning(): boolean
  /** The end of what the server wrote. */
  logTail(): string
  /** Asks the server to end and waits until it has; after `graceMs` milliseconds `onOverdue` is called, once. */
  stop(graceMs: number, onOverdue: () => void): Promise<void>
}

/** Starts the server. It does not keep our event loop alive: a process with nothing else to do exits, and takes it along. */
export function startGuardedProcess({
  command,
  stopSignal,
  env,
  user,
}: GuardedProcessOptions): GuardedProcess {
  const shell = spawn('/bin/sh', ['-c', GUARD_SCRIPT, 'turnmill-guard', stopSignal, ...command], {
    ...user,
    cwd: '/',
    detached: true,
    env,
    stdio: 'pipe',
  })
  let running = true
  let log = ''
  shell.stdin.on('error', () => undefined) // The shell may be gone before we are.
  for (const output of [shell.stdout, shell.stderr]) {
    output.on('data', (chunk: Buffer) => (log = (log + chunk.toString()).slice(-LOG_TAIL_LENGTH)))
  }
  const exited = new Promise<number>((resolve) => {
    shell.once('error', (error) => {
      log += error.message
      resolve(-1)
    })
    shell.once('close', (status) => resolve(status ?? -1))
  }).finally(() => (running = false))

  shell.unref()
  // Sockets at run time, which is how Node makes pipes; the types say streams.
  for (const pipe of [shell.stdin, shell.stdout, shell.stderr] as unknown as Socket[]) pipe.unref()

  return {
    exited,
    isRunning: () => running,
    logTail: () => log.trim(),
    async stop(graceMs, onOverdue) {
      shell.ref()
      shell.stdin.end()
      const overdue = new AbortController()
      const wait = sleep(graceMs, undefined, { signal: overdue.signal }).then(onOverdue, () => undefined)
      await exited
      overdue.abort()
      await wait
    },
  }
}
