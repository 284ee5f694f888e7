import { parseArgs } from 'node:util'
import type { BackendKind } from '../support/turnmill.ts'
import { FAULTS, type Fault } from './faults.ts'

export interface StormOptions {
  backend: BackendKind
  /** Messages that must be acknowledged before the load ends. */
  turns: number
  /** Workers that are killed; the other faults follow from it. */
  kills: number
  /** Leases, locks and periods, as a share of the product's defaults. */
  scale: number
  seed: number
  /** Chats in which something is said at a time. */
  clients: number
  users: number
  /** The kinds of faults that are made, to find the one that breaks something; empty for all. */
  only: Fault[]
  /** Where the report is written as JSON; empty for nowhere. */
  json: string
  /** Keeps the logs of all processes, also of a run that passes. */
  keep: boolean
}

export class UsageError extends Error {
  override readonly name = 'UsageError'
}

export const USAGE = `npm run storm -- [options]
  --backend redis|postgres   where the queue lies (redis)
  --turns N                  messages to be acknowledged (2000)
  --kills N                  workers killed; other faults follow from it (20)
  --scale S                  leases, locks and periods as a share of the defaults (0.1)
  --seed N                   repeats the choices of an earlier storm, not its timing (random)
  --clients N                chats spoken in at a time (40)
  --users N                  users they belong to (12)
  --only A,B                 only these faults, such as "worker drained" (all)
  --json FILE                also writes the report there
  --keep                     keeps the logs of all processes, which a storm that fails does anyway`

const OPTIONS = {
  backend: { type: 'string', default: 'redis' },
  turns: { type: 'string', default: '2000' },
  kills: { type: 'string', default: '20' },
  scale: { type: 'string', default: '0.1' },
  seed: { type: 'string', default: '' },
  clients: { type: 'string', default: '40' },
  users: { type: 'string', default: '12' },
  only: { type: 'string', default: '' },
  json: { type: 'string', default: '' },
  keep: { type: 'boolean', default: false },
} as const

/** @throws {UsageError} naming the option. */
export function readOptions(args: readonly string[]): StormOptions {
  const values = parse(args)
  const whole = (name: 'turns' | 'kills' | 'clients' | 'users' | 'seed'): number => {
    const value = Number(values[name])
    if (!/^\d+$/.test(values[name]) || value < 1)
      throw new UsageError(`--${name} is ${values[name]}, expected a whole number of at least 1`)
    return value
  }
  const scale = Number(values.scale)
  if (!(scale >= 0.05 && scale <= 10)) throw new UsageError(`--scale is ${values.scale}, expected 0.05 to 10`)
  if (values.backend !== 'redis' && values.backend !== 'postgres')
    throw new UsageError(`--backend is ${values.backend}, expected redis or postgres`)
  return {
    backend: values.backend,
    turns: whole('turns'),
    kills: whole('kills'),
    scale,
    seed: values.seed === '' ? 1 + Math.floor(Math.random() * 999_999) : whole('seed'),
    clients: whole('clients'),
    users: whole('users'),
    only: readFaults(values.only),
    json: values.json,
    keep: values.keep,
  }
}

function readFaults(list: string): Fault[] {
  const names = list === '' ? [] : list.split(',')
  return names.map((name) => {
    const fault = FAULTS.find((one) => one === name.trim())
    if (fault === undefined) throw new UsageError(`--only has ${name}, expected some of ${FAULTS.join(', ')}`)
    return fault
  })
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: OPTIONS }).values
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}
