import { startFloor } from '../floor/start.ts'
import { chooseBackends, type Backend } from '../support/backends.ts'
import { cpuMsOf, cpuMsOfFamily } from '../support/cpu.ts'
import type { Contender, Stage } from '../support/contender.ts'
import {
  analyze,
  createDatabase,
  startPostgres,
  startProvider,
  startQueueRedis,
  type Server,
} from '../support/ground.ts'
import { runLoad, type LoadOptions, type LoadResult } from '../support/load.ts'
import { wholeNumber, type OptionValues } from '../support/options.ts'
import { Settlements } from '../support/settlements.ts'
import { StatementCounts, type StatementCount } from '../support/statement-counts.ts'
import { quantile, sum } from '../support/statistics.ts'
import { formatTable, shown } from '../support/table.ts'
import { startTurnmill } from '../support/turnmill.ts'
import type { Report, Scenario, ScenarioContext } from './scenario.ts'

export const durableTurns: Scenario = {
  name: 'durable-turns',
  summary: 'durable turns per second, beside a bare floor of the same parts in the same run',
  options: {
    turns: { default: '2000', sentence: 'Turns counted per backend, of Turnmill and of the floor each.' },
    backend: { default: 'both', sentence: 'redis, postgres or both.' },
    concurrency: { default: '50', sentence: 'Turns under way at once.' },
    users: { default: '10', sentence: 'Users who send them.' },
    watched: { default: '5', sentence: 'Of those under way, how many are watched over SSE.' },
    parts: { default: '20', sentence: "Parts of the provider's answer." },
    rounds: { default: '4', sentence: 'Turnmill and the floor take turns this often.' },
    seconds: { default: '32', sentence: 'Longest time that is measured per backend.' },
    statements: { default: '0', sentence: 'How many of the dearest statements are listed.' },
    profile: { default: '', sentence: 'A directory for the CPU profiles of all processes.' },
    checkout: {
      default: '',
      sentence: 'Another checkout of Turnmill to measure, such as one with a change.',
    },
  },
  run,
}

/** Everything that was measured of one contender on one backend. */
interface Measurement {
  backend: Backend
  contender: Contender['name']
  rounds: LoadResult[]
  /** CPU time per process over all rounds, in ms. */
  cpuMs: Record<string, number>
  /** All turns completed since the statements were last reset, those that were not counted included. */
  everCompleted: number
  statements: StatementCount[]
  complaints: ReadonlyMap<string, number>
}

async function run(context: ScenarioContext): Promise<Report> {
  const { cleanup, options } = context
  const backends = chooseBackends(options)
  const postgres = await startPostgres(cleanup)
  const provider = await startProvider(cleanup, wholeNumber(options, 'parts'))
  const measured: Measurement[] = []
  for (const backend of backends)
    measured.push(...(await measureBackend(context, { backend, postgres, provider })))
  return { text: report(measured, wholeNumber(options, 'statements', 0)), failures: [] }
}

interface Ground {
  backend: Backend
  postgres: Server
  provider: Server
}

