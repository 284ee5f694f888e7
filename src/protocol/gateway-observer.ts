import type { Usage } from './usage.ts'

/** Whose call it is, in words of which there are not many: `other` stands for every model that is not stored. */
export interface CallLabels {
  provider: string
  model: string
}

export interface CallObservation extends CallLabels {
  outcome: 'ok' | 'refused' | 'broken'
  durationMs: number
  usage: Usage | null
  costMicros: number | null
}

/** Who counts. Must not throw. */
export interface GatewayObserver {
  /** @param addedMs from the request to the call of the provider. */
  onSent(labels: CallLabels, addedMs: number): void
  onCall(observation: CallObservation): void
  /** A call that the gateway itself has not made. */
  onRefusal(code: string): void
  onFailover(provider: string): void
}
