import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import type { CallLabels, GatewayObserver } from '../protocol/gateway-observer.ts'
import type { Usage } from '../protocol/usage.ts'

/** What the gateway counts. No label has more values than there are stored providers and models. */
export interface GatewayMetrics extends GatewayObserver {
  onBreaker(labels: CallLabels, open: boolean): void
}

const SECONDS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600]
const ADDED_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1]

export function createGatewayMetrics(registry: Registry): GatewayMetrics {
  const registers = [registry]
  const perModel = ['provider', 'model'] as const
  const counter = <T extends string>(name: string, help: string, labelNames: readonly T[]): Counter<T> =>
    new Counter({ name: `turnmill_gateway_${name}`, help, labelNames: [...labelNames], registers })
  const histogram = (name: string, help: string, buckets: number[]): Histogram<'provider'> =>
    new Histogram({ name: `turnmill_gateway_${name}`, help, labelNames: ['provider'], buckets, registers })

  const calls = counter('calls_total', 'Calls of providers, by how they ended.', [...perModel, 'outcome'])
  const tokens = counter('tokens_total', 'Tokens, by kind; reasoning is a part of output.', [
    ...perModel,
    'kind',
  ])
  const cost = counter('cost_micros_total', 'Cost in micro-dollars.', perModel)
  const unpriced = counter(
    'unpriced_calls_total',
    'Calls that used tokens of a model without a price.',
    perModel,
  )
  const refusals = counter('refusals_total', 'Calls that the gateway has not made.', ['code'])
  const failovers = counter('failovers_total', 'Calls that went on with the next key.', ['provider'])
  const duration = histogram('duration_seconds', 'From the request to the end of its answer.', SECONDS)
  const added = histogram('added_seconds', 'From the request to the call of the provider.', ADDED_SECONDS)
  const breakers = new Gauge({
    name: 'turnmill_gateway_breaker_open',
    help: 'Models that are left alone: 1 or 0 of a stored one, any number of the others.',
    labelNames: [...perModel],
    registers,
  })

  return {
    onSent: ({ provider }, addedMs) => added.observe({ provider }, addedMs / 1000),
    onCall: ({ provider, model, outcome, durationMs, usage, costMicros }) => {
      calls.inc({ provider, model, outcome })
      duration.observe({ provider }, durationMs / 1000)
      if (usage === null) return
      for (const [kind, count] of Object.entries(tokensOf(usage)))
        tokens.inc({ provider, model, kind }, count)
      if (costMicros === null) unpriced.inc({ provider, model })
      else cost.inc({ provider, model }, costMicros)
    },
    onRefusal: (code) => refusals.inc({ code }),
    onFailover: (provider) => failovers.inc({ provider }),
    onBreaker: (labels, open) => breakers.inc({ ...labels }, open ? 1 : -1),
  }
}

const tokensOf = (usage: Usage): Record<string, number> => ({
  input: usage.inputTokens,
  output: usage.outputTokens,
  cache_read: usage.cacheReadTokens,
  cache_write: usage.cacheWriteTokens,
})
