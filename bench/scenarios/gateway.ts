import { CALL_KINDS, type CallKind, type CallTimes } from '../support/call-client.ts'
import {
  findPortkey,
  startDirect,
  startInProcess,
  startOverHttp,
  startPortkey,
  startRoundTrips,
  type BookTimes,
  type CallContender,
} from '../support/call-contenders.ts'
import { BookReader, openCallStage, type CallStage } from '../support/call-stage.ts'
import { nowMs } from '../support/clock.ts'
import { cpuMsOf, cpuMsOfFamily } from '../support/cpu.ts'
import { analyze, startChatProvider, startPostgres, type Server } from '../support/ground.ts'
import { UsageError, wholeNumber, type OptionValues } from '../support/options.ts'
import { StatementCounts, type StatementCount } from '../support/statement-counts.ts'
import { shown } from '../support/table.ts'
import { reportGateway } from './gateway-report.ts'
import type { Report, Scenario, ScenarioContext } from './scenario.ts'

export const gateway: Scenario = {
  name: 'gateway',
  summary:
    'what the gateway adds to a call, in-process and over HTTP, beside its round trips and beside Portkey',
  options: {
    calls: { default: '300', sentence: 'Calls one at a time, of each contender, whole and streamed each.' },
    burst: { default: '600', sentence: 'Calls several at a time, likewise.' },
    concurrency: { default: '20', sentence: 'How many are then under way at once.' },
    rounds: { default: '4', sentence: 'Parts of the run that are told apart.' },
    parts: { default: '20', sentence: "Words of the provider's answer, an event each." },
    budgets: { default: 'yes', sentence: 'Whether key, user and deployment have a budget each: yes or no.' },
    profile: { default: '', sentence: 'A directory for the CPU profiles of the API and of Portkey.' },
  },
  run,
}

/** How calls follow each other: contenders take turns, of so many calls each. */
export interface Pace {
  concurrency: number
  rounds: number
  turnsPerRound: number
  callsPerTurn: number
}

export interface Round {
  times: CallTimes[]
  /** What was timed beside the calls, one per turn. */
  bookTimes: BookTimes[]
  /** Until everything was answered, and settled. */
  seconds: number
  /** In ms; not read where a turn is a single call. */
  cpuMs: { client: number; gateway: number; postgres: number }
}

/** All calls of one contender, of one kind, at one pace. */
export interface Course {
  contender: CallContender
  kind: CallKind
  pace: Pace
  rounds: Round[]
}

/** What a contender's database was asked, by all its calls. */
export interface Books {
  contender: CallContender['name']
  calls: number
  statements: StatementCount[]
}

async function run(context: ScenarioContext): Promise<Report> {
  const { options, progress } = context
  const postgres = await startPostgres(context.cleanup)
  const contenders = await startContenders(context, postgres)
  const paces = planPaces(options)
  progress('warming up')
  for (const pace of paces) await runCourses(openCourses(contenders, [warmUp(pace)]), postgres)
  for (const { stage } of contenders) if (stage !== undefined) await analyze(stage.databaseUrl)
  const counts = await StatementCounts.open(postgres.url)
  context.cleanup.add(() => counts.close())
  await counts.reset()

  const courses = openCourses(contenders, paces)
  for (const pace of paces) {
    const own = courses.filter((course) => course.pace === pace)
    await runPace(context, own, postgres)
  }
  const books = []
  for (const contender of contenders) books.push(...(await readBooks(contender, courses, counts)))
  return {
    text: reportGateway({ courses, books }),
    failures: [...(await findMissing(context, contenders)), ...missingPeer()],
  }
}

async function startContenders({ cleanup, options, progress }: ScenarioContext, postgres: Server) {
  const parts = wholeNumber(options, 'parts')
  const profileDir = options.profile === '' ? undefined : options.profile
  progress('starting')
  const { url: providerUrl } = await startChatProvider(cleanup, parts)
  const budgets = holdsBudgets(options)
  const stage = (name: string): Promise<CallStage> =>
    openCallStage(cleanup, { postgres, name, providerUrl, budgets })
  return [
    startDirect(parts, providerUrl),
    startRoundTrips(parts, await stage('round_trips')),
    startInProcess(parts, await stage('in_process')),
    await startOverHttp(cleanup, parts, await stage('over_http'), profileDir),
    ...(findPortkey() ? [await startPortkey(cleanup, parts, providerUrl, profileDir)] : []),
  ]
}

/** @throws {UsageError} unless it is yes or no. */
function holdsBudgets({ budgets }: OptionValues): boolean {
  if (budgets === 'yes' || budgets === 'no') return budgets === 'yes'
  throw new UsageError(`--budgets is ${budgets}, expected yes or no`)
}