/** Both contenders stand at the same time and are loaded in turns, so that a busy machine is busy for both. */
async function measureBackend(context: ScenarioContext, ground: Ground): Promise<Measurement[]> {
  const { cleanup, options, progress } = context
  const { backend, postgres, provider } = ground
  progress(`${backend}: starting`)
  const redis = backend === 'redis' ? await startQueueRedis(cleanup) : null
  const stage = async (name: Contender['name'], redisDatabase: number): Promise<Stage> => ({
    backend,
    databaseUrl: await createDatabase(postgres, `${name}_${backend}`),
    redisUrl: redis === null ? null : `${redis.url}/${redisDatabase}`,
    providerUrl: provider.url,
    users: wholeNumber(options, 'users'),
    profileDir: options.profile === '' ? undefined : options.profile,
  })
  const contenders = [
    await startTurnmill(cleanup, await stage('turnmill', 0), options.checkout),
    await startFloor(cleanup, await stage('floor', 1)),
  ]
  const counts = await StatementCounts.open(postgres.url)
  cleanup.add(() => counts.close())
  const courses: Course[] = []
  for (const contender of contenders) courses.push(await openCourse(context, ground, contender, redis))

  const plan = planRounds(options)
  progress(`${backend}: warming up`)
  for (const course of courses) await course.run({ ...plan.load, turns: plan.warmUpTurns })
  for (const { databaseUrl } of contenders) await analyze(databaseUrl)
  courses.forEach((course) => course.forget())
  await counts.reset()
  for (let round = 1; round <= plan.rounds; round++)
    // Always in the same order: taking turns at being first would leave each idle for two rounds on end.
    for (const course of courses) {
      const { completed, seconds } = await course.run(plan.load)
      progress(
        `${backend} round ${round}/${plan.rounds}  ${course.name.padEnd(8)}  ${completed} turns in ${seconds.toFixed(1)} s: ${shown(completed / seconds)}/s`,
      )
    }
  const measured = []
  for (const course of courses) measured.push(await course.close(counts))
  for (const { api, worker } of contenders) await Promise.all([api.stop(), worker.stop()])
  return measured
}

interface Plan {
  rounds: number
  warmUpTurns: number
  load: LoadOptions
}

function planRounds(options: OptionValues): Plan {
  const rounds = wholeNumber(options, 'rounds')
  const turns = wholeNumber(options, 'turns')
  const concurrency = wholeNumber(options, 'concurrency')
  return {
    rounds,
    // Enough for the compiler to have seen everything.
    warmUpTurns: Math.min(400, turns),
    load: {
      turns: Math.ceil(turns / rounds),
      concurrency,
      users: wholeNumber(options, 'users'),
      watched: wholeNumber(options, 'watched', 0),
      limitMs: (wholeNumber(options, 'seconds') * 1000) / rounds / 2,
    },
  }
}

/** One contender's rounds, and the clocks beside them. */
interface Course {
  name: Contender['name']
  run(load: LoadOptions): Promise<LoadResult>
  /** What was measured so far was for warming up. */
  forget(): void
  close(counts: StatementCounts): Promise<Measurement>
}

async function openCourse(
  { cleanup }: ScenarioContext,
  { backend, postgres, provider }: Ground,
  contender: Contender,
  redis: Server | null,
): Promise<Course> {
  const settlements = await Settlements.open(contender.databaseUrl)
  cleanup.add(() => settlements.close())
  const readCpu = (): Record<string, number> => ({
    api: cpuMsOf(contender.api.pid),
    worker: cpuMsOf(contender.worker.pid),
    postgres: cpuMsOfFamily(postgres.pid),
    redis: redis === null ? NaN : cpuMsOf(redis.pid),
    provider: cpuMsOf(provider.pid),
    load: cpuMsOf(process.pid),
  })
  let rounds: LoadResult[] = []
  let cpuMs: Record<string, number> = {}
  let everCompleted = 0
  return {
    name: contender.name,
    run: async (load) => {
      let before = readCpu()
      const onBegin = (): void => void (before = readCpu())
      const result = await runLoad(contender, settlements, { ...load, onBegin })
      const after = readCpu()
      for (const [name, ms] of Object.entries(after))
        cpuMs[name] = (cpuMs[name] ?? 0) + ms - (before[name] ?? 0)
      rounds.push(result)
      everCompleted += await result.drained
      return result
    },
    forget: () => {
      rounds = []
      cpuMs = {}
      everCompleted = 0
    },
    close: async (counts) => ({
      backend,
      contender: contender.name,
      rounds,
      cpuMs,
      everCompleted,
      statements: await counts.read(contender.databaseUrl),
      complaints: new Map([...contender.api.complaints(), ...contender.worker.complaints()]),
    }),
  }
}

const completedIn = ({ rounds }: Measurement): number => sum(rounds.map((round) => round.completed))
const secondsIn = ({ rounds }: Measurement): number => sum(rounds.map((round) => round.seconds))
const perSecond = (measurement: Measurement): number => completedIn(measurement) / secondsIn(measurement)

