import {
  circuitBreaker,
  CircuitState,
  ConsecutiveBreaker,
  handleType,
  isBrokenCircuitError,
  type CircuitBreakerPolicy,
} from 'cockatiel'
import { TurnmillError } from '../protocol/errors.ts'
import type { CallLabels } from '../protocol/gateway-observer.ts'

export interface BreakerOptions {
  /** Failures in a row that open it. */
  failures: number
  /** How long it stays open before one call may try again, in ms. */
  openMs: number
  /** Called when a model is left alone, and when it is no longer. Must not throw. */
  onChange(labels: CallLabels, open: boolean): void
}

/** A provider that is not there: it answered 503 or 504, or took no connection. A 429 is no failure of its. */
export class UnavailableError extends Error {
  /** What it answered, if anything. */
  readonly response: Response | null
  constructor(response: Response | null, options?: ErrorOptions) {
    super('the provider is not available', options)
    this.response = response
  }
}

/** Keeps calls from a model that is down, per provider and model, as this process has seen it. */
export interface Breakers {
  /**
   * Runs a call unless the model is known to be down.
   *
   * @param send throws an `UnavailableError` where it is.
   * @throws {TurnmillError} `provider_overloaded` without a call.
   */
  run(labels: CallLabels, send: () => Promise<Response>): Promise<Response>
}

export function createBreakers(options: BreakerOptions): Breakers {
  const { failures, openMs, onChange } = options
  const policies = new Map<string, CircuitBreakerPolicy>()
  const policyOf = (labels: CallLabels): CircuitBreakerPolicy => {
    const name = nameOf(labels)
    const known = policies.get(name)
    if (known !== undefined) return known
    const breaker = new ConsecutiveBreaker(failures)
    const policy = circuitBreaker(handleType(UnavailableError), { halfOpenAfter: openMs, breaker })
    policy.onBreak(() => onChange(labels, true))
    policy.onReset(() => onChange(labels, false))
    policies.set(name, policy)
    return policy
  }
  return {
    run: async (labels, send) => {
      const policy = policyOf(labels)
      // One call tries; the others would wait for how it ends, and it may take minutes.
      if (policy.state === CircuitState.HalfOpen) throw leftAlone(labels, options)
      const isProbe = policy.state === CircuitState.Open
      try {
        return await policy.execute(() => (isProbe ? sendProbe(send) : send()))
      } catch (error) {
        if (isBrokenCircuitError(error)) throw leftAlone(labels, options)
        if (error instanceof UnavailableError && error.response !== null) return error.response
        throw error instanceof UnavailableError ? error.cause : error
      }
    },
  }
}

/** A probe that was broken off has not shown that the model is back. */
async function sendProbe(send: () => Promise<Response>): Promise<Response> {
  try {
    return await send()
  } catch (error) {
    throw error instanceof UnavailableError ? error : new UnavailableError(null, { cause: error })
  }
}

const nameOf = ({ provider, model }: CallLabels): string => `model ${model} of provider ${provider}`

const leftAlone = (labels: CallLabels, { failures, openMs }: BreakerOptions): TurnmillError =>
  new TurnmillError(
    'provider_overloaded',
    `${nameOf(labels)} has failed ${failures} times in a row and is left alone`,
    {
      retryAfterMs: openMs,
    },
  )
