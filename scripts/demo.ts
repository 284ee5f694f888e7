/**
 * `npm run demo`: a chat, a queued message and an edit under two API keys, and the proof that every call to the provider
 * named the right one. Needs nothing, ignores what the environment says of databases and providers, leaves nothing behind.
 */
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { startAll, type AllInOne } from '../src/all-in-one.ts'
import { dropAmbientCredentials, loadConfig, type Config } from '../src/config/index.ts'
import type { SimulatedProvider } from '../src/development/index.ts'
import { Shutdown } from '../src/lifecycle.ts'
import { createLogger } from '../src/telemetry/logger.ts'
import { showAttribution } from './demo/attribution.ts'
import { createClient, type Client } from './demo/client.ts'
import { playChat } from './demo/story.ts'
import { terminal } from './demo/terminal.ts'

/** The whole demo takes about ten seconds; a machine that needs longer than this has a problem. */
const LIMIT_MS = 60_000
/** How long tidying up may take. */
const TIDY_MS = 15_000

/** Nothing of the environment: a demo must not find a real database, nor spend a real key's money. */
function demoConfig(dataDir: string): Config {
  dropAmbientCredentials()
  // The Postgres driver reads these by itself, also for a connection that is spelled out.
  for (const name of Object.keys(process.env).filter((known) => known.startsWith('PG')))
    Reflect.deleteProperty(process.env, name)
  return loadConfig({
    TURNMILL_DATA_DIR: dataDir,
    PORT: '0',
    LOG_LEVEL: 'error',
    TURNMILL_DRAIN_MS: '500',
    // The journal is held against what was sent, message by message.
    TURNMILL_AUTO_TITLES: 'false',
  })
}

/** Passable for others, so that a root user's Postgres, which runs as somebody else, finds its data. */
async function makeDataDir(shutdown: Shutdown): Promise<string> {
  const dataDir = await mkdtemp(path.join(tmpdir(), 'turnmill-demo-'))
  shutdown.add(() => rm(dataDir, { recursive: true, force: true }))
  await chmod(dataDir, 0o711)
  return dataDir
}

async function makeClients({ address, token }: AllInOne, signal: AbortSignal): Promise<[Client, Client]> {
  const laptop = createClient({ name: 'laptop', address, token: token.reveal(), signal })
  const made = await laptop.call<{ token: string }>('POST', '/v1/api-keys', { name: 'phone' })
  return [laptop, createClient({ name: 'phone', address, token: made.token, signal })]
}

async function playDemo(shutdown: Shutdown, signal: AbortSignal): Promise<void> {
  terminal.heading('Turnmill: a chat whose every model call names its API key')
  const dataDir = await makeDataDir(shutdown)
  const config = demoConfig(dataDir)
  const running = await startAll(config, createLogger({ level: config.logLevel, role: 'demo' }), shutdown)
  signal.throwIfAborted()
  terminal.say(`Postgres, queue, API, worker and a simulated provider run; the API is at ${running.address}`)

  const [laptop, phone] = await makeClients(running, signal)
  const sent = await playChat(laptop, phone)
  showAttribution(simulatedOf(running).requests(), sent, [laptop, phone])
}

function simulatedOf({ simulated }: AllInOne): SimulatedProvider {
  if (simulated === null) throw new Error('there is a real provider, expected the simulated one alone')
  return simulated
}

/** Aborts on the first signal; later ones wait for the tidying up, which has a limit of its own. */
function abortOnSignals(): AbortController {
  const interrupted = new AbortController()
  const interrupt = (signal: NodeJS.Signals): void => interrupted.abort(new Error(`stopped by ${signal}`))
  process.on('SIGINT', interrupt).on('SIGTERM', interrupt).on('SIGHUP', interrupt)
  process.on('unhandledRejection', (error) => interrupted.abort(error))
  return interrupted
}

async function main(): Promise<void> {
  const interrupted = abortOnSignals()
  const limit = AbortSignal.timeout(LIMIT_MS)
  const signal = AbortSignal.any([interrupted.signal, limit])
  const shutdown = new Shutdown()
  try {
    await playDemo(shutdown, signal)
  } catch (error) {
    process.exitCode = interrupted.signal.aborted ? 130 : 1
    const reason: unknown = signal.aborted ? signal.reason : error
    process.stderr.write(
      `\n\nThe demo did not end well: ${reason instanceof Error ? reason.message : String(reason)}\n`,
    )
  }
  setTimeout(() => process.exit(1), TIDY_MS).unref()
  await shutdown.run(createLogger({ level: 'error', role: 'demo' }))
  process.exit()
}

await main()
