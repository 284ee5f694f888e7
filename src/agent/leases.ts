import type { Claim, RenewedLease } from '../chats/index.ts'
import { TurnmillError } from '../protocol/errors.ts'

export interface LeaseKeeperOptions {
  chats: { renew(held: readonly HeldLease[]): Promise<RenewedLease[]> }
  leaseMs: number
  renewalMs: number
  onError(error: unknown): void
}

/** What is held under a lease: a turn, or an auxiliary run, whose id stands where the turn's does. */
export type HeldLease = Pick<Claim, 'turnId' | 'epoch' | 'apiKeyId'>

/** The turns that this process holds: renews all their leases in one statement, and aborts those it has lost. */
export interface LeaseKeeper {
  /** The signal aborts with a `TurnmillError`: `turn_fenced`, `turn_interrupted`, `key_revoked`, `database_unavailable` or what `abortAll` was given. */
  hold(claim: HeldLease): AbortSignal
  drop(claim: HeldLease): void
  /** Looks at once whether the turn was told to stop, rather than with the next renewal. */
  poke(turnId: string): void
  /** Aborts those that are held, and those that will be until the keeper is started anew. */
  abortAll(reason: TurnmillError): void
  /** How many turns are held. */
  size(): number
  start(): void
  stop(): void
}

interface HeldTurn {
  claim: HeldLease
  abort: AbortController
  /** By this process's monotonic clock: when the lease was surely ours last. */
  renewedAt: number
}

export function createLeaseKeeper({ chats, leaseMs, renewalMs, onError }: LeaseKeeperOptions): LeaseKeeper {
  const held = new Map<string, HeldTurn>()
  const keyOf = ({ turnId, epoch }: Pick<Claim, 'turnId' | 'epoch'>): string => `${turnId} ${epoch}`
  // Pokes for turns whose claim may be on its way back from Postgres; forgotten with every second renewal.
  const early = new Set<string>()
  let earlier = new Set<string>()
  let timer: NodeJS.Timeout | undefined
  /** What all were aborted with. */
  let aborted: TurnmillError | null = null
  /** When the renewal that is under way was sent. */
  let asked: number | null = null
  let again = false
  let tickedAt = 0
  /** Whether the present renewal was due long ago: the process has not run. */
  let thawed = false

  /**
   * Whoever could not renew for a whole lease must assume that the turn runs elsewhere by now. A process that was frozen
   * has not tried: it asks first, for nobody may have taken its turns, and until the next renewal is due its calls may
   * still read what has arrived meanwhile.
   */
  function giveUpExpired(): void {
    if (thawed) return
    const now = performance.now()
    for (const { claim, abort, renewedAt } of held.values())
      if (now - renewedAt >= leaseMs) abort.abort(unrenewed(claim, leaseMs))
  }

  /** After a freeze the answer may have come long ago: it is read first, and whether it has is seen right after. */
  function askAgain(unanswered: number): void {
    again = true
    setImmediate(() => {
      if (asked === unanswered) giveUpExpired()
    })
  }

  async function renew(): Promise<void> {
    if (asked !== null) askAgain(asked)
    if (asked !== null || held.size === 0) return
    const turns = [...held.values()]
    const askedAt = performance.now()
    asked = askedAt
    try {
      const renewed = await chats.renew(turns.map((turn) => turn.claim))
      const leases = new Map(renewed.map((lease) => [keyOf(lease), lease]))
      for (const turn of turns) {
        const lease = leases.get(keyOf(turn.claim))
        if (lease !== undefined) turn.renewedAt = askedAt
        if (lease === undefined) turn.abort.abort(fenced(turn.claim, 'it is held elsewhere or ended'))
        else if (lease.state === 'interrupting') turn.abort.abort(interrupted(turn.claim))
        else if (lease.keyState === 'invalid') turn.abort.abort(revoked(turn.claim))
        else if (lease.keyState === 'none' && turn.claim.apiKeyId !== null)
          turn.abort.abort(deleted(turn.claim))
      }
    } catch (error) {
      onError(error)
      // One that was asked before a freeze says nothing of now.
      if (performance.now() - askedAt < leaseMs) giveUpExpired()
      else again = true
    } finally {
      asked = null
    }
    // Somebody asked while the answer was under way, and it may be older than the question.
    if (again) {
      again = false
      await renew()
    }
  }

  return {
    hold: (claim) => {
      const abort = new AbortController()
      held.set(keyOf(claim), { claim, abort, renewedAt: performance.now() })
      if (aborted !== null) abort.abort(aborted)
      if (early.delete(claim.turnId)) void renew()
      return abort.signal
    },
    drop: (claim) => void held.delete(keyOf(claim)),
    poke: (turnId) => {
      // What is held may be an older claim, and the one that is meant on its way.
      early.add(turnId)
      earlier.delete(turnId)
      if ([...held.values()].some(({ claim }) => claim.turnId === turnId)) void renew()
    },
    abortAll: (reason) => {
      aborted = reason
      for (const { abort } of held.values()) abort.abort(reason)
    },
    size: () => held.size,
    start: () => {
      aborted = null
      tickedAt = performance.now()
      timer ??= setInterval(() => {
        const now = performance.now()
        thawed = now - tickedAt > 1.5 * renewalMs
        tickedAt = now
        for (const turnId of earlier) early.delete(turnId)
        earlier = new Set(early)
        void renew()
      }, renewalMs)
    },
    stop: () => {
      clearInterval(timer)
      timer = undefined
    },
  }
}

const fenced = ({ turnId, epoch }: HeldLease, why: string): TurnmillError =>
  new TurnmillError('turn_fenced', `turn ${turnId} under epoch ${epoch} was lost: ${why}`)

/** Whether somebody else holds it by now only Postgres can say: the next write finds it out, and gives the turn back if not. */
const unrenewed = ({ turnId, epoch }: HeldLease, leaseMs: number): TurnmillError =>
  new TurnmillError(
    'database_unavailable',
    `the lease of turn ${turnId} under epoch ${epoch} could not be renewed for ${leaseMs} ms`,
  )

const interrupted = ({ turnId }: HeldLease): TurnmillError =>
  new TurnmillError('turn_interrupted', `turn ${turnId} was told to stop`)

const deleted = ({ apiKeyId }: HeldLease): TurnmillError =>
  new TurnmillError('missing_key', `API key ${apiKeyId} was deleted while its turn ran`)

const revoked = ({ apiKeyId }: HeldLease): TurnmillError =>
  new TurnmillError('key_revoked', `API key ${apiKeyId} was revoked or expired while its turn ran`)
