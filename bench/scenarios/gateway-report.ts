import { CALL_KINDS, type CallKind, type CallTimes } from '../support/call-client.ts'
import type { CallContender } from '../support/call-contenders.ts'
import { quantile, sum } from '../support/statistics.ts'
import { formatTable, shown } from '../support/table.ts'
import type { Books, Clock, Course, Round } from './gateway.ts'

/** Beyond its database round trips, in-process, p50, in ms. */
const BAR_BEYOND_MS = 0.3

export interface Measured {
  courses: readonly Course[]
  clocks: readonly Clock[]
  books: readonly Books[]
}

export function reportGateway(measured: Measured): string {
  const { courses } = measured
  const alone = courses.filter(({ pace }) => pace.concurrency === 1)
  const together = courses.filter(({ pace }) => pace.concurrency > 1)
  return [
    reportTimes(alone),
    reportTimes(together),
    reportRates(together),
    reportBeyond(alone),
    reportPeer(courses),
    reportStatements(measured),
    reportSettlements(measured),
    reportVerdict(alone, courses),
  ].join('\n\n')
}

type Name = CallContender['name']
type When = keyof CallTimes

const timesOf = ({ rounds }: Course, when: When): number[] =>
  rounds.flatMap(({ times }) => times.map((time) => time[when]))

const medianOf = (course: Course | undefined, when: When): number =>
  course === undefined ? NaN : quantile(timesOf(course, when), 0.5)

const find = (courses: readonly Course[], name: Name, kind: CallKind): Course | undefined =>
  courses.find((course) => course.contender.name === name && course.kind === kind)

/** What it does: the round trips alone stream nothing. */
const labelOf = ({ contender, kind, pace }: Course): string =>
  `${contender.name}, ${kind}, ${pace.concurrency} at a time`

const spread = (values: readonly number[]): string[] =>
  [0.5, 0.95, 0.99].map((share) => shown(quantile(values, share), 2))

function reportTimes(courses: readonly Course[]): string {
  const header = ['ms', 'calls', 'first p50', 'p95', 'p99', 'total p50', 'p95', 'p99', '+ direct', '× direct']
  const rows = courses.map((course) => {
    const direct = medianOf(find(courses, 'direct', course.kind), 'total')
    const own = medianOf(course, 'total')
    const isCall = course.contender.name !== 'round trips' && course.contender.name !== 'direct'
    return [
      labelOf(course),
      shown(timesOf(course, 'total').length),
      ...spread(timesOf(course, 'first')),
      ...spread(timesOf(course, 'total')),
      shown(isCall ? own - direct : NaN, 2),
      shown(isCall ? own / direct : NaN, 2),
    ]
  })
  return formatTable(header, rows)
}

function reportRates(courses: readonly Course[]): string {
  const header = ['answered and settled', 'calls/s', 'per round', 'client CPU ms', 'gateway', 'postgres']
  const rows = courses.map((course) => {
    const calls = timesOf(course, 'total').length
    const perCall = (name: keyof Round['cpuMs']): string =>
      shown(sum(course.rounds.map(({ cpuMs }) => cpuMs[name])) / calls, 2)
    return [
      labelOf(course),
      shown(calls / sum(course.rounds.map(({ seconds }) => seconds))),
      course.rounds.map(({ times, seconds }) => shown(times.length / seconds)).join(' '),
      perCall('client'),
      perCall('gateway'),
      perCall('postgres'),
    ]
  })
  return formatTable(header, rows)
}

/** What the in-process form adds, in parts; of medians, over the whole run and per round. */
interface Beyond {
  added: number
  roundTrips: number
  beyond: number
  perRound: number[]
}

function beyondOf(courses: readonly Course[], kind: CallKind): Beyond {
  const [direct, roundTrips, inProcess] = (['direct', 'round trips', 'in-process'] as const).map((name) =>
    find(courses, name, kind),
  )
  const median = (course: Course | undefined, round: number): number =>
    quantile(course?.rounds[round]?.times.map(({ total }) => total) ?? [], 0.5)
  const added = medianOf(inProcess, 'total') - medianOf(direct, 'total')
  return {
    added,
    roundTrips: medianOf(roundTrips, 'total'),
    beyond: added - medianOf(roundTrips, 'total'),
    perRound: (inProcess?.rounds ?? []).map(
      (_, round) => median(inProcess, round) - median(direct, round) - median(roundTrips, round),
    ),
  }
}

function reportBeyond(alone: readonly Course[]): string {
  const header = ['in-process, p50 ms', 'added', 'round trips', 'beyond them', 'per round', 'bar']
  const rows = CALL_KINDS.map((kind) => {
    const { added, roundTrips, beyond, perRound } = beyondOf(alone, kind)
    return [
      `${kind}, 1 at a time`,
      shown(added, 2),
      shown(roundTrips, 2),
      shown(beyond, 2),
      perRound.map((ms) => shown(ms, 2)).join(' '),
      `≤ ${BAR_BEYOND_MS}`,
    ]
  })
  return formatTable(header, rows)
}

