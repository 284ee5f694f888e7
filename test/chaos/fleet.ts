/** Two APIs and three workers, each kept running: whoever ends is replaced by a new process. */
import { setTimeout as sleep } from 'node:timers/promises'
import { startFleetProcess, type FleetProcess, type LogLine } from './fleet-process.ts'

export type Role = 'api' | 'worker'

/** A place in the fleet, and the process that has it now. */
export interface Seat {
  readonly role: Role
  process: FleetProcess
  /** `null` until it is ready. */
  readyAt: number | null
  frozen: boolean
  /** Where an API listens. */
  address: string
  /** Requests that wait for this API's answer. */
  inFlight: number
}

export interface FleetLog {
  /** Writes that were refused since the turn was another's. */
  fencedWrites: number
  /** Turns that a worker dropped by itself, its lease being over. */
  lostLeases: number
  /** Starts that failed since a server was away. */
  failedStarts: number
  /** Processes that ended though nobody told them to. */
  crashes: string[]
  /** Processes that did not end in order when they were told to. */
  badExits: string[]
  /** Warnings and errors, with how often each was logged. */
  complaints: Map<string, number>
}

export interface Fleet {
  readonly seats: readonly Seat[]
  readonly log: FleetLog
  /** Of this role, ready and not frozen. */
  usable(role: Role): Seat[]
  /** Replaces it at once; the former process is signalled and not waited for. */
  replace(seat: Seat, signal: 'SIGKILL' | 'SIGTERM'): FleetProcess
  freeze(seat: Seat): FleetProcess
  /** Resolves when everybody has ended in order. */
  stop(): Promise<void>
}

export interface FleetOptions {
  apis: number
  workers: number
  logDir: string
  /** The environment of a process of this name. */
  environment(name: string): Record<string, string>
  /** How long a process may take to end, in ms. */
  exitWithinMs: number
}

const ENTRIES = {
  api: { entry: 'src/main.ts', readyMessage: 'listening' },
  worker: { entry: 'workers/turns.ts', readyMessage: 'working' },
} as const

const RESTART_MS = 200

/** How often a process may fail to start at first. */
const STARTS = 5

export async function startFleet(options: FleetOptions): Promise<Fleet> {
  const fleet = new RunningFleet(options)
  await fleet.start()
  return fleet
}

class RunningFleet implements Fleet {
  readonly seats: Seat[] = []
  readonly log: FleetLog = {
    fencedWrites: 0,
    lostLeases: 0,
    failedStarts: 0,
    crashes: [],
    badExits: [],
    complaints: new Map(),
  }
  readonly #options: FleetOptions
  readonly #count: Record<Role, number> = { api: 0, worker: 0 }
  readonly #told = new Set<FleetProcess>()
  readonly #leaving = new Set<Promise<void>>()
  #stopping = false

  constructor(options: FleetOptions) {
    this.#options = options
  }

