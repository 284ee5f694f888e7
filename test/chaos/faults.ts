/** What is done to the fleet, how often, and in which order. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { BackendKind } from '../support/turnmill.ts'
import type { Fleet, Role, Seat } from './fleet.ts'
import type { JobForger } from './job-forger.ts'
import type { Random } from './random.ts'
import type { Departure } from './recovery.ts'
import type { RedisServer, Server } from './servers.ts'

export const FAULTS = [
  'worker killed',
  'API killed',
  'worker frozen',
  'worker drained',
  'Redis flushed',
  'Redis restarted',
  'Postgres restarted',
  'jobs duplicated',
  'jobs forged',
] as const
export type Fault = (typeof FAULTS)[number]

/** How often each happens, for each worker that is killed; each at least once. */
const SHARES: Readonly<Record<Fault, number>> = {
  'worker killed': 1,
  'API killed': 0.2,
  'worker frozen': 0.3,
  'worker drained': 0.2,
  'Redis flushed': 0.1,
  'Redis restarted': 0.1,
  'Postgres restarted': 0.1,
  'jobs duplicated': 0.4,
  'jobs forged': 0.2,
}

/** The kinds that are to happen. */
export const plannedKinds = ({ backend, only }: { backend: BackendKind; only: readonly Fault[] }): Fault[] =>
  FAULTS.filter((fault) => backend === 'redis' || !fault.startsWith('Redis')).filter(
    (fault) => only.length === 0 || only.includes(fault),
  )

export const planFaults = (kinds: readonly Fault[], kills: number, random: Random): Fault[] =>
  random.shuffle(
    kinds.flatMap((fault) => Array<Fault>(Math.max(1, Math.round(kills * SHARES[fault]))).fill(fault)),
  )

export interface FaultRecord {
  counts: Map<Fault, number>
  /** Jobs that were put onto the queue. */
  duplicates: number
  forged: number
  /** Of workers that held turns, to measure how soon these were claimed elsewhere. */
  departures: Departure[]
  /** Workers that were told to stop. */
  drained: Set<string>
}

export interface Ground {
  fleet: Fleet
  postgres: Server
  redis: RedisServer | null
  forger: JobForger
  random: Random
  /** The lease and the lock, in ms. */
  leaseMs: number
  /** Called with true while a fault waits for requests to come. */
  onWant(requests: boolean): void
}

const LOOK_MS = 20
const ANSWER_LOOK_MS = 2
const PATIENCE_MS = 10_000

export class FaultMaker {
  readonly record: FaultRecord = {
    counts: new Map(),
    duplicates: 0,
    forged: 0,
    departures: [],
    drained: new Set(),
  }
  readonly #ground: Ground
  readonly #thaws = new Set<Promise<void>>()

  constructor(ground: Ground) {
    this.#ground = ground
  }

  /** Returns once the fault is done; a frozen worker thaws later. */
  async make(fault: Fault): Promise<void> {
    await this.#do(fault)
    this.record.counts.set(fault, (this.record.counts.get(fault) ?? 0) + 1)
  }

  /** Resolves when nobody is frozen any more. */
  async settled(): Promise<void> {
    await Promise.all(this.#thaws)
  }

  async #do(fault: Fault): Promise<void> {
    const { postgres, redis, forger } = this.#ground
    switch (fault) {
      case 'worker killed':
        this.#kill(await this.#victim('worker'))
        break
      case 'API killed':
        await this.#killAnswering()
        break
      case 'worker frozen':
        this.#freeze(await this.#victim('worker'))
        break
      case 'worker drained':
        this.#drain(await this.#victim('worker'))
        break
      case 'Redis flushed':
        await redis?.flush()
        break
      case 'Redis restarted':
        await this.#restart(redis)
        break
      case 'Postgres restarted':
        await this.#restart(postgres)
        break
      case 'jobs duplicated':
        this.record.duplicates += await forger.duplicate()
        break
      case 'jobs forged':
        this.record.forged += await forger.forge()
    }
  }

  /** One of at least two, where that comes about soon: a fleet without a single worker recovers from nothing. */
  async #victim(role: Role): Promise<Seat> {
    const { fleet, random } = this.#ground
    for (let waited = 0; ; waited += LOOK_MS) {
      const usable = fleet.usable(role)
      if (usable.length > (waited > PATIENCE_MS ? 0 : 1)) return random.pick(usable)
      await sleep(LOOK_MS)
    }
  }

  #kill(seat: Seat): void {
    this.record.departures.push({ process: seat.process.name, at: Date.now() })
    this.#ground.fleet.replace(seat, 'SIGKILL')
  }

  /** In the middle of a request, if one comes within reasonable time. */
  async #killAnswering(): Promise<void> {
    const { fleet, onWant } = this.#ground
    const answering = (): Seat | undefined => fleet.usable('api').find(({ inFlight }) => inFlight > 0)
    const anyone = await this.#victim('api')
    onWant(true)
    for (let waited = 0; answering() === undefined && waited < PATIENCE_MS; waited += ANSWER_LOOK_MS)
      await sleep(ANSWER_LOOK_MS)
    onWant(false)
    fleet.replace(answering() ?? anyone, 'SIGKILL')
  }

  /** Past the lease and the lock. Whoever is killed meanwhile stays frozen for good. */
  #freeze(seat: Seat): void {
    const { fleet, random, leaseMs } = this.#ground
    this.record.departures.push({ process: seat.process.name, at: Date.now() })
    const frozen = fleet.freeze(seat)
    const thaw = sleep(leaseMs * random.between(1.3, 2.5)).then(() => {
      frozen.signal('SIGCONT')
      if (seat.process === frozen) seat.frozen = false
    })
    this.#thaws.add(thaw)
  }

  #drain(seat: Seat): void {
    this.record.drained.add(seat.process.name)
    this.#ground.fleet.replace(seat, 'SIGTERM')
  }

  async #restart(server: Server | null): Promise<void> {
    await server?.crash()
    await sleep(this.#ground.leaseMs * this.#ground.random.between(0, 0.8))
    await server?.restart()
  }
}
