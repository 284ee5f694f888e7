import type { Prices, Usage } from '../protocol/usage.ts'
import { costMicros, NO_USAGE } from '../protocol/usage.ts'
import type { Books, Settlement } from './books.ts'
import type { Meter } from './meter.ts'
import type { CallLabels, CallObservation } from '../protocol/gateway-observer.ts'

export interface OpenCall {
  id: string
  prompt: string | null
  prices: Prices | null
  /** The most input it may be charged for, in tokens: what counts where the provider says nothing. */
  inputBound: number
  /** The longest answer it may have, in tokens; `null` where nothing bounds it. */
  outputBound: number | null
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

/**
 * What was reported in the end. What was not is estimated: the input at its bound, the output by what has passed of it, of
 * an answer that broke off too.
 */
function usageOf({ inputBound, outputBound }: OpenCall, { meter }: CallEnd): Usage {
  const reported = meter?.usage() ?? NO_USAGE
  const { input, output } = meter?.sides() ?? { input: false, output: false }
  const complete = meter?.isComplete() === true && output
  const passed = Math.min(meter?.passed() ?? 0, outputBound ?? Infinity)
  return {
    ...reported,
    inputTokens: input ? reported.inputTokens : inputBound,
    outputTokens: complete ? reported.outputTokens : Math.max(reported.outputTokens, passed),
    estimated: !(input && complete),
  }
}
