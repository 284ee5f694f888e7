import { spawn } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import path from 'node:path'
import { createInterface } from 'node:readline'

/** A process of the product, started as in production. */
export interface Process {
  pid: number
  /** Resolves with the first log line of this message and these fields. */
  said(message: string, fields?: Record<string, unknown>): Promise<Record<string, unknown>>
  stop(signal?: NodeJS.Signals): Promise<number | null>
}

/** Compiled code of the processes, which is half of what it takes to start one. Keyed by content, so it is never stale. */
export const COMPILE_CACHE = path.resolve(import.meta.dirname, '../../node_modules/.cache/processes')

type Line = Record<string, unknown>

/** One process of a fleet, started as in production: from its entry file, with an environment. */
export function startProcess(entry: string, environment: Record<string, string>): Process {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', path.resolve(entry)], {
    env: {
      PATH: process.env['PATH'] ?? '',
      NODE_COMPILE_CACHE: COMPILE_CACHE,
      ...environment,
      LOG_LEVEL: 'debug',
    },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const lines: Line[] = []
  const news = new EventEmitter().setMaxListeners(0)
  const exited = once(child, 'exit').then(([code]) => code as number | null)
  createInterface({ input: child.stderr as NodeJS.ReadableStream }).on('line', (text) => {
    lines.push(parseLine(text))
    news.emit('line')
  })

  async function said(message: string, fields: Line = {}): Promise<Line> {
    for (;;) {
      const found = lines.find(
        (line) =>
          line['msg'] === message && Object.entries(fields).every(([name, value]) => line[name] === value),
      )
      if (found !== undefined) return found
      const outcome = await Promise.race([once(news, 'line').then(() => 'line'), exited])
      if (outcome !== 'line')
        throw new Error(
          `${entry} exited with ${outcome} before it said "${message}": ${JSON.stringify(lines.slice(-5))}`,
        )
    }
  }

  return {
    pid: child.pid ?? 0,
    said,
    stop: (signal = 'SIGTERM') => {
      child.kill(signal)
      return exited
    },
  }
}

const parseLine = (text: string): Record<string, unknown> => {
  try {
    return JSON.parse(text) as Record<string, unknown>
  } catch {
    return { msg: text }
  }
}
