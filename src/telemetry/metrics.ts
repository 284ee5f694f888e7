import { collectDefaultMetrics, Counter, Gauge, Registry } from 'prom-client'
import { createGatewayMetrics, type GatewayMetrics } from './gateway-metrics.ts'

/** What a process counts, for Prometheus. No label has more values than the code has words. */
export interface Metrics {
  /** Writes of a worker that had lost its turn and changed nothing. */
  fencedWrites: Counter<'transition'>
  /** Claims of a turn whose worker was lost. */
  takeovers: Counter
  /** Jobs by their queue and how they ended. */
  jobs: Counter<'queue' | 'outcome'>
  /** What the reconciler put right. Anything but `admitted` and `resumed` is work that was lost somewhere. */
  reconciled: Counter<'what'>
  gateway: GatewayMetrics
  /** The text that Prometheus reads, and its content type. */
  render(): Promise<{ contentType: string; text: string }>
}

export interface TurnCounts {
  pending: number
  running: number
  /** How long the oldest turn that may run has waited for a worker, in ms. */
  oldestWaitMs: number
}

/**
 * @param countTurns asked when Prometheus asks: every process tells the same, so a scaler may take the maximum. A failure
 * leaves the last values.
 */
export function createMetrics(countTurns: () => Promise<TurnCounts>): Metrics {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const registers = [registry]
  const counter = <T extends string>(name: string, help: string, labelNames: T[] = []): Counter<T> =>
    new Counter({ name, help, labelNames, registers })
  const pending = new Gauge({
    name: 'turnmill_turns_pending',
    help: 'Turns that wait for a slot or a worker.',
    registers,
  })
  const running = new Gauge({ name: 'turnmill_turns_running', help: 'Turns that a worker holds.', registers })
  const oldest = new Gauge({
    name: 'turnmill_turns_oldest_wait_seconds',
    help: 'How long the oldest turn that may run has waited for a worker.',
    registers,
  })
  const fencedWrites = counter(
    'turnmill_fenced_writes_total',
    'Writes of workers that had lost their turn.',
    ['transition'],
  )
  const takeovers = counter('turnmill_takeovers_total', 'Claims of turns whose worker was lost.')
  const jobs = counter('turnmill_jobs_total', 'Jobs by their queue and how they ended.', ['queue', 'outcome'])
  const reconciled = counter('turnmill_reconciled_total', 'Turns that the reconciler put right.', ['what'])

  async function refresh(): Promise<void> {
    const counts = await countTurns()
    pending.set(counts.pending)
    running.set(counts.running)
    oldest.set(counts.oldestWaitMs / 1000)
  }

  return {
    fencedWrites,
    takeovers,
    jobs,
    reconciled,
    gateway: createGatewayMetrics(registry),
    render: async () => {
      await refresh().catch(() => undefined)
      return { contentType: registry.contentType, text: await registry.metrics() }
    },
  }
}
