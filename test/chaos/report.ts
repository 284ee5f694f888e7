import type { StormOptions } from './options.ts'
import { plannedKinds, type FaultRecord } from './faults.ts'
import type { Facts } from './facts.ts'
import type { FleetLog } from './fleet.ts'
import { INVARIANTS } from './invariants.ts'
import { handBackTimes, quantile, recoveryTimes } from './recovery.ts'

export interface StormReport {
  options: StormOptions
  seconds: number
  passed: boolean
  /** What happened, by name, in the order of the table. */
  figures: Record<string, number | string | null>
  faults: Record<string, number>
  /** Per broken promise, what broke it. */
  violations: Record<string, string[]>
  complaints: Record<string, number>
  refusals: Record<string, number>
}

export interface StormResult {
  options: StormOptions
  seconds: number
  facts: Facts
  faults: FaultRecord
  fleet: FleetLog
  /** `null` where everything came to rest in time. */
  unsettled: string | null
}

export function makeReport(result: StormResult): StormReport {
  const { options, seconds, facts, faults, fleet } = result
  const violations = findViolations(result)
  return {
    options,
    seconds: Math.round(seconds),
    passed: Object.keys(violations).length === 0,
    figures: figuresOf(result, violations),
    faults: Object.fromEntries(plannedKinds(options).map((kind) => [kind, faults.counts.get(kind) ?? 0])),
    violations,
    complaints: Object.fromEntries([...fleet.complaints].sort(([, a], [, b]) => b - a)),
    refusals: Object.fromEntries(facts.ledger.refusals),
  }
}

function findViolations(result: StormResult): Record<string, string[]> {
  const { options, facts, faults, fleet, unsettled } = result
  const missing = plannedKinds(options).filter((kind) => !faults.counts.has(kind))
  const found: [name: string, broken: string[]][] = [
    ...INVARIANTS.map(({ name, violations }): [string, string[]] => [name, violations(facts)]),
    ['faults', missing.map((kind) => `"${kind}" was planned and never happened`)],
    ['rest', unsettled === null ? [] : [unsettled]],
    ['processes', [...fleet.crashes, ...fleet.badExits]],
    ['answers', facts.ledger.offences],
  ]
  return Object.fromEntries(found.filter(([, broken]) => broken.length > 0))
}

function figuresOf(
  { facts, faults, fleet }: StormResult,
  violations: Record<string, string[]>,
): StormReport['figures'] {
  const turns = [...facts.turns.values()]
  const inState = (state: string): number => turns.filter((turn) => turn.state === state).length
  const total = (of: (turn: (typeof turns)[number]) => number): number =>
    turns.reduce((sum, turn) => sum + of(turn), 0)
  const recoveries = recoveryTimes(facts.log, faults.departures)
  const handBacks = handBackTimes(facts.log, faults.drained)
  const count = (name: string): number => violations[name]?.length ?? 0
  return {
    'messages acknowledged': facts.ledger.acknowledged,
    'messages without an answer to the end': facts.ledger.messages.filter(({ outcome }) => outcome === 'unknown').length,
    'turns': turns.length,
    '  completed': inState('completed'),
    '  interrupted': inState('interrupted'),
    '  failed': inState('failed'),
    '  superseded': inState('superseded'),
    'requests to the provider': facts.journal.length,
    'requests of clients sent again': facts.ledger.unanswered,
    'answers given again (Idempotency-Key)': facts.ledger.replayed,
    'duplicate jobs': faults.duplicates,
    'forged jobs': faults.forged,
    're-runs (claims beyond the first)': total(({ epoch }) => Math.max(0, epoch - 1)),
    'takeovers': total(({ takeovers }) => takeovers),
    'fenced writes': fleet.fencedWrites,
    'turns dropped with their lease': fleet.lostLeases,
    'lost': count('I1'),
    'doubled': count('I1 once') + count('I2'),
    'turns that lost their worker': recoveries.length,
    'recovery p50 (ms)': rounded(quantile(recoveries, 0.5)),
    'recovery p99 (ms)': rounded(quantile(recoveries, 0.99)),
    'recovery, slowest (ms)': rounded(quantile(recoveries, 1)),
    'turns handed back by drains': handBacks.length,
    'handed back, p50 (ms)': rounded(quantile(handBacks, 0.5)),
    'handed back, slowest (ms)': rounded(quantile(handBacks, 1)),
    'starts that failed in an outage': fleet.failedStarts,
  } // prettier-ignore
}

const rounded = (value: number | null): number | null => (value === null ? null : Math.round(value))

const SHOWN = 8

export function formatReport({
  options,
  seconds,
  passed,
  figures,
  faults,
  violations,
  complaints,
}: StormReport): string {
  const { backend, turns, kills, scale, seed } = options
  const broken = Object.entries(violations).flatMap(([name, found]) => [
    `✗ ${promiseOf(name)}: ${found.length}`,
    ...found.slice(0, SHOWN).map((line) => `    ${line}`),
  ])
  return [
    '',
    `storm on ${backend}: --turns ${turns} --kills ${kills} --scale ${scale} --seed ${seed}, ${seconds} s`,
    '',
    ...rows(figures),
    '',
    ...rows(faults),
    '',
    ...INVARIANTS.filter(({ name }) => !(name in violations)).map(({ name }) => `✓ ${promiseOf(name)}`),
    ...broken,
    '',
    ...(passed
      ? []
      : [
          'most frequent complaints:',
          ...rows(Object.fromEntries(Object.entries(complaints).slice(0, SHOWN))),
        ]),
    passed ? 'passed' : `FAILED; try again with --seed ${seed}`,
  ].join('\n')
}

const promiseOf = (name: string): string => {
  const invariant = INVARIANTS.find((one) => one.name === name)
  return invariant === undefined ? name : `${name}: ${invariant.promise}`
}

function rows(values: Record<string, number | string | null>): string[] {
  const width = Math.max(0, ...Object.keys(values).map((name) => name.length))
  return Object.entries(values).map(
    ([name, value]) => `  ${name.padEnd(width)}  ${String(value ?? '–').padStart(7)}`,
  )
}
