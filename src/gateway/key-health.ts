import type { ProviderAnswer } from '../models/index.ts'
import { parseRetryAfter } from '../providers/index.ts'
import type { StoredCredential } from './authorise.ts'

/** How long a key rests after a 429 without a Retry-After, in ms. */
const COOL_MS = 60_000

/** How long a key that its provider does not accept is left out, in ms. Whoever replaces it makes a new one. */
const BAD_MS = 600_000

/** Which central keys are to be left alone for a while, as this process has seen it. */
export interface KeyHealth {
  /** Those to be tried, in order. Where all rest, the one that has rested longest: the provider has the last word. */
  choose(keys: readonly StoredCredential[]): readonly StoredCredential[]
  /** Takes note of how the provider answered. Gives whether another key may do better. */
  note(keyId: string, answer: Pick<ProviderAnswer, 'status' | 'headers'>): boolean
}

export function createKeyHealth(now: () => number = Date.now): KeyHealth {
  const restingUntil = new Map<string, number>()
  const untilOf = ({ id }: StoredCredential): number => restingUntil.get(id) ?? 0
  return {
    choose: (keys) => {
      const rested = keys.filter((key) => untilOf(key) <= now())
      return rested.length > 0 ? rested : keys.toSorted((a, b) => untilOf(a) - untilOf(b)).slice(0, 1)
    },
    note: (keyId, { status, headers }) => {
      if (status === 429) restingUntil.set(keyId, now() + (parseRetryAfter(headers) ?? COOL_MS))
      else if (status === 401) restingUntil.set(keyId, now() + BAD_MS)
      else restingUntil.delete(keyId)
      return status === 429 || status === 401
    },
  }
}