const missingPeer = (): string[] =>
  findPortkey() ? [] : ['Portkey is not installed, expected `npm ci --prefix bench --ignore-scripts`']

function planPaces(options: OptionValues): Pace[] {
  const rounds = wholeNumber(options, 'rounds')
  const perRound = (name: string): number => Math.ceil(wholeNumber(options, name) / rounds)
  return [
    { concurrency: 1, rounds, turnsPerRound: perRound('calls'), callsPerTurn: 1 },
    {
      concurrency: wholeNumber(options, 'concurrency'),
      rounds,
      turnsPerRound: 1,
      callsPerTurn: perRound('burst'),
    },
  ]
}

/** Enough for the compiler to have seen everything. */
const warmUp = (pace: Pace): Pace => ({ ...pace, rounds: Math.ceil(pace.rounds / 2) })

const openCourses = (contenders: readonly CallContender[], paces: readonly Pace[]): Course[] =>
  paces.flatMap((pace) =>
    CALL_KINDS.flatMap((kind) => contenders.map((contender) => ({ contender, kind, pace, rounds: [] }))),
  )

async function runPace({ progress }: ScenarioContext, courses: Course[], postgres: Server): Promise<void> {
  const start = nowMs()
  await runCourses(courses, postgres)
  const [course] = courses
  progress(`${course?.pace.concurrency} at a time: ${shown((nowMs() - start) / 1000, 1)} s`)
}

/** Courses of one pace take turns, so that a machine that is busy with something else is busy for all. */
async function runCourses(courses: Course[], postgres: Server): Promise<void> {
  const [first] = courses
  if (first === undefined) return
  for (let round = 0; round < first.pace.rounds; round++) {
    for (const course of courses) course.rounds.push(newRound())
    for (let turn = 0; turn < first.pace.turnsPerRound; turn++)
      for (const course of shuffled(courses)) await takeTurn(course, postgres)
  }
}

const newRound = (): Round => ({
  times: [],
  bookTimes: [],
  seconds: 0,
  cpuMs: { client: 0, gateway: 0, postgres: 0 },
})

/** Whoever always comes after the same one finds what that one has left warm. */
function shuffled<T>(values: readonly T[]): T[] {
  const left = [...values]
  return values.flatMap(() => left.splice(Math.floor(Math.random() * left.length), 1))
}

/** The next one's turn begins when this one's calls are settled. */
async function takeTurn({ contender, kind, pace, rounds }: Course, postgres: Server): Promise<void> {
  const round = rounds.at(-1)
  if (round === undefined) return
  const readCpu = (): Round['cpuMs'] => ({
    client: cpuMsOf(process.pid),
    gateway: contender.process === undefined ? NaN : cpuMsOf(contender.process.pid),
    postgres: cpuMsOfFamily(postgres.pid),
  })
  const before = pace.callsPerTurn === 1 ? null : readCpu()
  const start = nowMs()
  let begun = 0
  const runLane = async (): Promise<void> => {
    while (begun++ < pace.callsPerTurn) round.times.push(await contender.call(kind))
  }
  await Promise.all(Array.from({ length: pace.concurrency }, runLane))
  await contender.settled()
  round.seconds += (nowMs() - start) / 1000
  if (contender.takeTimes !== undefined) round.bookTimes.push(contender.takeTimes())
  if (before === null) return
  const after = readCpu()
  for (const name of ['client', 'gateway', 'postgres'] as const)
    round.cpuMs[name] += after[name] - before[name]
}

async function readBooks(
  { name, stage }: CallContender,
  courses: readonly Course[],
  counts: StatementCounts,
): Promise<Books[]> {
  if (stage === undefined) return []
  const own = courses.filter(({ contender }) => contender.name === name)
  const calls = own.flatMap(({ rounds }) => rounds.flatMap(({ times }) => times)).length
  return [{ contender: name, calls, statements: await counts.read(stage.databaseUrl) }]
}

/** Calls that a gateway has not written down as they went: each with its cost and with the usage that was reported. */
async function findMissing(
  { cleanup, options }: ScenarioContext,
  contenders: readonly CallContender[],
): Promise<string[]> {
  const failures = []
  for (const { name, stage } of contenders) {
    if (stage === undefined) continue
    const reader = await BookReader.open(cleanup, stage)
    const { calls, complete } = await reader.read(wholeNumber(options, 'parts'))
    if (calls === 0 || complete < calls)
      failures.push(`${name}: ${complete} of ${calls} calls were recorded completely, expected all of them`)
  }
  return failures
}
