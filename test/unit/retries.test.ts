import type { AttemptOutcome } from '../../src/agent/attempt.ts'
import { retryDelayMs, sleepUnlessAborted, withRetries, type RetryPolicy } from '../../src/agent/retries.ts'
import type { Claim, Spent, StepResult } from '../../src/chats/index.ts'
import { TurnmillError, type ErrorCode } from '../../src/protocol/errors.ts'
import { NO_USAGE } from '../../src/protocol/usage.ts'
import type { RetryState } from '../../src/protocol/views.ts'

const policy = (fields: Partial<RetryPolicy> = {}): RetryPolicy => ({
  firstMs: 1000,
  maximumMs: 60_000,
  attempts: 25,
  backoffAboveMs: 10_000,
  giveUpAboveMs: 600_000,
  random: () => 0,
  ...fields,
})

describe('the wait before a retry', () => {
  const delays = (random: number): number[] =>
    [1, 2, 3, 4, 5, 6, 7, 25].map((failed) => retryDelayMs(policy({ random: () => random }), failed))

  test('doubles up to a minute', () => {
    expect(delays(0)).toEqual([1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000])
  })

  test('is up to a half shorter by chance', () => {
    expect(delays(1)).toEqual([500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000])
  })

  test('is never shorter than the provider asked for', () => {
    expect(retryDelayMs(policy(), 1, 2000)).toBe(2000)
    expect(retryDelayMs(policy({ random: () => 0.5 }), 1, 2000)).toBe(2500)
    expect(retryDelayMs(policy(), 4, 2000)).toBe(8000)
    expect(retryDelayMs(policy(), 1, 86_400_000)).toBe(86_400_000)
  })
})

const SPENT: Spent = { usage: { ...NO_USAGE, inputTokens: 3 }, costMicros: 3 }

const failed = (code: ErrorCode, retryAfterMs?: number): AttemptOutcome => ({
  type: 'failed',
  error: new TurnmillError(code, `it was ${code}`, { retryAfterMs }),
  spent: SPENT,
})

const ANSWERED: AttemptOutcome = { type: 'answered', result: { step: 1 } as StepResult }

interface Options {
  policy?: Partial<RetryPolicy>
  retry?: RetryState
  noted?: 'committed' | 'interrupting'
  /** Aborts the signal in the sleep of this number, from 1. */
  abortInSleep?: number
}

/** Runs the loop over scripted attempts, and tells all that it did, in order. */
async function runLoop(outcomes: AttemptOutcome[], options: Options = {}) {
  const did: unknown[] = []
  const noted: { retry: RetryState; spent: Spent }[] = []
  const abort = new AbortController()
  const claim = { turnId: 'turn-1', retry: options.retry ?? null } as Claim
  let sleeps = 0
  const outcome = await withRetries(
    {
      claim,
      step: 1,
      attempt: (number, before) => {
        const isShorter = before === 'context_too_long'
        did.push(`attempt ${number}${isShorter ? ' after context_too_long' : ''}`)
        return Promise.resolve(outcomes.shift() ?? ANSWERED)
      },
    },
    {
      policy: policy(options.policy),
      noteRetry: (_claim, retry, spent) => {
        did.push(`note ${retry.attempts}`)
        noted.push({ retry, spent })
        return Promise.resolve(options.noted ?? 'committed')
      },
      sleep: (ms, signal) => {
        did.push(`sleep ${ms}`)
        if (++sleeps === options.abortInSleep) abort.abort(new TurnmillError('turn_interrupted', 'stop'))
        return signal.aborted ? Promise.reject(signal.reason as Error) : Promise.resolve()
      },
    },
    abort.signal,
  ).catch((error: unknown) => error)
  return { did, noted, outcome }
}