function report(measured: readonly Measurement[], statements: number): string {
  const sections = [reportRates(measured), reportLatencies(measured), reportCosts(measured)]
  if (statements > 0) sections.push(...measured.map((one) => reportStatements(one, statements)))
  sections.push(...measured.map(reportTroubles).filter((text) => text !== ''))
  return sections.join('\n\n')
}

function reportRates(measured: readonly Measurement[]): string {
  const header = [
    'backend',
    'turns',
    'seconds',
    'turns/s',
    'floor turns/s',
    'ratio',
    'ratio per round',
    'CPU ratio',
  ]
  const rows = measured
    .filter((one) => one.contender === 'turnmill')
    .map((one) => {
      const floor = measured.find((other) => other.backend === one.backend && other.contender === 'floor')
      const ratios = one.rounds.map((round, index) => rateOf(round) / rateOf(floor?.rounds[index]))
      return [
        one.backend,
        shown(completedIn(one)),
        shown(secondsIn(one), 1),
        shown(perSecond(one)),
        shown(floor === undefined ? NaN : perSecond(floor)),
        shown(floor === undefined ? NaN : perSecond(one) / perSecond(floor), 2),
        ratios.map((ratio) => shown(ratio, 2)).join(' '),
        shown(floor === undefined ? NaN : cpuPerTurn(floor) / cpuPerTurn(one), 2),
      ]
    })
  return formatTable(header, rows)
}

/** Of all processes, in ms; hardly moved by whatever else the machine does. */
const cpuPerTurn = (one: Measurement): number =>
  sum(Object.values(one.cpuMs).filter(Number.isFinite)) / completedIn(one)

const rateOf = (round: LoadResult | undefined): number =>
  round === undefined ? NaN : round.completed / round.seconds

function reportLatencies(measured: readonly Measurement[]): string {
  const header = ['ms, p50 / p99', 'sent→accepted', 'accepted→first part', 'accepted→committed']
  const rows = measured.map((one) => [
    labelOf(one),
    ...(['accept', 'firstPart', 'committed'] as const).map((what) =>
      spread(one.rounds.flatMap((round) => round[what])),
    ),
  ])
  return formatTable(header, rows)
}

const labelOf = ({ backend, contender }: Measurement): string => `${contender}, ${backend}`

const spread = (values: readonly number[]): string =>
  `${shown(quantile(values, 0.5))} / ${shown(quantile(values, 0.99))}`

const PROCESSES = ['api', 'worker', 'postgres', 'redis', 'provider', 'load'] as const

function reportCosts(measured: readonly Measurement[]): string {
  const header = ['per turn', 'statements', 'of them ms', ...PROCESSES.map((name) => `${name} CPU ms`)]
  const rows = measured.map((one) => [
    labelOf(one),
    shown(sum(one.statements.map((statement) => statement.calls)) / one.everCompleted, 1),
    shown(sum(one.statements.map((statement) => statement.totalMs)) / one.everCompleted, 2),
    ...PROCESSES.map((name) => shown((one.cpuMs[name] ?? NaN) / completedIn(one), 2)),
  ])
  return formatTable(header, rows)
}

function reportStatements(one: Measurement, limit: number): string {
  const header = [`statements, ${labelOf(one)}`, 'calls/turn', 'ms/call', 'ms/turn']
  const rows = one.statements
    .slice(0, limit)
    .map(({ text, calls, totalMs }) => [
      text.replaceAll(/\s+/g, ' ').slice(0, 90),
      shown(calls / one.everCompleted, 2),
      shown(totalMs / calls, 3),
      shown(totalMs / one.everCompleted, 3),
    ])
  return formatTable(header, rows)
}

/** Nothing where all went well. */
function reportTroubles(one: Measurement): string {
  const troubles = [...one.rounds.flatMap((round) => [...round.troubles]), ...one.complaints]
  if (troubles.length === 0) return ''
  return [`troubles, ${labelOf(one)}:`, ...troubles.map(([text, count]) => `  ${count} × ${text}`)].join('\n')
}
