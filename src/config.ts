import { Secret } from './protocol/secret.ts'
import { BUILTIN_TOOLS, type BuiltinTool } from './protocol/tools.ts'

/** One environment variable: the row that parsing, `docs/configuration.md` and `.env.example` are made from. */
export interface Setting<T> {
  name: string
  type: 'text' | 'url' | 'integer' | 'flag' | 'secret' | 'choice'
  /** As it would be written in the environment; `null` where there is none. */
  default: string | null
  unit: string | null
  sentence: string
  /** @throws {Error} with what was expected. */
  parse(text: string): T
}

type Described<T> = Omit<Setting<T>, 'type' | 'parse' | 'unit' | 'default'> & {
  default?: string
  unit?: string
}

const describe = <T>(
  type: Setting<T>['type'],
  row: Described<T>,
  parse: Setting<T>['parse'],
): Setting<T> => ({
  name: row.name,
  type,
  default: row.default ?? null,
  unit: row.unit ?? null,
  sentence: row.sentence,
  parse,
})

const text = (row: Described<string>): Setting<string> => describe('text', row, (value) => value)

/** 32 random bytes in base64. */
const secretBytes = (row: Described<Secret>): Setting<Secret> =>
  describe('secret', row, (value) => {
    if (!/^[A-Za-z0-9+/_-]+={0,2}$/.test(value) || Buffer.from(value, 'base64').length !== 32)
      throw new Error('32 bytes in base64, such as `openssl rand -base64 32` prints')
    return new Secret(value)
  })

const secret = (row: Described<Secret>): Setting<Secret> =>
  describe('secret', row, (value) => new Secret(value))