/** Over HTTP through Portkey's, of the same kind at the same pace. */
interface Ratio {
  course: Course
  first: number
  total: number
  perRound: number[]
}

function ratiosOf(courses: readonly Course[]): Ratio[] {
  return courses.flatMap((course) => {
    if (course.contender.name !== 'over HTTP') return []
    const samePace = courses.filter(({ pace }) => pace === course.pace)
    const peer = find(samePace, 'Portkey', course.kind)
    if (peer === undefined) return []
    const median = (round: Round | undefined): number =>
      quantile(round?.times.map(({ total }) => total) ?? [], 0.5)
    return {
      course,
      first: medianOf(course, 'first') / medianOf(peer, 'first'),
      total: medianOf(course, 'total') / medianOf(peer, 'total'),
      perRound: course.rounds.map((round, index) => median(round) / median(peer.rounds[index])),
    }
  })
}

function reportPeer(courses: readonly Course[]): string {
  const header = ["over HTTP ÷ Portkey's, p50", 'first', 'total', 'total per round', 'bar']
  const rows = ratiosOf(courses).map(({ course: { kind, pace }, first, total, perRound }) => [
    `${kind}, ${pace.concurrency} at a time`,
    shown(first, 2),
    shown(total, 2),
    perRound.map((ratio) => shown(ratio, 2)).join(' '),
    '≤ 1',
  ])
  return formatTable(header, rows)
}

/** Statements by a piece of their text that only they have: Postgres does not know their names. */
const STATEMENTS: readonly (readonly [name: string, piece: string, when: string])[] = [
  ['keys/find', 'set last_used_at', 'before'],
  ['gateway/authorise', 'as budgeted', 'before'],
  ['gateway/open', 'turnmill_reserve(', 'before'],
  ['gateway/settle', 'insert into token_usages', 'after'],
]

function reportStatements({ books, clocks }: Measured): string {
  const header = ['statements', 'of the answer', 'in calls', 'calls/call', 'executor ms', 'round trip p50 ms']
  const rows = books.flatMap(({ contender, calls, statements }) => {
    const named = STATEMENTS.flatMap(([name, piece, when]) => {
      const own = statements.filter(({ text }) => text.includes(piece))
      const count = sum(own.map((one) => one.calls))
      if (count === 0) return []
      const clock = clocks.find((one) => one.contender === contender && one.pace.concurrency === 1)
      return [
        [
          name,
          when,
          contender,
          shown(count / calls, 2),
          shown(sum(own.map((one) => one.totalMs)) / count, 3),
          shown(quantile(clock?.roundTrips.get(name) ?? [], 0.5), 2),
        ],
      ]
    })
    const others = statements.filter(({ text }) => !STATEMENTS.some(([, piece]) => text.includes(piece)))
    const rest = sum(others.map((one) => one.calls))
    const timers = ['others, on timers', '–', contender, shown(rest / calls, 2), '–', '–']
    return rest === 0 ? named : [...named, timers]
  })
  return formatTable(header, rows)
}

function reportSettlements({ clocks }: Measured): string {
  const header = ['ms, end of the answer → settled', 'count', 'p50', 'p95', 'p99']
  const rows = clocks.map(({ contender, pace, settlements }) => [
    `${contender}, ${pace.concurrency} at a time`,
    String(settlements.length),
    ...spread(settlements),
  ])
  return formatTable(header, rows)
}

function reportVerdict(alone: readonly Course[], courses: readonly Course[]): string {
  const beyond = CALL_KINDS.map((kind) => ({ kind, ms: beyondOf(alone, kind).beyond }))
  const ratios = ratiosOf(courses)
  const lines = [
    verdict(
      `in-process, p50 beyond its round trips ≤ ${BAR_BEYOND_MS} ms`,
      beyond.every(({ ms }) => ms <= BAR_BEYOND_MS),
      beyond.map(({ kind, ms }) => `${kind} ${shown(ms, 2)}`),
    ),
    verdict(
      'over HTTP no slower than Portkey, p50 to the first byte and in total',
      ratios.length > 0 && ratios.every(({ first, total }) => Math.max(first, total) <= 1),
      ratios.map(
        ({ course: { kind, pace }, first, total }) =>
          `${kind} at ${pace.concurrency}: ${shown(first, 2)} and ${shown(total, 2)}`,
      ),
    ),
  ]
  return lines.join('\n')
}

const verdict = (bar: string, held: boolean, figures: readonly string[]): string =>
  `${held ? 'held    ' : 'not held'}  ${bar}: ${figures.join(', ') || 'not measured'}`
