import {
  BrokenCircuitError,
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
  const breakers = new Map<string, Breaker>()
  const breakerOf = (labels: CallLabels): Breaker => {
    const name = nameOf(labels)
    const breaker = breakers.get(name) ?? createBreaker(labels, options)
    breakers.set(name, breaker)
    return breaker
  }
  return {
    run: async (labels, send) => {
      try {
        return await breakerOf(labels)(send)
      } catch (error) {
        if (isBrokenCircuitError(error)) throw leftAlone(labels, options)
        if (error instanceof UnavailableError && error.response !== null) return error.response
        throw error instanceof UnavailableError ? error.cause : error
      }
    },
  }
}

/** @throws what `send` does, and a `BrokenCircuitError` without a call. */
type Breaker = (send: () => Promise<Response>) => Promise<Response>

/** The breaker of one model. */
function createBreaker(labels: CallLabels, { failures, openMs, onChange }: BreakerOptions): Breaker {
  let told = false
  const tell = (open: boolean): void => {
    if (open !== told) onChange(labels, open)
    told = open
  }
  const createPolicy = (initialState?: unknown): CircuitBreakerPolicy => {
    const breaker = new ConsecutiveBreaker(failures)
    const policy = circuitBreaker(handleType(UnavailableError), {
      halfOpenAfter: openMs,
      breaker,
      initialState,
    })
    policy.onBreak(() => tell(true))
    policy.onReset(() => tell(false))
    return policy
  }
  let policy = createPolicy()
  const probe: Breaker = async (send) => {
    // Of a policy that is trying: open, and its time is up.
    const untried: unknown = policy.toJSON()
    try {
      return await send()
    } catch (error) {
      if (error instanceof UnavailableError) throw error
      // Left by its caller, cut off or never sent, it has shown neither that the model is back nor that it is not.
      policy = createPolicy(untried)
      throw new UnavailableError(null, { cause: error })
    }
  }
  return async (send) => {
    // One call tries; the others would wait for how it ends, and it may take minutes.
    if (policy.state === CircuitState.HalfOpen) throw new BrokenCircuitError()
    const isOpen = policy.state === CircuitState.Open
    return policy.execute(() => (isOpen ? probe(send) : send()))
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
