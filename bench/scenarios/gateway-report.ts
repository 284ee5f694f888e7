import { CALL_KINDS, type CallKind, type CallTimes } from '../support/call-client.ts'
import type { CallContender } from '../support/call-contenders.ts'
import { quantile, sum } from '../support/statistics.ts'
import { formatTable, shown } from '../support/table.ts'
import type { Books, Course, Round } from './gateway.ts'

/** Beyond its database round trips, in-process, p50, in ms. */
const BAR_BEYOND_MS = 0.3

export interface Measured {
  courses: readonly Course[]
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

/** What the in-process form adds to a call that is alone, in parts; medians. */
interface Beyond {
  direct: number
  added: number
  /** What the calls themselves have waited for their statements, and what is left without it. */
  ownRoundTrips: number
  beyondOwn: number
  /** The same statements alone, and what is left without that. */
  roundTrips: number
  beyond: number
}

type Rounds = readonly Round[]

const median = (values: readonly number[]): number => quantile(values, 0.5)

const totalsOf = (rounds: Rounds): number[] => rounds.flatMap(({ times }) => times.map(({ total }) => total))

/** What each call has waited for Postgres before its answer, where turns are single calls. */
const waitsOf = (rounds: Rounds): number[] =>
  rounds.flatMap(({ bookTimes }) =>
    bookTimes.map(({ roundTrips }) =>
      sum([...roundTrips].flatMap(([name, times]) => (name === SETTLE ? [] : times))),
    ),
  )

function beyondOf(direct: Rounds, roundTrips: Rounds, inProcess: Rounds): Beyond {
  const waits = waitsOf(inProcess)
  const directMs = median(totalsOf(direct))
  const added = median(totalsOf(inProcess)) - directMs
  return {
    direct: directMs,
    added,
    ownRoundTrips: median(waits),
    beyondOwn: median(totalsOf(inProcess).map((total, call) => total - (waits[call] ?? NaN))) - directMs,
    roundTrips: median(totalsOf(roundTrips)),
    beyond: added - median(totalsOf(roundTrips)),
  }
}

/** Over the whole run, and per round. */
function beyondByKind(alone: readonly Course[]): { kind: CallKind; beyond: Beyond; perRound: Beyond[] }[] {
  return CALL_KINDS.map((kind) => {
    const roundsOf = (name: Name): Rounds => find(alone, name, kind)?.rounds ?? []
    const [direct, roundTrips, inProcess] = [
      roundsOf('direct'),
      roundsOf('round trips'),
      roundsOf('in-process'),
    ]
    const only = (rounds: Rounds, round: number): Rounds => rounds.slice(round, round + 1)
    const perRound = inProcess.map((_, round) =>
      beyondOf(only(direct, round), only(roundTrips, round), only(inProcess, round)),
    )
    return { kind, beyond: beyondOf(direct, roundTrips, inProcess), perRound }
  })
}

function reportBeyond(alone: readonly Course[]): string {
  const header = [
    'in-process, p50 ms',
    'added',
    'its round trips',
    'beyond them',
    '÷ direct',
    'per round',
    'round trips alone',
    'beyond them',
    'per round',
  ]
  const rows = beyondByKind(alone).map(({ kind, beyond, perRound }) => [
    `${kind}, 1 at a time`,
    shown(beyond.added, 2),
    shown(beyond.ownRoundTrips, 2),
    shown(beyond.beyondOwn, 2),
    shown(beyond.beyondOwn / beyond.direct, 2),
    perRound.map(({ beyondOwn }) => shown(beyondOwn, 2)).join(' '),
    shown(beyond.roundTrips, 2),
    shown(beyond.beyond, 2),
    perRound.map((one) => shown(one.beyond, 2)).join(' '),
  ])
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
    return {
      course,
      first: medianOf(course, 'first') / medianOf(peer, 'first'),
      total: medianOf(course, 'total') / medianOf(peer, 'total'),
      perRound: course.rounds.map(
        (round, index) => median(totalsOf([round])) / median(totalsOf(peer.rounds.slice(index, index + 1))),
      ),
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

const SETTLE = 'gateway/settle'

/** Statements by a piece of their text that only they have: Postgres does not know their names. */
const STATEMENTS: readonly (readonly [name: string, piece: string, when: string])[] = [
  ['keys/find', 'set last_used_at', 'before it'],
  ['gateway/authorise', 'as budgeted', 'once'],
  ['gateway/open', 'turnmill_reserve(', 'before it'],
  [SETTLE, 'insert into token_usages', 'after it'],
]

function reportStatements({ books, courses }: Measured): string {
  const header = [
    'statement',
    'in calls',
    'of the answer',
    'per call',
    'executor ms',
    'round trip p50 ms, 1 at a time',
  ]
  return formatTable(
    header,
    books.flatMap((one) => statementRows(one, courses)),
  )
}

function statementRows({ contender, calls, statements }: Books, courses: readonly Course[]): string[][] {
  const bookTimes = courses
    .filter((course) => course.contender.name === contender && course.pace.concurrency === 1)
    .flatMap(({ rounds }) => rounds.flatMap((round) => round.bookTimes))
  const named = STATEMENTS.flatMap(([name, piece, when]) => {
    const own = statements.filter(({ text }) => text.includes(piece))
    const count = sum(own.map((one) => one.calls))
    const roundTrips = bookTimes.flatMap((times) => [...(times.roundTrips.get(name) ?? [])])
    const executorMs = sum(own.map(({ totalMs }) => totalMs)) / count
    const perCall = shown(count / calls, 2)
    return count === 0
      ? []
      : [[name, contender, when, perCall, shown(executorMs, 2), shown(median(roundTrips), 2)]]
  })
  const others = statements.filter(({ text }) => !STATEMENTS.some(([, piece]) => text.includes(piece)))
  const perCall = sum(others.map((one) => one.calls)) / calls
  return [...named, ['others', contender, 'by timers', shown(perCall, 2), '–', '–']]
}

function reportSettlements({ courses }: Measured): string {
  const header = ['ms, end of the answer → settled', 'count', 'p50', 'p95', 'p99']
  const rows = courses.flatMap((course) => {
    const settlements = course.rounds.flatMap(({ bookTimes }) =>
      bookTimes.flatMap((times) => [...times.settlements]),
    )
    return settlements.length === 0
      ? []
      : [[labelOf(course), String(settlements.length), ...spread(settlements)]]
  })
  return formatTable(header, rows)
}

function reportVerdict(alone: readonly Course[], courses: readonly Course[]): string {
  const beyond = beyondByKind(alone).map(({ kind, beyond: { beyondOwn, beyond } }) => ({
    kind,
    parts: [beyondOwn, beyond],
  }))
  const ratios = ratiosOf(courses)
  const lines = [
    verdict(
      `in-process, p50 beyond its round trips ≤ ${BAR_BEYOND_MS} ms, by those of the calls and by those alone`,
      beyond.every(({ parts }) => parts.every((ms) => ms <= BAR_BEYOND_MS)),
      beyond.map(({ kind, parts }) => `${kind} ${parts.map((ms) => shown(ms, 2)).join(' and ')}`),
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