function url(row: Described<string>, ...protocols: string[]): Setting<string> {
  return describe('url', row, (value) => {
    if (!URL.canParse(value) || !protocols.includes(new URL(value).protocol))
      throw new Error(`a URL that begins with ${protocols.map((protocol) => `${protocol}//`).join(' or ')}`)
    return value
  })
}

function integer(row: Described<number>, minimum: number, maximum: number): Setting<number> {
  return describe('integer', row, (value) => {
    const number = Number(value)
    if (!/^\d+$/.test(value) || number < minimum || number > maximum)
      throw new Error(
        `a whole number from ${minimum} to ${maximum}${row.unit === undefined ? '' : ` (${row.unit})`}`,
      )
    return number
  })
}

function flag(row: Described<boolean>): Setting<boolean> {
  return describe('flag', row, (value) => {
    if (['true', '1', 'yes', 'on'].includes(value.toLowerCase())) return true
    if (['false', '0', 'no', 'off'].includes(value.toLowerCase())) return false
    throw new Error('true or false')
  })
}

function choice<T extends string>(row: Described<T>, values: readonly T[]): Setting<T> {
  return describe('choice', row, (value) => {
    const found = values.find((one) => one === value)
    if (found === undefined) throw new Error(`one of ${values.join(', ')}`)
    return found
  })
}

/** Some of these, separated by commas; `all` or `none` of them. */
function choices<T extends string>(
  row: Described<readonly T[]>,
  values: readonly T[],
): Setting<readonly T[]> {
  return describe('text', row, (value) => {
    if (value === 'all') return values
    if (value === 'none') return []
    const names = value.split(',').map((name) => name.trim())
    const found = values.filter((one) => names.includes(one))
    if (found.length !== new Set(names).size)
      throw new Error(`all, none, or some of ${values.join(', ')}, separated by commas`)
    return found
  })
}

const milliseconds = (
  row: Omit<Described<number>, 'unit'>,
  minimum = 1,
  maximum = 86_400_000,
): Setting<number> => integer({ ...row, unit: 'ms' }, minimum, maximum)

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const

/** Every setting there is. Nothing else reads the environment. */
export const SETTINGS = {
  databaseUrl: url(
    {
      name: 'DATABASE_URL',
      sentence: 'Postgres, the truth. Without it an embedded one is started in the data directory.',
    },
    'postgres:',
    'postgresql:',
  ),
  redisUrl: url(
    {
      name: 'REDIS_URL',
      sentence: 'Redis, for the queue and the part log. Without it both live in Postgres.',
    },
    'redis:',
    'rediss:',
  ),
  host: text({ name: 'HOST', default: '127.0.0.1', sentence: 'The address the API listens on.' }),
  port: integer(
    { name: 'PORT', default: '3000', sentence: 'The port the API listens on; 0 takes a free one.' },
    0,
    65_535,
  ),
  metricsPort: integer(
    {
      name: 'TURNMILL_METRICS_PORT',
      sentence: 'The port on which a worker process serves /metrics and /healthz; none where it is not set.',
    },
    0,
    65_535,
  ),
  logLevel: choice(
    { name: 'LOG_LEVEL', default: 'info', sentence: 'The least severe level that is logged.' },
    LOG_LEVELS,
  ),
  openaiApiKey: secret({
    name: 'OPENAI_API_KEY',
    sentence:
      'Read by `npm start` only, to seed the provider `openai`; workers drop it from their environment.',
  }),
  anthropicApiKey: secret({
    name: 'ANTHROPIC_API_KEY',
    sentence:
      'Read by `npm start` only, to seed the provider `anthropic`; workers drop it from their environment.',
  }),
  openaiModel: text({
    name: 'TURNMILL_OPENAI_MODEL',
    default: 'gpt-5.4-mini',
    sentence: 'The model that `npm start` seeds with `OPENAI_API_KEY`.',
  }),
  anthropicModel: text({
    name: 'TURNMILL_ANTHROPIC_MODEL',
    default: 'claude-sonnet-5-5',
    sentence: 'The model that `npm start` seeds with `ANTHROPIC_API_KEY`.',
  }),

  dataDir: text({
    name: 'TURNMILL_DATA_DIR',
    default: '.turnmill',
    sentence: 'Where `npm start` keeps the embedded Postgres and the secrets it made.',
  }),
  bootstrapApiKey: secret({
    name: 'TURNMILL_BOOTSTRAP_API_KEY',
    sentence: 'The first admin key, `tm_<id>_<secret>`. Made and printed by `npm start` where it is not set.',
  }),
  apiKeyPepper: secretBytes({
    name: 'TURNMILL_API_KEY_PEPPER',
    sentence:
      'The key under which API keys are hashed, 32 random bytes in base64. Changing it invalidates every API key.',
  }),
  encryptionKeys: secret({
    name: 'TURNMILL_ENCRYPTION_KEYS',
    sentence:
      'Encrypts provider credentials: `<id>:<32 bytes in base64>`, several separated by commas; the first encrypts, all decrypt.',
  }),
  gatewayRouting: flag({
    name: 'TURNMILL_CHAT_AI_GATEWAY_ROUTING_ENABLED',
    default: 'true',
    sentence:
      'Whether model calls go through the AI gateway, which demands a key ID, or straight to the provider.',
  }),

  allowPrivateProviders: flag({
    name: 'TURNMILL_ALLOW_PRIVATE_PROVIDERS',
    sentence:
      'Whether providers may be reached without https and at private, loopback and link-local addresses: for upstreams of your own. Off unless API and worker run in one process (`turnmill start`).',
  }),

  bullBoard: flag({
    name: 'TURNMILL_BULL_BOARD_ENABLED',
    default: 'false',
    sentence:
      'Whether the API shows admins the queue at `/admin/queues` (Bull Board), and lets them retry failed jobs.',
  }),

  workerConcurrency: integer(
    {
      name: 'TURNMILL_WORKER_CONCURRENCY',
      default: '100',
      unit: 'turns',
      sentence: 'Turns that one worker process runs at once.',
    },
    1,
    10_000,
  ),
  auxiliaryConcurrency: integer(
    {
      name: 'TURNMILL_AUXILIARY_CONCURRENCY',
      default: '20',
      unit: 'runs',
      sentence: 'Titles and status labels that one worker process asks for at once.',
    },
    1,
    10_000,
  ),
  autoTitles: flag({
    name: 'TURNMILL_AUTO_TITLES',
    default: 'true',
    sentence:
      'Whether a chat that nobody has named gets a title from a model after its first answer, under the key of that turn. Read by workers.',
  }),
  statusLabels: flag({
    name: 'TURNMILL_STATUS_LABELS',
    default: 'false',
    sentence:
      'Whether a model is asked for a few words on what each turn is doing, under the key of that turn: one more model call per turn. Read by workers.',
  }),
  databasePoolSize: integer(
    {
      name: 'TURNMILL_DATABASE_POOL_SIZE',
      default: '20',
      unit: 'connections',
      sentence: 'Connections to Postgres per process.',
    },
    2,
    1000,
  ),
  databaseSilenceMs: milliseconds({
    name: 'TURNMILL_DATABASE_SILENCE_MS',
    default: '700',
    sentence:
      'Longest time in which Postgres may answer nothing, not even a ping, before its connections are cut and what waits on them is answered with 503.',
  }),
  databaseConnectTimeoutMs: milliseconds({
    name: 'TURNMILL_DATABASE_CONNECT_TIMEOUT_MS',
    default: '3000',
    sentence: 'Longest wait for a database connection before a request is answered with 503.',
  }),
  queuePrefix: text({
    name: 'TURNMILL_QUEUE_PREFIX',
    default: 'turnmill',
    sentence: 'Begins every key in Redis, so that deployments can share one.',
  }),

  queueLimit: integer(
    {
      name: 'TURNMILL_QUEUE_LIMIT',
      default: '20',
      unit: 'messages',
      sentence: 'Messages queued per chat at most.',
    },
    1,
    10_000,
  ),
  runningRootTurns: integer(
    {
      name: 'TURNMILL_RUNNING_ROOT_TURNS',
      default: '5',
      unit: 'turns',
      sentence: 'Root turns of one user that run at once.',
    },
    1,
    10_000,
  ),
  runningSubagentTurns: integer(
    {
      name: 'TURNMILL_RUNNING_SUBAGENT_TURNS',
      default: '10',
      unit: 'turns',
      sentence: 'Subagent turns of one user that run at once.',
    },
    1,
    10_000,
  ),
  subagentDepth: integer(
    {
      name: 'TURNMILL_SUBAGENT_DEPTH',
      default: '2',
      unit: 'levels',
      sentence: 'How deep subagents may spawn subagents.',
    },
    0,
    20,
  ),
  subagentChildren: integer(
    {
      name: 'TURNMILL_SUBAGENT_CHILDREN',
      default: '8',
      unit: 'subagents',
      sentence: 'Subagents of one chat that are at work at once.',
    },
    0,
    1000,
  ),
  pendingTurns: integer(
    {
      name: 'TURNMILL_PENDING_TURNS',
      default: '1000',
      unit: 'turns',
      sentence: 'Pending turns of one user at most, then 429.',
    },
    1,
    1_000_000,
  ),
  shedAfterMs: milliseconds({
    name: 'TURNMILL_SHED_AFTER_MS',
    default: '60000',
    sentence:
      'No further turns are taken (503) while the oldest that may run has waited this long for a worker.',
  }),
  messageBodyBytes: integer(
    {
      name: 'TURNMILL_MESSAGE_BODY_BYTES',
      default: '1048576',
      unit: 'bytes',
      sentence: 'The largest request body.',
    },
    1024,
    64 * 1024 * 1024,
  ),

  filesPerUserBytes: integer(
    {
      name: 'TURNMILL_FILES_PER_USER_BYTES',
      default: '1073741824',
      unit: 'bytes',
      sentence: 'What the files of one user may take together; no further ones are kept beyond it.',
    },
    0,
    2 ** 50,
  ),
  debugRetentionHours: integer(
    {
      name: 'TURNMILL_DEBUG_RETENTION_HOURS',
      default: '24',
      unit: 'hours',
      sentence: 'How long recorded model calls are kept.',
    },
    1,
    720,
  ),

  leaseMs: milliseconds({
    name: 'TURNMILL_LEASE_MS',
    default: '10000',
    sentence: 'How long a worker holds a turn without renewing.',
  }),
  leaseRenewalMs: milliseconds({
    name: 'TURNMILL_LEASE_RENEWAL_MS',
    default: '3000',
    sentence: 'How often a worker renews its leases; well below the lease.',
  }),
  lockMs: milliseconds({
    name: 'TURNMILL_LOCK_MS',
    default: '10000',
    sentence: "BullMQ's lock on a running job.",
  }),
  stalledCheckMs: milliseconds({
    name: 'TURNMILL_STALLED_CHECK_MS',
    default: '5000',
    sentence: 'How often BullMQ looks for jobs whose lock ran out.',
  }),
  maxTakeovers: integer(
    {
      name: 'TURNMILL_MAX_TAKEOVERS',
      default: '10',
      unit: 'takeovers',
      sentence: 'Takeovers of a turn without a committed step before it fails as `worker_lost`.',
    },
    1,
    1000,
  ),
  reconcilerPeriodMs: milliseconds({
    name: 'TURNMILL_RECONCILER_PERIOD_MS',
    default: '2000',
    sentence: 'How often each process looks for work that the queue has lost.',
  }),
  lostAfterMs: milliseconds({
    name: 'TURNMILL_LOST_AFTER_MS',
    default: '5000',
    sentence: 'How old an enqueueing must be before the reconciler asks the queue for its job.',
  }),
  recordRetentionDays: integer(
    {
      name: 'TURNMILL_RECORD_RETENTION_DAYS',
      default: '90',
      unit: 'days',
      sentence:
        'How long the gateway keeps the record of a call: what it used and cost, and which tools it asked for.',
    },
    1,
    36_500,
  ),
  promptRetentionDays: integer(
    {
      name: 'TURNMILL_PROMPT_RETENTION_DAYS',
      default: '30',
      unit: 'days',
      sentence:
        'How long the gateway keeps what the user said last before a call; no longer than the record.',
    },
    1,
    36_500,
  ),
  drainMs: milliseconds({
    name: 'TURNMILL_DRAIN_MS',
    default: '20000',
    sentence: 'How long a stopping worker lets its turns end before it gives them back.',
  }),

  turnSteps: integer(
    {
      name: 'TURNMILL_TURN_STEPS',
      default: '100',
      unit: 'steps',
      sentence: 'Model calls that one turn may make; the last of them is offered no tools.',
    },
    1,
    10_000,
  ),
  turnRunningMs: milliseconds({
    name: 'TURNMILL_TURN_RUNNING_MS',
    default: '1800000',
    sentence: 'How long one turn may run. Waiting for a client, for subagents or for a slot is not running.',
  }),
  familySteps: integer(
    {
      name: 'TURNMILL_FAMILY_STEPS',
      default: '500',
      unit: 'steps',
      sentence: 'Model calls that a turn and all its subagents may make together.',
    },
    1,
    1_000_000,
  ),
  familyCostMicros: integer(
    {
      name: 'TURNMILL_FAMILY_COST_MICROS',
      unit: 'micro-dollars',
      sentence:
        'What a turn and all its subagents may cost together before they take no further step; any amount where it is not set.',
    },
    0,
    Number.MAX_SAFE_INTEGER,
  ),
  subagents: flag({
    name: 'TURNMILL_SUBAGENTS_ENABLED',
    default: 'true',
    sentence: 'Whether models are offered the tools that spawn subagents.',
  }),
  advisorUses: integer(
    {
      name: 'TURNMILL_ADVISOR_USES',
      default: '3',
      unit: 'calls',
      sentence: 'How often one turn may ask the advisor; 0 offers none.',
    },
    0,
    1000,
  ),
  actionDeadlineMs: milliseconds({
    name: 'TURNMILL_ACTION_DEADLINE_MS',
    default: '300000',
    sentence: 'How long a turn waits for its client to answer tool calls before they are refused.',
  }),
  waitingDeadlineMs: milliseconds({
    name: 'TURNMILL_WAITING_DEADLINE_MS',
    default: '1800000',
    sentence: 'How long a turn waits for its subagents at most.',
  }),

  firstPartTimeoutMs: milliseconds({
    name: 'TURNMILL_FIRST_PART_TIMEOUT_MS',
    default: '60000',
    sentence: 'Longest wait for the first part of an answer.',
  }),
  reasoningFirstPartTimeoutMs: milliseconds({
    name: 'TURNMILL_REASONING_FIRST_PART_TIMEOUT_MS',
    default: '300000',
    sentence: 'The same for calls with reasoning.',
  }),
  silenceTimeoutMs: milliseconds({
    name: 'TURNMILL_SILENCE_TIMEOUT_MS',
    default: '60000',
    sentence: 'Longest silence between two parts of an answer.',
  }),
  attemptTimeoutMs: milliseconds({
    name: 'TURNMILL_ATTEMPT_TIMEOUT_MS',
    default: '600000',
    sentence: 'Longest model call.',
  }),
  breakerFailures: integer(
    {
      name: 'TURNMILL_BREAKER_FAILURES',
      default: '5',
      sentence:
        'Failures in a row (503, 504, no connection) after which a model of a provider is left alone for a while.',
    },
    1,
    1_000_000,
  ),
  breakerOpenMs: milliseconds({
    name: 'TURNMILL_BREAKER_OPEN_MS',
    default: '15000',
    sentence:
      'How long such a model is left alone before one call may try again; and the next one, where that one is silent.',
  }),
  retryFirstMs: milliseconds({
    name: 'TURNMILL_RETRY_FIRST_MS',
    default: '1000',
    sentence: 'Wait after the first failed attempt at a step; doubles with each further one, with jitter.',
  }),
  retryMaximumMs: milliseconds({
    name: 'TURNMILL_RETRY_MAXIMUM_MS',
    default: '60000',
    sentence: 'Longest wait between two attempts, unless the provider asks for a longer one.',
  }),
  retryAttempts: integer(
    {
      name: 'TURNMILL_RETRY_ATTEMPTS',
      default: '25',
      unit: 'attempts',
      sentence: 'Attempts at one step before the turn fails; 1 tries nothing again.',
    },
    1,
    1000,
  ),
  backoffAboveMs: milliseconds({
    name: 'TURNMILL_BACKOFF_ABOVE_MS',
    default: '10000',
    sentence: 'A longer wait than this gives the slot back until it is over.',
  }),

  toolTimeoutMs: milliseconds({
    name: 'TURNMILL_TOOL_TIMEOUT_MS',
    default: '60000',
    sentence: 'Longest call of a tool that names no time of its own.',
  }),
  toolOutputBytes: integer(
    {
      name: 'TURNMILL_TOOL_OUTPUT_BYTES',
      default: '262144',
      unit: 'bytes',
      sentence: 'The longest output of a tool that is kept and shown to the model; the rest is cut off.',
    },
    1024,
    16 * 1024 * 1024,
  ),
  builtinTools: choices<BuiltinTool>(
    {
      name: 'TURNMILL_BUILTIN_TOOLS',
      default: 'all',
      sentence: `Which of the built-in tools models are given: \`all\`, \`none\`, or some of ${BUILTIN_TOOLS.map((name) => `\`${name}\``).join(', ')}, separated by commas.`,
    },
    BUILTIN_TOOLS,
  ),
  allowPrivateWebFetch: flag({
    name: 'TURNMILL_ALLOW_PRIVATE_WEB_FETCH',
    default: 'false',
    sentence:
      'Whether the tool `web_fetch` and the browsers of agents may fetch without https and from private, loopback and link-local addresses. Where they fetch from is decided by whatever a model has read.',
  }),
  toolsModule: text({
    name: 'TURNMILL_TOOLS_MODULE',
    sentence:
      'A module whose default export is a tool, an array of tools, or a function that gives one: a path, absolute or relative to the working directory, of a .js or erasable .ts file.',
  }),
  chromiumPath: text({
    name: 'TURNMILL_CHROMIUM_PATH',
    sentence:
      'The Chromium of agents that use a computer, such as `/usr/bin/chromium`. Without it there are none.',
  }),
  chromiumSandbox: flag({
    name: 'TURNMILL_CHROMIUM_SANDBOX',
    sentence:
      'Whether Chromium runs pages in its own sandbox, which takes user namespaces: a container may refuse them. On unless the worker runs as root, for whom Chromium has none.',
  }),
  computerWidth: integer(
    {
      name: 'TURNMILL_COMPUTER_WIDTH',
      default: '1280',
      unit: 'pixels',
      sentence: 'How wide the display is that an agent uses.',
    },
    320,
    3840,
  ),
  computerHeight: integer(
    {
      name: 'TURNMILL_COMPUTER_HEIGHT',
      default: '800',
      unit: 'pixels',
      sentence: 'How high that display is.',
    },
    240,
    2160,
  ),
  computerSessions: integer(
    {
      name: 'TURNMILL_COMPUTER_SESSIONS',
      default: '4',
      unit: 'displays',
      sentence:
        'Displays that one worker process has open at once; the one unused for longest makes room for the next.',
    },
    1,
    1000,
  ),
  computerIdleMs: milliseconds({
    name: 'TURNMILL_COMPUTER_IDLE_MS',
    default: '300000',
    sentence: 'How long a display stays open that its agent does not use.',
  }),

  partFlushMs: milliseconds({
    name: 'TURNMILL_PART_FLUSH_MS',
    default: '25',
    sentence: 'How long parts are gathered before they are written to the part log.',
  }),
  partFlushBytes: integer(
    {
      name: 'TURNMILL_PART_FLUSH_BYTES',
      default: '2048',
      unit: 'bytes',
      sentence: 'How much text is gathered before parts are written to the part log.',
    },
    1,
    1_048_576,
  ),
  partLogTtlMs: milliseconds({
    name: 'TURNMILL_PART_LOG_TTL_MS',
    default: '3600000',
    sentence: 'How long the part log of a chat is kept after its last part.',
  }),
  streamHeartbeatMs: milliseconds({
    name: 'TURNMILL_STREAM_HEARTBEAT_MS',
    default: '15000',
    sentence: 'How often an idle event stream sends a comment.',
  }),
  watchPollMs: milliseconds({
    name: 'TURNMILL_WATCH_POLL_MS',
    default: '2000',
    sentence: 'How often watched chats are looked at in Postgres, should a notification be lost.',
  }),
} satisfies Record<string, Setting<unknown>>

type Parsed<S> = S extends Setting<infer T> ? T : never

/** Settings without a default that nobody has to set. */
type Optional =
  | 'databaseUrl'
  | 'redisUrl'
  | 'metricsPort'
  | 'familyCostMicros'
  | 'openaiApiKey'
  | 'anthropicApiKey'
  | 'bootstrapApiKey'
  | 'apiKeyPepper'
  | 'encryptionKeys'
  | 'allowPrivateProviders'
  | 'toolsModule'
  | 'chromiumPath'
  | 'chromiumSandbox'

export type Config = {
  readonly [K in keyof typeof SETTINGS]: K extends Optional
    ? Parsed<(typeof SETTINGS)[K]> | null
    : Parsed<(typeof SETTINGS)[K]>
}

/** Names every bad value at once, each with what was expected; never prints the value of a secret. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'

  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    super(`the environment is not usable:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`)
    this.problems = problems
  }
}

/**
 * Reads and checks the environment.
 *
 * @throws {ConfigError} naming every bad value.
 */
export function loadConfig(environment: NodeJS.ProcessEnv = process.env): Config {
  const problems: string[] = []
  const entries = Object.entries(SETTINGS).map(([key, setting]) => [
    key,
    readSetting(setting, environment, problems),
  ])
  if (problems.length > 0) throw new ConfigError(problems)
  const config = Object.fromEntries(entries) as Config
  checkTogether(config)
  return config
}

function readSetting(setting: Setting<unknown>, environment: NodeJS.ProcessEnv, problems: string[]): unknown {
  const given = environment[setting.name]
  const value = given === undefined || given === '' ? setting.default : given
  if (value === null) return null
  try {
    return setting.parse(value)
  } catch (error) {
    const shown = setting.type === 'secret' || setting.type === 'url' ? '' : ` is ${JSON.stringify(value)},`
    problems.push(`${setting.name}${shown} expected ${(error as Error).message}`)
    return null
  }
}

function checkTogether(config: Config): void {
  if (config.leaseRenewalMs * 2 > config.leaseMs)
    throw new ConfigError([
      `TURNMILL_LEASE_RENEWAL_MS is ${config.leaseRenewalMs}, expected at most half of TURNMILL_LEASE_MS (${config.leaseMs})`,
    ])
}

/** A setting that this process cannot do without. */
export function demand<K extends Optional>(config: Config, key: K, why: string): NonNullable<Config[K]> {
  const value = config[key]
  if (value === null) throw new ConfigError([`${SETTINGS[key].name} is not set, ${why}`])
  return value
}

/** The provider SDKs read these by themselves, so a worker must not have them. Returns what it removed. */
export function dropAmbientCredentials(environment: NodeJS.ProcessEnv = process.env): string[] {
  const names = Object.keys(environment).filter((name) => /^(OPENAI|ANTHROPIC)_/.test(name))
  for (const name of names) Reflect.deleteProperty(environment, name)
  return names
}
