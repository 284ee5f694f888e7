import { pino, stdSerializers, type Logger as PinoLogger, type DestinationStream } from 'pino'

export type Logger = Pick<PinoLogger, 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'child'>

/** What may be said of an error. Causes of outside libraries hold bodies and headers, so they stay behind. */
function serializeError(error: unknown): unknown {
  if (typeof error !== 'object' || error === null) return error
  const { name, code, message, stack } = error as Error & { code?: unknown }
  const cause = (error as Error).cause
  return { name, code, message, stack, ...(cause === undefined ? {} : { cause: messageOf(cause) }) }
}

const messageOf = (error: unknown): string =>
  typeof error === 'object' && error !== null && 'message' in error ? String(error.message) : String(error)

// Found by value, wherever they stand: a serializer cannot know every field that may come to hold one.
const SECRETS: readonly RegExp[] = [
  /tm_[0-9a-f]{32}_[A-Za-z0-9_-]{20,}/g,
  /\bsk-[A-Za-z0-9_-]{8,}/g,
  /(?<=\bBearer )[^\s"\\]{8,}/gi,
  /(?<=:\/\/[^:@/\s"]*:)[^@/\s"]+(?=@)/g,
]

/** The line without anything that looks like a credential. */
export const scrubLine = (line: string): string =>
  SECRETS.reduce((scrubbed, pattern) => scrubbed.replace(pattern, '<redacted>'), line)

export interface LoggerOptions {
  level: string
  /** Stands on every line: `api`, `worker` or `all`. */
  role: string
  destination?: DestinationStream
}

/** JSON lines on standard error, so that standard output stays for people. */
export function createLogger({ level, role, destination }: LoggerOptions): Logger {
  const options = {
    level,
    base: { role },
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
    formatters: { level: (label: string) => ({ level: label }) },
    serializers: { ...stdSerializers, err: serializeError, error: serializeError },
    hooks: { streamWrite: scrubLine },
  }
  return pino(options, destination ?? process.stderr)
}
