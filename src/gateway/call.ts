import type { Prices, Usage } from '../protocol/usage.ts'
import { costMicros, NO_USAGE } from '../protocol/usage.ts'
import type { UsageBounds } from '../providers/index.ts'
import type { Books, Settlement } from './books.ts'
import type { Meter } from './meter.ts'
import type { CallLabels, CallObservation } from '../protocol/gateway-observer.ts'

export interface OpenCall {
  id: string
  prompt: string | null
  prices: Prices | null
  /** What counts where its provider does not say. */
  bounds: UsageBounds
  /** By this process's monotonic clock. */
  startedAt: number
  books: Books
  /** Called once, before the call is settled. */
  onEnded(observation: Omit<CallObservation, keyof CallLabels>): void
  onUnsettled(error: unknown): void
}

/** How a call ended. */
export interface CallEnd {
  status: number | null
  errorCode: string | null
  /** What has passed of its answer; `null` where there was none. */
  meter: Meter | null
  firstByteAt: number | null
  /** What the call was made with in the end. */
  credential: { kind: 'central' | 'byok' | 'none'; hint: string | null }
  /** Whether tokens were used, as far as anybody can know: the provider took the request. */
  charged: boolean
}

const TRIES = 8
const FIRST_WAIT_MS = 250

/**
 * Settles a call. Tries for a minute while Postgres is away; what is lost then the reconciler settles at its worst case.
 * Never throws.
 */
export async function settleCall(call: OpenCall, end: CallEnd): Promise<void> {
  const usage = end.charged ? usageOf(call, end) : null
  const settlement = {
    id: call.id,
    credential: end.credential,
    status: end.status,
    errorCode: end.errorCode,
    usage,
    costMicros: usage === null ? 0 : call.prices === null ? null : costMicros(usage, call.prices),
    firstByteMs: end.firstByteAt === null ? null : Math.round(end.firstByteAt - call.startedAt),
    prompt: call.prompt,
    tools: end.meter?.tools() ?? [],
  }
  const { costMicros: cost } = settlement
  const durationMs = performance.now() - call.startedAt
  call.onEnded({ outcome: outcomeOf(end), durationMs, usage, costMicros: cost })
  await settleInTime(call.books, settlement, call.onUnsettled)
}

/** Tries for a minute. Never throws. */
export async function settleInTime(
  books: Books,
  settlement: Settlement,
  onUnsettled: (error: unknown) => void,
): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      await books.settle(settlement)
      return
    } catch (error) {
      if (tries === TRIES) {
        onUnsettled(error)
        return
      }
      await new Promise((resolve) => setTimeout(resolve, FIRST_WAIT_MS * 2 ** (tries - 1)).unref())
    }
  }
}

const outcomeOf = ({ status, errorCode }: CallEnd): CallObservation['outcome'] => {
  if (errorCode !== null || status === null) return 'broken'
  return status < 400 ? 'ok' : 'refused'
}

/** Of a call without an answer nothing has passed, and its input is charged. */
const usageOf = ({ bounds }: OpenCall, { meter }: CallEnd): Usage =>
  meter?.usage?.total(bounds) ?? { ...NO_USAGE, inputTokens: bounds.input, estimated: true }
