import { setTimeout as sleep } from 'node:timers/promises'
import { chooseBackends, type Backend } from '../support/backends.ts'
import { startPostgres, type Server } from '../support/ground.ts'
import { wholeNumber } from '../support/options.ts'
import type { ProviderJournal } from '../support/provider-journal.ts'
import { Settlements } from '../support/settlements.ts'
import { quantile } from '../support/statistics.ts'
import { DISTRIBUTION_HEADER, distributionCells, formatTable } from '../support/table.ts'
import { reportTroubles, startTrial, type Trial } from '../support/trial.ts'
import type { Report, Scenario, ScenarioContext } from './scenario.ts'
import { StopLane, type MeasuredStop } from './stop-lane.ts'
import { STOP_WINDOWS, type StopWindow } from './stop-windows.ts'

export const stop: Scenario = {
  name: 'stop',
  summary: "from the client's stop until the provider's socket is closed, in each window of a turn",
  options: {
    stops: { default: '100', sentence: 'Stops per backend, evenly over the four windows.' },
    backend: { default: 'redis', sentence: 'redis, postgres or both.' },
    users: { default: '3', sentence: 'Users per window; each has one stop under way at a time.' },
    checkout: { default: '', sentence: 'Another checkout of Turnmill to measure.' },
  },
  run,
}

const AIM_MS = 500
const RETRY_AFTER_S = 5
/** When a request would have come that a stop has not prevented: the wait before the retry with its jitter, and a bit. */
const QUIET_MS = (RETRY_AFTER_S + 2) * 1000

/** All stops of one window on one backend. */
interface Course {
  backend: Backend
  window: StopWindow
  planned: number
  stops: MeasuredStop[]
  failures: string[]
}

async function run(context: ScenarioContext): Promise<Report> {
  const postgres = await startPostgres(context.cleanup)
  const courses: Course[] = []
  const troubles: string[] = []
  for (const backend of chooseBackends(context.options)) {
    const trial = await start(context, backend, postgres)
    courses.push(...(await measureBackend(context, trial)))
    await trial.stop()
    troubles.push(reportTroubles(trial))
  }
  return {
    text: [
      reportEffects(courses),
      reportCommits(courses),
      reportNext(courses),
      ...troubles.filter(Boolean),
    ].join('\n\n'),
    failures: courses.flatMap(failuresOf),
  }
}

function start(context: ScenarioContext, backend: Backend, postgres: Server): Promise<Trial> {
  context.progress(`${backend}: starting`)
  const users = wholeNumber(context.options, 'users') * STOP_WINDOWS.length
  return startTrial(context, {
    backend,
    postgres,
    users,
    provider: { BENCH_RETRY_AFTER_S: String(RETRY_AFTER_S) },
  })
}

/** All windows at the same time, so that a busy machine is busy for each. */
async function measureBackend(context: ScenarioContext, trial: Trial): Promise<Course[]> {
  const { cleanup, options, progress } = context
  const settlements = await Settlements.open(trial.databaseUrl)
  cleanup.add(() => settlements.close())
  const planned = Math.ceil(wholeNumber(options, 'stops') / STOP_WINDOWS.length)
  progress(`${trial.backend}: stopping ${planned} turns in each window`)
  const lanes = openLanes(trial, settlements)
  const courses = await Promise.all(
    STOP_WINDOWS.map((window) =>
      runCourse({ backend: trial.backend, window, planned }, lanes.get(window) ?? []),
    ),
  )
  progress(`${trial.backend}: watching for ${QUIET_MS / 1000} s that nothing comes after a stop`)
  await sleep(QUIET_MS)
  for (const course of courses) course.failures.push(...findStrayRequests(course, trial.journal))
  return courses
}