describe('the retry loop', () => {
  test.each([
    'provider_overloaded',
    'provider_unreachable',
    'provider_timeout',
    'provider_stream_broken',
  ] as const)('tries again after %s, once that is noted and slept over (R2)', async (code) => {
    const { did, noted, outcome } = await runLoop([failed(code), failed(code), ANSWERED])
    expect(did).toEqual([
      'attempt 1',
      'note 1',
      'sleep 1000',
      'attempt 2',
      'note 2',
      'sleep 2000',
      'attempt 3',
    ])
    expect(outcome).toBe(ANSWERED)
    expect(noted[1]).toEqual({
      retry: {
        step: 1,
        attempts: 2,
        error: { code, message: `it was ${code}`, recovery: 'retry' },
        retryAt: expect.any(String),
      },
      spent: SPENT,
    })
  })

  test.each([
    'provider_rejected',
    'provider_auth_failed',
    'provider_quota_exhausted',
    'context_too_long',
    'key_revoked',
    'worker_stopped',
    'database_unavailable',
    'turn_fenced',
    'turn_failed',
  ] as const)('does not try again after %s', async (code) => {
    const outcome = failed(code, 5)
    expect(await runLoop([outcome])).toMatchObject({ did: ['attempt 1'], outcome })
  })

  test('ends with the last error when the attempts are spent', async () => {
    const last = failed('provider_timeout')
    const { did, outcome } = await runLoop([failed('provider_overloaded'), last], { policy: { attempts: 2 } })
    expect(did.filter((what) => String(what).startsWith('attempt'))).toHaveLength(2)
    expect(outcome).toBe(last)
  })

  test('gives the turn back for a longer wait (R3), with what the attempt spent', async () => {
    const { did, outcome } = await runLoop([failed('provider_overloaded', 10_001)])
    expect(did).toEqual(['attempt 1'])
    expect(outcome).toMatchObject({ type: 'backoff', delayMs: 10_001, retry: { attempts: 1 }, spent: SPENT })
  })

  test('gives up where the provider wants to be left alone for more than ten minutes', async () => {
    const { did, outcome } = await runLoop([failed('provider_overloaded', 600_001)])
    expect(did).toEqual(['attempt 1'])
    expect(outcome).toMatchObject({ type: 'failed', error: { code: 'rate_limited' }, spent: SPENT })
  })

  test('tries again at once with a shorter history, beyond the last attempt too (R4)', async () => {
    const tooLong = Object.assign(failed('context_too_long'), { shorten: true as const })
    const { did, noted, outcome } = await runLoop([tooLong, ANSWERED], { policy: { attempts: 1 } })
    expect(did).toEqual(['attempt 1', 'note 1', 'sleep 0', 'attempt 2 after context_too_long'])
    expect(noted).toMatchObject([
      { retry: { attempts: 1, error: { code: 'context_too_long' } }, spent: SPENT },
    ])
    expect(outcome).toBe(ANSWERED)
  })

  test('tries again at once with a shorter history, however long the provider wants to be left alone (R4)', async () => {
    const tooLong = Object.assign(failed('context_too_long', 3_600_000), { shorten: true as const })
    const { did, outcome } = await runLoop([tooLong, ANSWERED])
    expect(did).toEqual(['attempt 1', 'note 1', 'sleep 0', 'attempt 2 after context_too_long'])
    expect(outcome).toBe(ANSWERED)
  })

  const retry = (fields: Partial<RetryState>): RetryState => ({
    step: 1,
    attempts: 4,
    error: { code: 'provider_overloaded', message: '', recovery: 'retry' },
    retryAt: new Date(0).toISOString(),
    ...fields,
  })

  test('goes on counting where another claim of the turn stopped, for the same step only', async () => {
    const patient = { policy: { backoffAboveMs: 60_000 }, retry: retry({}) }
    expect(await runLoop([failed('provider_timeout')], patient)).toMatchObject({
      did: ['sleep 0', 'attempt 5', 'note 5', 'sleep 16000', 'attempt 6'],
    })
    expect(await runLoop([], { retry: retry({ step: 2 }) })).toMatchObject({ did: ['attempt 1'] })
  })

  test('sleeps the rest of a wait that another claim began, as long as it may hold a slot at most', async () => {
    const retryAt = new Date(Date.now() + 3_600_000).toISOString()
    expect(await runLoop([], { retry: retry({ retryAt }) })).toMatchObject({
      did: ['sleep 10000', 'attempt 5'],
    })
  })

  test('ends a turn that was told to stop when its failure was to be noted', async () => {
    const { did, outcome } = await runLoop([failed('provider_overloaded')], { noted: 'interrupting' })
    expect(did).toEqual(['attempt 1', 'note 1'])
    expect(outcome).toEqual({ type: 'interrupted', partial: null, spent: SPENT })
  })

  test('is left by an abort in its sleep, with the abort’s reason', async () => {
    const { did, outcome } = await runLoop([failed('provider_overloaded')], { abortInSleep: 1 })
    expect(did).toEqual(['attempt 1', 'note 1', 'sleep 1000'])
    expect(outcome).toMatchObject({ code: 'turn_interrupted' })
  })
})

describe('a sleep', () => {
  test('is over after its time', async () => {
    await expect(sleepUnlessAborted(1, new AbortController().signal)).resolves.toBeUndefined()
  })

  test('ends at once with the reason of an abort, before or meanwhile', async () => {
    const abort = new AbortController()
    const sleeping = sleepUnlessAborted(86_400_000, abort.signal)
    const reason = new TurnmillError('worker_stopped', 'enough')
    abort.abort(reason)
    await expect(sleeping).rejects.toBe(reason)
    await expect(sleepUnlessAborted(86_400_000, abort.signal)).rejects.toBe(reason)
  })
})
