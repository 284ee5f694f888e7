import { demand, loadConfig } from './config/index.ts'
import { openDatabase, toStartError } from './db/index.ts'
import { migrate } from './db/migrate.ts'
import { createEncryption, rotateSecrets } from './models/index.ts'

interface Command {
  summary: string
  /** The file of the process that it starts, from the root, without its ending: `src/` itself imports no worker. */
  entry?: string
  /** What a person should know before running it; `docs/cli.md` is generated from it. */
  details: string
}

/** Every command there is. */
export const COMMANDS = {
  migrate: {
    summary: 'Bring the database up to date',
    details:
      'Applies the migrations that the database lacks, prints each, and ends. Needs `DATABASE_URL` alone. Several at once take turns, and running it again changes nothing. `api`, `worker` and `start` begin with the same: run it apart to see it, or before an upgrade.',
  },
  start: {
    summary: 'Run API and worker in one process',
    entry: 'workers/main',
    details:
      'What is not configured is started or made here: without `DATABASE_URL` an embedded Postgres in `TURNMILL_DATA_DIR`, without `OPENAI_API_KEY` and `ANTHROPIC_API_KEY` a simulated provider, without secrets new ones, kept in the data directory. Both need the optional packages. Prints the address, an API key and a first request. The same as `npm start`.',
  },
  api: {
    summary: 'Run the HTTP API',
    entry: 'src/main',
    details:
      'Needs `DATABASE_URL`, `TURNMILL_API_KEY_PEPPER` and `TURNMILL_ENCRYPTION_KEYS`, and `REDIS_URL` where the queue is on Redis. `TURNMILL_BOOTSTRAP_API_KEY` becomes the first admin key. Stops on SIGINT or SIGTERM; open event streams end, and clients connect again.',
  },
  worker: {
    summary: 'Run a worker for both queues',
    entry: 'workers/all',
    details:
      'Takes turns, and titles and status labels. Needs what `api` needs, with the same values. Run as many as the load asks for. On SIGINT or SIGTERM it takes no more jobs, lets those under way end for `TURNMILL_DRAIN_MS` and gives the rest back; give it that long plus 5 seconds.',
  },
  'worker turns': {
    summary: 'Run a worker for turns alone',
    entry: 'workers/turns',
    details: 'As `worker`, where the two are to be scaled apart. Somebody has to run the other one too.',
  },
  'worker auxiliary': {
    summary: 'Run a worker for titles and labels alone',
    entry: 'workers/auxiliary',
    details:
      'As `worker`, without turns. While none runs, chats are called by the beginning of their first message.',
  },
  'keys rotate': {
    summary: 'Encrypt stored credentials anew',
    details:
      'Under the first key of `TURNMILL_ENCRYPTION_KEYS`: put a new key in front of the old one everywhere, run this, and then take the old one out. Needs `DATABASE_URL` and `TURNMILL_ENCRYPTION_KEYS`. Prints its progress, can be stopped and run again at any time, and changes nothing that is under that key already. Answers kept under an `Idempotency-Key` stay under the old one, so keep that for another 24 hours.',
  },
  help: {
    summary: 'Show the commands',
    details:
      'So does `--help` behind any command. Without a command, and for an unknown one, the exit code is 2.',
  },
  '--version': { summary: 'Show the version', details: 'That of the package: `0.1.0`, say.' },
} as const satisfies Record<string, Command>

type CommandName = keyof typeof COMMANDS

const isCommand = (name: string): name is CommandName => Object.hasOwn(COMMANDS, name)

/** What a run of the CLI touches besides the database. */
export interface CliEffects {
  version: string
  print(text: string): void
  printError(text: string): void
  /** Runs a process's file. Resolves when the process is up; it lives on until it is told to stop. */
  startProcess(entry: string): Promise<void>
}

/** Runs one command. @returns the exit code, 2 for what cannot be understood; `null` while a started process lives on. */
export async function runCli(args: readonly string[], effects: CliEffects): Promise<number | null> {
  const request = parseArguments(args)
  if (request.command === null) {
    effects.printError(`turnmill: ${request.problem}\n\n${help()}`)
    return 2
  }
  if (request.command === 'migrate') return runTool('migrate', effects, migrateDatabase)
  if (request.command === 'keys rotate') return runTool('keys rotate', effects, rotateKeys)
  if (request.command === 'help' || request.command === '--version') {
    effects.print(request.command === 'help' ? help() : effects.version)
    return 0
  }
  await effects.startProcess(COMMANDS[request.command].entry)
  return null
}

type CliRequest = { command: CommandName } | { command: null; problem: string }

const HELP_FLAGS = ['--help', '-h']

function parseArguments(given: readonly string[]): CliRequest {
  const [first, second] = given
  const isPair = isCommand(`${first} ${second}`)
  const [name, ...rest] = isPair ? [`${first} ${second}`, ...given.slice(2)] : given
  if (name === undefined) return { command: null, problem: 'no command was given' }
  if (HELP_FLAGS.includes(name)) return { command: 'help' }
  if (!isCommand(name)) return { command: null, problem: `there is no command ${name}` }
  if (rest.some((argument) => HELP_FLAGS.includes(argument))) return { command: 'help' }
  if (rest.length > 0) return { command: null, problem: `${name} takes no arguments, got ${rest.join(' ')}` }
  return { command: name }
}

/** Runs a command that ends by itself. */
async function runTool(
  name: CommandName,
  { print, printError }: CliEffects,
  work: (print: CliEffects['print']) => Promise<void>,
): Promise<number> {
  try {
    await work(print)
    return 0
  } catch (error) {
    printError(`turnmill ${name}: ${error instanceof Error ? error.message : String(error)}`)
    return 1
  }
}

async function migrateDatabase(print: CliEffects['print']): Promise<void> {
  const url = demand(loadConfig(), 'databaseUrl', 'expected the URL of the database to migrate')
  const { applied } = await migrate(url, { log: print })
  if (applied.length === 0) print('nothing to apply: the database is up to date')
}

async function rotateKeys(print: CliEffects['print']): Promise<void> {
  const config = loadConfig()
  const encryption = createEncryption(
    demand(config, 'encryptionKeys', 'expected the keys, the one to encrypt with first'),
  )
  const db = openDatabase({
    url: demand(config, 'databaseUrl', 'expected the URL of the database'),
    poolSize: 1,
    connectTimeoutMs: config.databaseConnectTimeoutMs,
    silenceMs: config.databaseSilenceMs,
    applicationName: 'turnmill keys',
  })
  try {
    const rows = await rotateSecrets(db, encryption, (count) => print(`${count} credentials`))
    const left = rows === 0 ? 'nothing to do: all credentials' : `done: all ${rows} of them`
    print(`${left} are under key ${encryption.currentKeyId}`)
  } catch (error) {
    throw toStartError(error)
  } finally {
    await db.close()
  }
}

/** The commands, one per line. */
function help(): string {
  const width = Math.max(...Object.keys(COMMANDS).map((name) => name.length))
  const lines = Object.entries(COMMANDS).map(([name, { summary }]) => `  ${name.padEnd(width)}  ${summary}`)
  return [
    'usage: turnmill <command>',
    '',
    ...lines,
    '',
    'Settings come from the environment; docs/configuration.md lists them.',
  ].join('\n')
}