function openLanes(trial: Trial, settlements: Settlements): Map<StopWindow, StopLane[]> {
  const perWindow = trial.turnmill.users.length / STOP_WINDOWS.length
  return new Map(
    STOP_WINDOWS.map((window, index) => {
      const users = trial.turnmill.users.slice(index * perWindow, (index + 1) * perWindow)
      return [window, users.map((user) => new StopLane(trial, settlements, { window, user }))]
    }),
  )
}

/** Every lane's first stop is for warming up: it has to take effect like any other, and is not counted. */
async function runCourse(
  plan: Pick<Course, 'backend' | 'window' | 'planned'>,
  lanes: StopLane[],
): Promise<Course> {
  const course: Course = { ...plan, stops: [], failures: [] }
  let begun = 0
  const total = plan.planned + lanes.length
  const runLane = async (lane: StopLane): Promise<void> => {
    while (begun < total) {
      const number = begun++
      const measured = await lane.measure(number).catch((error: unknown) => fail(number, error))
      if (number >= lanes.length) course.stops.push(measured)
    }
    await lane.close()
  }
  // A lane ends with its first failure, so that a broken program is told within a minute.
  const note = (error: unknown): void => void course.failures.push((error as Error).message)
  await Promise.all(lanes.map((lane) => runLane(lane).catch(note)))
  return course
}

function fail(number: number, error: unknown): never {
  throw new Error(`stop ${number}: ${(error as Error).message}`, { cause: error })
}

/** Requests of turns that were stopped, and next messages that came more than once. */
function findStrayRequests({ stops, window }: Course, journal: ProviderJournal): string[] {
  const strays = (tag: string, expected: number): string[] => {
    const { length } = journal.times(tag, 'received')
    return length === expected ? [] : [`${length} requests of turn ${tag}, expected ${expected}`]
  }
  return stops.flatMap(({ tag, nextTag }) => [...strays(tag, window.requests), ...strays(nextTag, 1)])
}

function failuresOf({ backend, window, planned, stops, failures }: Course): string[] {
  const label = `${backend}, ${window.name}`
  const short =
    stops.length < planned ? [`${stops.length} of ${planned} stops were measured, expected all of them`] : []
  return [...failures, ...short].map((failure) => `${label}: ${failure}`)
}

function reportEffects(courses: readonly Course[]): string {
  const header = ['ms, interrupt → took effect', 'until', ...DISTRIBUTION_HEADER, `aim p99 ≤ ${AIM_MS} ms`]
  const toRow = (label: string, until: string, values: readonly number[]): string[] => [
    label,
    until,
    ...distributionCells(values),
    quantile(values, 0.99) <= AIM_MS ? 'held' : 'not held',
  ]
  const rows = byBackend(courses).flatMap(([backend, own]) => [
    ...own.map((course) => toRow(labelOf(course), course.window.until, effectsOf(course))),
    toRow(`${backend}, all windows`, '', own.flatMap(effectsOf)),
  ])
  return formatTable(header, rows)
}

function reportCommits(courses: readonly Course[]): string {
  const rows = courses.map((course) => [
    labelOf(course),
    ...distributionCells(course.stops.map(({ interrupted }) => interrupted)),
  ])
  return formatTable(['ms, interrupt → turn committed as interrupted', ...DISTRIBUTION_HEADER], rows)
}

function reportNext(courses: readonly Course[]): string {
  const rows = courses.map((course) => [
    labelOf(course),
    course.window.limitIsFull ? 'a slot became free' : 'interrupt',
    ...distributionCells(course.stops.map(({ next }) => next)),
  ])
  return formatTable(
    ["ms, until the next message's request is at the provider", 'from', ...DISTRIBUTION_HEADER],
    rows,
  )
}

const labelOf = ({ backend, window }: Course): string => `${backend}, ${window.name}`

const effectsOf = ({ stops }: Course): number[] => stops.map(({ effect }) => effect)

const byBackend = (courses: readonly Course[]): [Backend, Course[]][] => [
  ...Map.groupBy(courses, ({ backend }) => backend),
]
