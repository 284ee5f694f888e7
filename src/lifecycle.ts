import { unknownSettings } from './config/index.ts'
import { errorCode } from './db/index.ts'
import type { Logger } from './telemetry/logger.ts'

/** Something that was started: ends with it, in the reverse order of starting. */
export type Stop = () => Promise<void>

/** What a process has started so far, so that it stops in the reverse order, also when starting fails half-way. */
export class Shutdown {
  readonly #stops: Stop[] = []

  add(stop: Stop): void {
    this.#stops.push(stop)
  }

  /** Stops all; a failure of one does not spare the others. */
  async run(logger: Logger): Promise<void> {
    for (const stop of this.#stops.splice(0).reverse()) {
      try {
        await stop()
      } catch (error) {
        logger.error({ error }, 'something did not stop cleanly')
      }
    }
  }
}

/** How long a process may take beyond its drain before it exits anyway, in ms. */
const EXIT_MARGIN_MS = 4500

/**
 * Runs a process: starts, waits for SIGINT or SIGTERM, stops, exits. A second signal exits at once.
 *
 * @param start registers what it starts with `shutdown`.
 */
export async function runProcess(
  logger: Logger,
  drainMs: number,
  start: (shutdown: Shutdown) => Promise<void>,
): Promise<void> {
  const unknown = unknownSettings()
  if (unknown.length > 0)
    logger.warn({ settings: unknown }, 'settings that do not exist are ignored: is one of them misspelt?')
  const shutdown = new Shutdown()
  process.on('unhandledRejection', (error) => logger.error({ error }, 'unhandled rejection'))
  const stopping = new AbortController()
  const stop = (signal: NodeJS.Signals): void => {
    if (stopping.signal.aborted) process.exit(1)
    stopping.abort()
    logger.info({ signal }, 'stopping')
    setTimeout(() => process.exit(1), drainMs + EXIT_MARGIN_MS).unref()
    void shutdown.run(logger).then(() => process.exit(0))
  }
  process.on('SIGINT', stop).on('SIGTERM', stop)
  try {
    await start(shutdown)
  } catch (error) {
    if (stopping.signal.aborted) {
      // Most likely cut off by the signal, which ends the process.
      logger.info({ error }, 'the start was given up')
      return
    }
    await shutdown.run(logger)
    throw error
  }
}

/** A failed start in words for a person; the whole error goes to the log at `debug`. */
export function reportFailedStart(error: unknown): never {
  const message = error instanceof Error ? error.message : String(error)
  process.stderr.write(`turnmill could not start: ${message}\n`)
  process.exit(1)
}

/**
 * Listens on the port of a setting.
 *
 * @throws {Error} naming the setting, where something else listens there.
 */
export async function listenOn<T>(setting: string, listen: () => Promise<T>): Promise<T> {
  try {
    return await listen()
  } catch (error) {
    if (errorCode(error) !== 'EADDRINUSE') throw error
    const { message } = error as Error
    throw new Error(`${message}; stop what listens there, or choose another with ${setting}`, {
      cause: error,
    })
  }
}
