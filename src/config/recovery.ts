import { integer, milliseconds } from './setting.ts'

/** How turns are held, taken over and given back, and how long the books are kept. */
export const RECOVERY = {
  leaseMs: milliseconds({
    name: 'TURNMILL_LEASE_MS',
    default: '10000',
    sentence: 'How long a worker holds a turn without renewing.',
  }),
  leaseRenewalMs: milliseconds({
    name: 'TURNMILL_LEASE_RENEWAL_MS',
    default: '3000',
    sentence: 'How often a worker renews its leases; well below the lease.',
  }),
  lockMs: milliseconds({
    name: 'TURNMILL_LOCK_MS',
    default: '10000',
    sentence: "BullMQ's lock on a running job.",
  }),
  stalledCheckMs: milliseconds({
    name: 'TURNMILL_STALLED_CHECK_MS',
    default: '5000',
    sentence: 'How often BullMQ looks for jobs whose lock ran out.',
  }),
  maxTakeovers: integer(
    {
      name: 'TURNMILL_MAX_TAKEOVERS',
      default: '10',
      unit: 'takeovers',
      sentence: 'Takeovers of a turn without a committed step before it fails as `worker_lost`.',
    },
    1,
    1000,
  ),
  reconcilerPeriodMs: milliseconds({
    name: 'TURNMILL_RECONCILER_PERIOD_MS',
    default: '2000',
    sentence: 'How often each process looks for work that the queue has lost.',
  }),
  lostAfterMs: milliseconds({
    name: 'TURNMILL_LOST_AFTER_MS',
    default: '5000',
    sentence: 'How old an enqueueing must be before the reconciler asks the queue for its job.',
  }),
  recordRetentionDays: integer(
    {
      name: 'TURNMILL_RECORD_RETENTION_DAYS',
      default: '90',
      unit: 'days',
      sentence:
        'How long the gateway keeps the record of a call: what it used and cost, and which tools it asked for.',
    },
    1,
    36_500,
  ),
  promptRetentionDays: integer(
    {
      name: 'TURNMILL_PROMPT_RETENTION_DAYS',
      default: '30',
      unit: 'days',
      sentence:
        'How long the gateway keeps what the user said last before a call; no longer than the record.',
    },
    1,
    36_500,
  ),
  drainMs: milliseconds({
    name: 'TURNMILL_DRAIN_MS',
    default: '20000',
    sentence: 'How long a stopping worker lets its turns end before it gives them back.',
  }),
}
