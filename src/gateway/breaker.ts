import {
  BrokenCircuitError,
  circuitBreaker,
  CircuitState,
  ConsecutiveBreaker,
  handleType,
  isBrokenCircuitError,
  type CircuitBreakerPolicy,
} from 'cockatiel'
import { LRUCache } from 'lru-cache'
import type { ProviderAnswer } from '../models/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import type { CallLabels } from '../protocol/gateway-observer.ts'

export interface BreakerOptions {
  /** Failures in a row that open it. */
  failures: number
  /** How long it stays open before one call may try again, and how long that one keeps others from trying, in ms. */
  openMs: number
  /** Called when a model is left alone, and when it is no longer or is forgotten. Several may share labels. Must not throw. */
  onChange(labels: CallLabels, open: boolean): void
}

/** A provider that is not there: it answered 503 or 504, or took no connection. A 429 is no failure of its. */
export class UnavailableError extends Error {
  /** What it answered, if anything. */
  readonly answer: ProviderAnswer | null
  constructor(answer: ProviderAnswer | null, options?: ErrorOptions) {
    super('the provider is not available', options)
    this.answer = answer
  }
}

/** Keeps a failure from the policy, which would count it. */
class LateError extends Error {
  readonly failure: UnavailableError
  constructor(failure: UnavailableError) {
    super(failure.message, { cause: failure })
    this.failure = failure
  }
}

/** A model as its caller names it, which may be anything, and the labels it is counted under. */
export interface BreakerSubject {
  model: string
  labels: CallLabels
}

/** Keeps calls from a model that is down, per provider and model, as this process has seen it. */
export interface Breakers {
  /**
   * Runs a call unless the model is known to be down.
   *
   * @param send throws an `UnavailableError` where it is.
   * @param subject `null` for what is no call of a model, and runs always.
   * @throws {TurnmillError} `provider_overloaded` without a call.
   */
  run(subject: BreakerSubject | null, send: () => Promise<ProviderAnswer>): Promise<ProviderAnswer>
}

/** Models that a process remembers; callers may name as many as they like. */
const MAX_MODELS = 1000

export function createBreakers(options: BreakerOptions): Breakers {
  const breakers = new LRUCache<string, Breaker>({ max: MAX_MODELS, dispose: (breaker) => breaker.forget() })
  const breakerOf = (subject: BreakerSubject): Breaker => {
    const name = nameOf(subject)
    const known = breakers.get(name)
    if (known !== undefined) return known
    const breaker = createBreaker(subject.labels, options)
    breakers.set(name, breaker)
    return breaker
  }
  return {
    run: async (subject, send) => {
      try {
        return await (subject === null ? send() : breakerOf(subject).run(send))
      } catch (error) {
        if (subject !== null && isBrokenCircuitError(error)) throw leftAlone(subject, options)
        if (error instanceof UnavailableError && error.answer !== null) return error.answer
        throw error instanceof UnavailableError ? error.cause : error
      }
    },
  }
}

interface Breaker {
  /** @throws what `send` does, and a `BrokenCircuitError` without a call. */
  run(send: () => Promise<ProviderAnswer>): Promise<ProviderAnswer>
  /** What is forgotten counts as open no longer, however its last calls end. */
  forget(): void
}

/** The breaker of one model. */
function createBreaker(labels: CallLabels, { failures, openMs, onChange }: BreakerOptions): Breaker {
  let told = false
  let forgotten = false
  let triedAt = 0
  /** How often the model was found down, or back. */
  let findings = 0
  const tell = (open: boolean): void => {
    if (open === told || forgotten) return
    told = open
    onChange(labels, open)
  }
  const createPolicy = (initialState?: unknown): CircuitBreakerPolicy => {
    const breaker = new ConsecutiveBreaker(failures)
    const created = circuitBreaker(handleType(UnavailableError), {
      halfOpenAfter: openMs,
      breaker,
      initialState,
    })
    created.onHalfOpen(() => void (triedAt = Date.now()))
    created.onBreak(() => {
      findings++
      if (created === policy) tell(true)
    })
    // Also of a call that was given up as silent: whoever finds the model back is right.
    created.onReset(() => {
      findings++
      policy = created
      tell(false)
    })
    return created
  }
  let policy = createPolicy()
  /** A failure of a call that began before the model was last found down or back says nothing of now. */
  const unlessLate: Breaker['run'] = async (send) => {
    const before = findings
    try {
      return await send()
    } catch (error) {
      throw error instanceof UnavailableError && findings !== before ? new LateError(error) : error
    }
  }
  /** While one call tries: a policy that is open, and its time is up. The call itself is left to the one before. */
  const letAnotherTry = (): void => void (policy = createPolicy(policy.toJSON()))
  const probe: Breaker['run'] = async (send) => {
    const tried = policy
    try {
      return await send()
    } catch (error) {
      if (error instanceof UnavailableError) throw error
      // Left by its caller, cut off or never sent, it has shown neither that the model is back nor that it is not.
      if (policy === tried) letAnotherTry()
      throw new UnavailableError(null, { cause: error })
    }
  }
  return {
    run: async (send) => {
      // One call tries; the others would wait for how it ends, and it may take minutes.
      if (policy.state === CircuitState.HalfOpen) {
        if (Date.now() - triedAt < openMs) throw new BrokenCircuitError()
        letAnotherTry()
      }
      const isOpen = policy.state === CircuitState.Open
      return policy
        .execute(() => (isOpen ? probe(send) : unlessLate(send)))
        .catch((error: unknown) => {
          throw error instanceof LateError ? error.failure : error
        })
    },
    forget: () => {
      tell(false)
      forgotten = true
    },
  }
}

const nameOf = ({ model, labels }: BreakerSubject): string => `model ${model} of provider ${labels.provider}`

const leftAlone = (subject: BreakerSubject, { failures, openMs }: BreakerOptions): TurnmillError =>
  new TurnmillError(
    'provider_overloaded',
    `${nameOf(subject)} has failed ${failures} times in a row and is left alone`,
    {
      retryAfterMs: openMs,
    },
  )
