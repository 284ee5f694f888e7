import { integer, milliseconds } from './setting.ts'

/** How long a model call may take, and how often it is tried again. */
export const MODEL_CALLS = {
  firstPartTimeoutMs: milliseconds({
    name: 'TURNMILL_FIRST_PART_TIMEOUT_MS',
    default: '60000',
    sentence: 'Longest wait for the first part of an answer.',
  }),
  reasoningFirstPartTimeoutMs: milliseconds({
    name: 'TURNMILL_REASONING_FIRST_PART_TIMEOUT_MS',
    default: '300000',
    sentence: 'The same for calls with reasoning.',
  }),
  silenceTimeoutMs: milliseconds({
    name: 'TURNMILL_SILENCE_TIMEOUT_MS',
    default: '60000',
    sentence: 'Longest silence between two parts of an answer.',
  }),
  attemptTimeoutMs: milliseconds({
    name: 'TURNMILL_ATTEMPT_TIMEOUT_MS',
    default: '600000',
    sentence: 'Longest model call.',
  }),
  breakerFailures: integer(
    {
      name: 'TURNMILL_BREAKER_FAILURES',
      default: '5',
      sentence:
        'Failures in a row (503, 504, no connection) after which a model of a provider is left alone for a while.',
    },
    1,
    1_000_000,
  ),
  breakerOpenMs: milliseconds({
    name: 'TURNMILL_BREAKER_OPEN_MS',
    default: '15000',
    sentence:
      'How long such a model is left alone before one call may try again; and the next one, where that one is silent.',
  }),
  retryFirstMs: milliseconds({
    name: 'TURNMILL_RETRY_FIRST_MS',
    default: '1000',
    sentence: 'Wait after the first failed attempt at a step; doubles with each further one, with jitter.',
  }),
  retryMaximumMs: milliseconds({
    name: 'TURNMILL_RETRY_MAXIMUM_MS',
    default: '60000',
    sentence: 'Longest wait between two attempts, unless the provider asks for a longer one.',
  }),
  retryAttempts: integer(
    {
      name: 'TURNMILL_RETRY_ATTEMPTS',
      default: '25',
      unit: 'attempts',
      sentence: 'Attempts at one step before the turn fails; 1 tries nothing again.',
    },
    1,
    1000,
  ),
  backoffAboveMs: milliseconds({
    name: 'TURNMILL_BACKOFF_ABOVE_MS',
    default: '10000',
    sentence: 'A longer wait than this gives the slot back until it is over.',
  }),
}
