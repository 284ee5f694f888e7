/**
 * Runs a fleet of real processes under load, breaks it in every planned way, lets it come to rest, and holds what is
 * left against what the clients were told and what the provider saw. Exits with 0 where every promise was kept.
 */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { openPostgresBackend, openRedisBackend } from '../../src/queue/index.ts'
import { talk } from './clients.ts'
import {
  environmentOf,
  newAdminToken,
  populate,
  QUEUE_PREFIX,
  scaled,
  type Population,
} from './deployment.ts'
import { gatherFacts } from './facts.ts'
import { FaultMaker, plannedKinds, planFaults } from './faults.ts'
import { startFleet, type Fleet } from './fleet.ts'
import { startFleetProcess } from './fleet-process.ts'
import { createHttpClient } from './http-client.ts'
import { createJobForger, type JobForger } from './job-forger.ts'
import { Ledger } from './ledger.ts'
import { readOptions, USAGE, UsageError, type StormOptions } from './options.ts'
import { createRandom } from './random.ts'
import { formatReport, makeReport, type StormReport } from './report.ts'
import { startStormPostgres, startStormRedis, type RedisServer, type Server } from './servers.ts'
import { installTurnLog } from './turn-log.ts'

const print = (line: string): void => void process.stdout.write(`${line}\n`)

type Stop = () => Promise<unknown>

/** Everything that was started, newest first, so that it ends in that order. */
const stops: Stop[] = []

async function stopAll(): Promise<void> {
  for (const stop of stops.splice(0).reverse()) await stop().catch((error: unknown) => print(String(error)))
}

interface World {
  options: StormOptions
  fleet: Fleet
  postgres: Server
  redis: RedisServer | null
  pool: pg.Pool
  forger: JobForger
  providerUrl: string
  population: Population
  ledger: Ledger
}

const APIS = 2
const WORKERS = 3

async function startWorld(options: StormOptions, directory: string): Promise<World> {
  const logDir = path.join(directory, 'logs')
  await mkdir(logDir)
  const postgres = await startStormPostgres(directory)
  stops.push(() => postgres.stop())
  const redis = options.backend === 'redis' ? await startStormRedis(directory) : null
  if (redis !== null) stops.push(() => redis.stop())
  const providerUrl = await startProvider(options.seed, logDir)

  const adminToken = newAdminToken()
  const addresses = { databaseUrl: postgres.url, redisUrl: redis?.url ?? null }
  const fleet = await startFleet({
    apis: APIS,
    workers: WORKERS,
    logDir,
    environment: (name) => environmentOf(name, addresses, { scale: options.scale, adminToken }),
    exitWithinMs: scaled('TURNMILL_DRAIN_MS', options.scale) + 10_000,
  })
  stops.push(() => fleet.stop())
  const pool = new pg.Pool({ connectionString: postgres.url, max: 4, application_name: 'storm' })
  pool.on('error', () => undefined)
  stops.push(() => pool.end())
  await installTurnLog(pool)
  const [api] = fleet.usable('api')
  const population = await populate(api?.address ?? '', { adminToken, providerUrl, users: options.users })
  const forger = await openForger(addresses, pool, options.seed)
  return { options, fleet, postgres, redis, pool, forger, providerUrl, population, ledger: new Ledger() }
}

async function startProvider(seed: number, logDir: string): Promise<string> {
  const provider = startFleetProcess({
    name: 'provider',
    entry: 'test/chaos/provider.ts',
    environment: { STORM_SEED: String(seed) },
    readyMessage: 'listening',
    logDir,
    onLine: () => undefined,
  })
  stops.push(() => {
    provider.signal('SIGTERM')
    return provider.exited
  })
  return `http://127.0.0.1:${String((await provider.ready)['port'])}`
}

async function openForger(
  { databaseUrl, redisUrl }: { databaseUrl: string; redisUrl: string | null },
  pool: pg.Pool,
  seed: number,
): Promise<JobForger> {
  const ignore = (): void => undefined
  const backend =
    redisUrl === null
      ? await openPostgresBackend({ url: databaseUrl, onError: ignore, poolSize: 4 })
      : await openRedisBackend(redisUrl, QUEUE_PREFIX, ignore)
  const forger = await createJobForger(backend, pool, createRandom(seed, 'forger'))
  stops.push(() => backend.close(), () => forger.close()) // prettier-ignore
  return forger
}

/** Keeps load and faults abreast, so that the faults are spread over the whole of the load. */
class Pace {
  faultsMade = 0
  /** A fault waits for requests. */
  wanted = false
  readonly #ledger: Ledger
  readonly #turns: number
  readonly #faults: number

  constructor(ledger: Ledger, turns: number, faults: number) {
    this.#ledger = ledger
    this.#turns = turns
    this.#faults = faults
  }

  get isOver(): boolean {
    return this.#ledger.acknowledged >= this.#turns && this.faultsMade >= this.#faults
  }

