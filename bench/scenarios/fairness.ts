import { setTimeout as sleep } from 'node:timers/promises'
import { chooseBackends, type Backend } from '../support/backends.ts'
import { nowMs } from '../support/clock.ts'
import { analyze, startPostgres, type Server } from '../support/ground.ts'
import { wholeNumber } from '../support/options.ts'
import { quantile } from '../support/statistics.ts'
import { DISTRIBUTION_HEADER, distributionCells, formatTable, shown } from '../support/table.ts'
import { reportTroubles, startTrial, type Trial } from '../support/trial.ts'
import { createChat, type BenchUser } from '../support/turnmill.ts'
import { TurnCounts, type TurnCount } from '../support/turn-counts.ts'
import type { Report, Scenario, ScenarioContext } from './scenario.ts'

export const fairness: Scenario = {
  name: 'fairness',
  summary: "how long one tenant's single turn waits while another tenant has thousands pending",
  options: {
    backlog: { default: '2000', sentence: 'Turns that tenant A queues at once.' },
    probes: { default: '20', sentence: 'Single turns of tenant B, before and during the backlog each.' },
    'answer-ms': { default: '50', sentence: "How long the provider's answer takes." },
    backend: { default: 'redis', sentence: 'redis, postgres or both.' },
    checkout: { default: '', sentence: 'Another checkout of Turnmill to measure.' },
  },
  run,
}

/** The default of `TURNMILL_PENDING_TURNS`. */
const PENDING_LIMIT = 1000
/** The turns that are run before anything is measured. */
const WARM_UP_TURNS = 200
/** Requests that tenant A has under way at once while it queues. */
const SENDERS = 10
/** Between two probes without a backlog, in ms. */
const PAUSE_MS = 150
/** How often A's backlog is looked at, in ms. */
const LOOK_MS = 20
/** Without a completed turn for so long, in ms, the run has failed. */
const STUCK_MS = 30_000

/** One turn of tenant B. */
interface Probe {
  /** From the client's POST until its request reached the provider, in ms. */
  waitMs: number
  /** Tenant A's turns right before. */
  backlog: TurnCount
}

interface Course {
  backend: Backend
  backlog: number
  /** How long it took to queue it, and to work it off, in seconds. */
  queuedIn: number
  workedOffIn: number
  before: Probe[]
  during: Probe[]
  failures: string[]
}

async function run(context: ScenarioContext): Promise<Report> {
  const postgres = await startPostgres(context.cleanup)
  const courses: Course[] = []
  const troubles: string[] = []
  for (const backend of chooseBackends(context.options)) {
    const trial = await start(context, backend, postgres)
    courses.push(await measureBackend(context, trial))
    await trial.stop()
    troubles.push(reportTroubles(trial))
  }
  const tables = [reportWaits(courses), caption(context), reportBacklog(courses)]
  return {
    text: [...tables, ...troubles.filter(Boolean)].join('\n\n'),
    failures: courses.flatMap(({ backend, failures }) => failures.map((failure) => `${backend}: ${failure}`)),
  }
}

/** Never lower than it is by default. */
const pendingLimit = ({ options }: ScenarioContext): number =>
  Math.max(PENDING_LIMIT, wholeNumber(options, 'backlog') + 100)

function start(context: ScenarioContext, backend: Backend, postgres: Server): Promise<Trial> {
  context.progress(`${backend}: starting`)
  return startTrial(context, {
    backend,
    postgres,
    users: 2,
    provider: { BENCH_ANSWER_MS: String(wholeNumber(context.options, 'answer-ms')) },
    settings: { TURNMILL_PENDING_TURNS: String(pendingLimit(context)) },
  })
}

async function measureBackend(context: ScenarioContext, trial: Trial): Promise<Course> {
  const { options, progress } = context
  const backlog = wholeNumber(options, 'backlog')
  const probes = wholeNumber(options, 'probes')
  const tenants = await openTenants(context, trial)
  progress(`${trial.backend}: warming up`)
  await warmUp(tenants)
  progress(`${trial.backend}: ${probes} single turns without a backlog`)
  const before = await probeQuiet(tenants, probes)
  progress(`${trial.backend}: queueing ${backlog} turns`)
  const beganAt = nowMs()
  const secondsSoFar = (): number => (nowMs() - beganAt) / 1000
  await queueTurns(tenants, 'backlog', backlog)
  const queuedIn = secondsSoFar()
  progress(`${trial.backend}: ${probes} single turns while they are worked off`)
  const during = await probeBacklog(tenants, probes)
  const end = await untilPending(tenants, 0)
  const failures = findFailures({ before, during, end, turns: WARM_UP_TURNS + backlog })
  return { backend: trial.backend, backlog, queuedIn, workedOffIn: secondsSoFar(), before, during, failures }
}

interface Tenants {
  trial: Trial
  counts: TurnCounts
  a: BenchUser
  b: BenchUser
}

async function openTenants({ cleanup }: ScenarioContext, trial: Trial): Promise<Tenants> {
  const counts = await TurnCounts.open(trial.databaseUrl)
  cleanup.add(() => counts.close())
  const [a, b] = trial.turnmill.users
  if (a === undefined || b === undefined) throw new Error('there are fewer users than two tenants')
  return { trial, counts, a, b }
}

