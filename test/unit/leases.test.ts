import { once } from 'node:events'
import { createLeaseKeeper, type LeaseKeeper } from '../../src/agent/leases.ts'
import type { Claim, RenewedLease } from '../../src/chats/index.ts'
import { TurnmillError } from '../../src/protocol/errors.ts'

const LEASE_MS = 60

const CLAIM = { turnId: 'turn-1', epoch: 1, apiKeyId: 'key-1' } as Claim

const OURS: RenewedLease = { turnId: 'turn-1', epoch: 1, state: 'running', keyState: 'valid' }

/** A keeper whose renewals are answered by `renew`, and what they were asked. */
function keep(
  renew: () => Promise<RenewedLease[]>,
  renewalMs = 10,
): { keeper: LeaseKeeper; renewals: () => number } {
  let renewals = 0
  const keeper = createLeaseKeeper({
    chats: {
      renew: () => {
        renewals += 1
        return renew()
      },
    },
    leaseMs: LEASE_MS,
    renewalMs,
    onError: () => undefined,
  })
  keeper.start()
  return { keeper, renewals: () => renewals }
}

/** Nothing else of this process runs meanwhile, as after a SIGSTOP. */
function freeze(ms: number): void {
  const until = performance.now() + ms
  while (performance.now() < until);
}

const reasonOf = async (signal: AbortSignal): Promise<string> => {
  if (!signal.aborted) await once(signal, 'abort')
  return (signal.reason as TurnmillError).code
}

describe('a lease', () => {
  let keeper: LeaseKeeper
  afterEach(() => keeper.stop())

  test('is kept by a process that was frozen for longer, where nobody has taken the turn', async () => {
    const kept = keep(async () => [OURS])
    keeper = kept.keeper
    const signal = keeper.hold(CLAIM)
    freeze(2 * LEASE_MS)
    const before = kept.renewals()
    while (kept.renewals() < before + 2) await new Promise((resolve) => setTimeout(resolve, 5))
    expect(signal.aborted).toBe(false)
  })

  test('is lost by a process that was frozen, where another one has taken the turn', async () => {
    keeper = keep(async () => []).keeper
    const signal = keeper.hold(CLAIM)
    freeze(2 * LEASE_MS)
    await expect(reasonOf(signal)).resolves.toBe('turn_fenced')
  })

  test('is lost where this very process has taken the turn again', async () => {
    keeper = keep(async () => [{ ...OURS, epoch: 2 }]).keeper
    const [lost, ours] = [keeper.hold(CLAIM), keeper.hold({ ...CLAIM, epoch: 2 })]
    await expect(reasonOf(lost)).resolves.toBe('turn_fenced')
    expect(ours.aborted).toBe(false)
  })

  test('that is taken when all were told to stop is told so, too, until the keeper starts anew', async () => {
    keeper = keep(async () => [OURS]).keeper
    keeper.abortAll(new TurnmillError('worker_stopped', 'stopped'))
    await expect(reasonOf(keeper.hold(CLAIM))).resolves.toBe('worker_stopped')
    keeper.stop()
    keeper.start()
    expect(keeper.hold({ ...CLAIM, epoch: 2 }).aborted).toBe(false)
  })

  test('of a turn that was told to stop while an older claim of it was held is looked at once', async () => {
    const claims = [{ ...OURS, epoch: 2, state: 'interrupting' as const }]
    keeper = keep(async () => claims, 1e9).keeper
    const lost = keeper.hold(CLAIM)
    keeper.poke(CLAIM.turnId)
    await expect(reasonOf(lost)).resolves.toBe('turn_fenced')
    await expect(reasonOf(keeper.hold({ ...CLAIM, epoch: 2 }))).resolves.toBe('turn_interrupted')
  })

  test.each([
    ['cannot be reached', () => Promise.reject(new TurnmillError('database_unavailable', 'away'))],
    ['says nothing', () => new Promise<never>(() => undefined)],
  ])('ends by our own clock while Postgres %s', async (_, renew) => {
    keeper = keep(renew).keeper
    const startedAt = performance.now()
    const signal = keeper.hold(CLAIM)
    await expect(reasonOf(signal)).resolves.toBe('database_unavailable')
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(LEASE_MS)
  })
})