  /** Waits while the faults lag behind; false when all is said. */
  async mayTalk(): Promise<boolean> {
    while (!this.isOver && !this.wanted && this.#ledger.acknowledged >= this.#share(this.faultsMade + 3))
      await sleep(50)
    return !this.isOver
  }

  /** Waits while the load lags behind. */
  async mayBreak(): Promise<void> {
    while (this.#ledger.acknowledged < this.#share(this.faultsMade)) await sleep(50)
  }

  /** Of all messages, those that are due when so many faults were made. */
  #share(faults: number): number {
    return faults > this.#faults ? Infinity : (this.#turns * faults) / (this.#faults + 1)
  }
}

async function rage(world: World): Promise<FaultMaker> {
  const { options, ledger } = world
  const random = createRandom(options.seed, 'faults')
  const leaseMs = scaled('TURNMILL_LEASE_MS', options.scale)
  const plan = planFaults(plannedKinds(options), options.kills, random)
  const pace = new Pace(ledger, options.turns, plan.length)
  const onWant = (requests: boolean): void => void (pace.wanted = requests)
  const maker = new FaultMaker({ ...world, random, leaseMs, onWant })
  const progress = setInterval(() => print(progressOf(world, pace, plan.length)), 5000)
  try {
    const talkers = Array.from({ length: options.clients }, (_, index) => talk(talkerOf(world, pace, index)))
    for (const fault of plan) {
      await pace.mayBreak()
      await maker.make(fault)
      pace.faultsMade++
      await sleep(leaseMs * random.between(0.2, 1.2))
    }
    await Promise.all(talkers)
    await maker.settled()
  } finally {
    clearInterval(progress)
  }
  return maker
}

function progressOf({ ledger, fleet, options }: World, { faultsMade }: Pace, faults: number): string {
  const up = fleet.seats.filter(({ readyAt, frozen }) => readyAt !== null && !frozen).length
  return `  ${ledger.acknowledged} of ${options.turns} messages acknowledged, ${faultsMade} of ${faults} faults, ${up} of ${APIS + WORKERS} processes up`
}

function talkerOf({ options, population, fleet, ledger }: World, pace: Pace, index: number) {
  const random = createRandom(options.seed, `client ${index}`)
  const tokens = population.tokens[index % population.tokens.length] ?? []
  const clients = tokens.map((token) => createHttpClient({ fleet, ledger, random, token }))
  const { modelConfigIds } = population
  return { ledger, random, clients, modelConfigIds, mayGoOn: () => pace.mayTalk() }
}

/** Without any of it something is stuck. */
const PROGRESS_WITHIN_MS = 30_000
const LOOK_MS = 200

/** Waits until nothing is active and the queue is empty. Gives what still is where that does not come about. */
async function settle({ pool, forger, options }: World): Promise<string | null> {
  const patienceMs = PROGRESS_WITHIN_MS + 4 * scaled('TURNMILL_LEASE_MS', options.scale)
  let former = ''
  let changedAt = Date.now()
  for (;;) {
    const { rows } = await pool.query<{ state: string; count: number }>(
      `select state, count(*)::int as count from turns where finished_at is null group by state order by state`,
    )
    const jobs = await forger.openJobs()
    const now = `${rows.map(({ state, count }) => `${count} turns ${state}`).join(', ')}; ${jobs.length} jobs`
    if (rows.length === 0 && jobs.length === 0) return null
    if (now !== former) changedAt = Date.now()
    if (Date.now() - changedAt > patienceMs) return `nothing came to rest any more with ${now}`
    former = now
    await sleep(LOOK_MS)
  }
}

async function storm(options: StormOptions, directory: string): Promise<StormReport> {
  const startedAt = performance.now()
  const world = await startWorld(options, directory)
  const { record: faults } = await rage(world)
  print('  the storm is over; waiting for everything to come to rest')
  const unsettled = await settle(world)
  const facts = await gatherFacts(world.pool, world)
  const seconds = (performance.now() - startedAt) / 1000
  await stopAll()
  return makeReport({ options, seconds, facts, faults, fleet: world.fleet.log, unsettled })
}

async function main(): Promise<void> {
  if (process.argv.includes('--help')) {
    print(USAGE)
    return
  }
  const options = readOptions(process.argv.slice(2))
  const directory = await mkdtemp(path.join(tmpdir(), 'turnmill-storm-'))
  stopOnSignals(directory)
  print(`storm on ${options.backend}, seed ${options.seed}`)
  let report: StormReport | undefined
  try {
    report = await storm(options, directory)
    print(formatReport(report))
    if (options.json !== '') await writeFile(options.json, JSON.stringify(report, null, 2))
  } finally {
    await stopAll()
    if (options.keep || report?.passed !== true) print(`logs: ${directory}/logs`)
    else await rm(directory, { recursive: true, force: true })
  }
  process.exit(report.passed ? 0 : 1)
}

/** Ctrl-C stops everything; a second one leaves at once, and what was started ends by itself. */
function stopOnSignals(directory: string): void {
  let stopping = false
  const stop = (signal: NodeJS.Signals): void => {
    if (stopping) process.exit(130)
    stopping = true
    print(`\n${signal}: stopping what was started`)
    void stopAll()
      .then(() => rm(directory, { recursive: true, force: true }))
      .then(() => process.exit(130))
  }
  process.on('SIGINT', stop).on('SIGTERM', stop)
}

await main().catch((error: unknown) => {
  print(error instanceof UsageError ? `storm: ${error.message}\n${USAGE}` : String((error as Error).stack))
  process.exit(1)
})