async function warmUp(tenants: Tenants): Promise<void> {
  await queueTurns(tenants, 'warm-up', WARM_UP_TURNS)
  await untilPending(tenants, 0)
  await analyze(tenants.trial.databaseUrl)
}

/** Tenant A queues turns, each the first of a chat of its own. */
async function queueTurns({ trial, a }: Tenants, name: string, turns: number): Promise<void> {
  let sent = 0
  const send = async (): Promise<void> => {
    while (sent < turns) await createChat(trial.turnmill.url, a.token, `slow: ${name} ${sent++}`)
  }
  await Promise.all(Array.from({ length: SENDERS }, send))
}

async function probeQuiet(tenants: Tenants, probes: number): Promise<Probe[]> {
  const measured: Probe[] = []
  for (let number = 0; number < probes; number++) {
    const backlog = await tenants.counts.read(tenants.a.id)
    measured.push({ waitMs: await probe(tenants, `before ${number}`), backlog })
    await sleep(PAUSE_MS)
  }
  return measured
}

/** Spread over the backlog: each probe is sent when its share of what was pending at the beginning is gone. */
async function probeBacklog(tenants: Tenants, probes: number): Promise<Probe[]> {
  const measured: Probe[] = []
  const { pending } = await tenants.counts.read(tenants.a.id)
  for (let number = 0; number < probes; number++) {
    const backlog = await untilPending(tenants, Math.round(pending * (1 - (number + 0.5) / probes)))
    measured.push({ waitMs: await probe(tenants, `during ${number}`), backlog })
  }
  return measured
}

/** Tenant B sends one turn. Gives its wait in ms; ends with its answer. */
async function probe({ trial: { turnmill, journal }, b }: Tenants, tag: string): Promise<number> {
  const sentAt = nowMs()
  await createChat(turnmill.url, b.token, `slow: ${tag}`)
  const receivedAt = await journal.until(tag, 'received')
  await journal.until(tag, 'answered')
  return receivedAt - sentAt
}

/**
 * Resolves when tenant A has no more turns pending than that; where that is none, when none runs either.
 *
 * @throws {Error} when none ends for long.
 */
async function untilPending({ counts, a }: Tenants, limit: number): Promise<TurnCount> {
  let completed = -1
  for (let progressAt = nowMs(); nowMs() - progressAt < STUCK_MS; await sleep(LOOK_MS)) {
    const count = await counts.read(a.id)
    if (count.pending <= limit && (limit > 0 || count.running === 0)) return count
    if (count.completed > completed) progressAt = nowMs()
    completed = count.completed
  }
  throw new Error(`none of tenant A's turns was completed for ${STUCK_MS} ms, after ${completed}`)
}

interface Exercised extends Pick<Course, 'before' | 'during'> {
  end: TurnCount
  /** That tenant A has sent. */
  turns: number
}

function findFailures({ before, during, end, turns }: Exercised): string[] {
  const idle = during.filter(({ backlog }) => backlog.pending === 0 || backlog.running === 0).length
  const busy = before.filter(({ backlog }) => backlog.pending > 0 || backlog.running > 0).length
  return [
    idle > 0 && `${idle} of ${during.length} probes met no backlog, expected none: queue more turns`,
    busy > 0 && `${busy} of ${before.length} probes met a backlog before there was one`,
    end.completed !== turns && `${end.completed} of tenant A's turns were completed, expected ${turns}`,
  ].filter((failure) => failure !== false)
}

const waitsOf = (probes: readonly Probe[]): number[] => probes.map(({ waitMs }) => waitMs)

function reportWaits(courses: readonly Course[]): string {
  const header = ["ms, B's POST → its request at the provider", ...DISTRIBUTION_HEADER, "A's turns pending"]
  const rows = courses.flatMap(({ backend, before, during }) => [
    [`${backend}, A idle`, ...distributionCells(waitsOf(before)), rangeOf(before)],
    [`${backend}, A's backlog`, ...distributionCells(waitsOf(during)), rangeOf(during)],
    [`${backend}, ratio`, '', ...ratioCells(during, before), ''],
  ])
  return formatTable(header, rows)
}

const ratioCells = (during: readonly Probe[], before: readonly Probe[]): string[] =>
  [0.5, 0.9, 0.99, 1].map((share) =>
    shown(quantile(waitsOf(during), share) / quantile(waitsOf(before), share), 2),
  )

function rangeOf(probes: readonly Probe[]): string {
  const pending = probes.map(({ backlog }) => backlog.pending)
  return `${Math.min(...pending)}–${Math.max(...pending)}`
}

function reportBacklog(courses: readonly Course[]): string {
  const lines = courses.flatMap(({ backend, backlog, queuedIn, workedOffIn, during }) => [
    `${backend}: A's ${backlog} turns were queued in ${shown(queuedIn, 1)} s and worked off in ${shown(workedOffIn, 1)} s`,
    `  pending at each probe  ${during.map((one) => one.backlog.pending).join(' ')}`,
    `  running at each probe  ${during.map((one) => one.backlog.running).join(' ')}`,
    `  B's wait in ms         ${during.map((one) => shown(one.waitMs)).join(' ')}`,
  ])
  return lines.join('\n')
}

const caption = (context: ScenarioContext): string =>
  [
    `The processes run with TURNMILL_PENDING_TURNS=${pendingLimit(context)} (default ${PENDING_LIMIT}), so that A may queue them all.`,
    "Everything else is at its default: 5 of a user's turns run at once.",
  ].join('\n')