  /** The first API alone makes the tables; then everybody else comes. */
  async start(): Promise<void> {
    const [first, ...others] = [...this.#roles()]
    await this.#seat(first!).process.ready
    await Promise.all(others.map((role) => this.#started(this.#seat(role))))
  }

  /** Many start at once: one to which Postgres answered too late on a busy machine is started again, as ever. */
  async #started(seat: Seat): Promise<void> {
    for (let start = 1; ; start++) {
      const { process: starting } = seat
      try {
        await starting.ready
        return
      } catch (error) {
        if (start === STARTS) throw error
      }
      while (seat.process === starting) await sleep(50)
    }
  }

  *#roles(): Generator<Role> {
    for (let count = 0; count < this.#options.apis; count++) yield 'api'
    for (let count = 0; count < this.#options.workers; count++) yield 'worker'
  }

  #seat(role: Role): Seat {
    const seat: Seat = {
      role,
      process: this.#launch(role),
      readyAt: null,
      frozen: false,
      address: '',
      inFlight: 0,
    }
    this.seats.push(seat)
    this.#watch(seat)
    return seat
  }

  #launch(role: Role): FleetProcess {
    const name = `${role}-${++this.#count[role]}`
    const environment = this.#options.environment(name)
    const { logDir } = this.#options
    const onLine = (line: LogLine): void => this.#read(line)
    return startFleetProcess({ ...ENTRIES[role], name, environment, logDir, onLine })
  }

  #watch(seat: Seat): void {
    const { process: watched } = seat
    watched.ready.then(
      (line) => {
        if (seat.process !== watched) return
        const [address] = (line['addresses'] ?? []) as { port: number }[]
        seat.address = `http://127.0.0.1:${address?.port ?? 0}`
        seat.readyAt = Date.now()
      },
      () => undefined,
    )
    void watched.exited.then(() => this.#onExit(seat, watched))
  }

  async #onExit(seat: Seat, ended: FleetProcess): Promise<void> {
    if (this.#told.has(ended) || this.#isStopping()) return
    const wasReady = await ended.ready.then(() => true, () => false) // prettier-ignore
    if (wasReady) this.log.crashes.push(`${ended.name} ended by itself:\n${ended.tail().join('\n')}`)
    else this.log.failedStarts++
    await sleep(RESTART_MS)
    if (!this.#isStopping()) this.#succeed(seat)
  }

  #isStopping = (): boolean => this.#stopping

  #succeed(seat: Seat): void {
    Object.assign(seat, { readyAt: null, frozen: false, inFlight: 0, process: this.#launch(seat.role) })
    this.#watch(seat)
  }

  usable(role: Role): Seat[] {
    return this.seats.filter((seat) => seat.role === role && seat.readyAt !== null && !seat.frozen)
  }

  replace(seat: Seat, signal: 'SIGKILL' | 'SIGTERM'): FleetProcess {
    const { process: former } = seat
    this.#told.add(former)
    former.signal(signal)
    const left = signal === 'SIGTERM' ? this.#awaitExit(former) : former.exited.then(() => undefined)
    this.#leaving.add(left)
    void left.finally(() => this.#leaving.delete(left))
    this.#succeed(seat)
    return former
  }

  freeze(seat: Seat): FleetProcess {
    seat.frozen = true
    seat.process.signal('SIGSTOP')
    return seat.process
  }

  async stop(): Promise<void> {
    this.#stopping = true
    const running = this.seats.map((seat) => seat.process).filter((one) => one.isRunning())
    for (const one of running) one.signal('SIGCONT')
    for (const one of running) one.signal('SIGTERM')
    await Promise.all([...this.#leaving, ...running.map((one) => this.#awaitExit(one))])
  }

  async #awaitExit(leaving: FleetProcess): Promise<void> {
    const wasReady = await Promise.race([leaving.ready.then(() => true, () => false), sleep(0, false)]) // prettier-ignore
    const overdue = setTimeout(() => leaving.signal('SIGKILL'), this.#options.exitWithinMs)
    const code = await leaving.exited
    clearTimeout(overdue)
    // One that was still starting knows no signal yet, or gives up as its server is away.
    if (wasReady && code !== 0) this.log.badExits.push(`${leaving.name} ended with ${code ?? 'SIGKILL'}`)
  }

  #read(line: LogLine): void {
    const message = String(line['msg'])
    if (message === 'the turn is no longer held by this worker') {
      if (line['why'] === 'lease') this.log.lostLeases++
      else this.log.fencedWrites++
    }
    if (!['warn', 'error', 'fatal', 'text'].includes(String(line['level']))) return
    const { code, message: detail } = (line['error'] ?? {}) as { code?: string; message?: string }
    const complaint = [line['level'], message, code, detail].filter(Boolean).join(' | ').slice(0, 200)
    const kind = complaint.replaceAll(/[0-9a-f]{8}-[0-9a-f-]{27}/g, '<id>').replaceAll(/\b\d{3,}\b/g, '<n>')
    this.log.complaints.set(kind, (this.log.complaints.get(kind) ?? 0) + 1)
  }
}
