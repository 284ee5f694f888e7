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
  /**
   * Takes note of how the provider answered. Gives whether another key may do better.
   *
   * @param sentAt when it was asked, by `now`: what it took before it refused the key says nothing of later.
   */
  note(keyId: string, answer: Pick<ProviderAnswer, 'status' | 'headers'>, sentAt: number): boolean
  /** This process's clock. */
  now(): number
}

export function createKeyHealth(now: () => number = Date.now): KeyHealth {
  const rests = new Map<string, { since: number; until: number }>()
  const untilOf = ({ id }: StoredCredential): number => rests.get(id)?.until ?? 0
  const rest = (keyId: string, ms: number): void => {
    const since = now()
    rests.set(keyId, { since, until: Math.max(since + ms, rests.get(keyId)?.until ?? 0) })
  }
  return {
    now,
    choose: (keys) => {
      const rested = keys.filter((key) => untilOf(key) <= now())
      return rested.length > 0 ? rested : keys.toSorted((a, b) => untilOf(a) - untilOf(b)).slice(0, 1)
    },
    note: (keyId, { status, headers }, sentAt) => {
      if (status === 429) rest(keyId, parseRetryAfter(headers) ?? COOL_MS)
      else if (status === 401) rest(keyId, BAD_MS)
      else if (sentAt > (rests.get(keyId)?.since ?? 0)) rests.delete(keyId)
      return status === 429 || status === 401
    },
  }
}
