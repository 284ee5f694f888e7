import type { ProviderAnswer } from '../models/index.ts'
import { parseRetryAfter } from '../providers/index.ts'
import type { StoredCredential } from './authorise.ts'

/** How long a key rests after a 429 without a Retry-After, in ms. */
const COOL_MS = 60_000

/** The longest that a key rests as its provider asks, in ms: some say there when it may be used again, not in how long. */
const MAX_COOL_MS = 3_600_000

/** How long a key that its provider does not accept is left out, in ms. Whoever replaces it makes a new one. */
const BAD_MS = 600_000

/** Which central keys are to be left alone for a while, as this process has seen it. */
export interface KeyHealth {
  /**
   * Those to be tried, in order. Where all rest, the one whose rest ends first, and one that was not accepted only where
   * there is no other: the provider has the last word.
   */
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

/** @param onRefused called for each answer that refused a key, with its status. Must not throw. */
export function createKeyHealth(
  onRefused: (keyId: string, status: number) => void = () => undefined,
  now: () => number = Date.now,
): KeyHealth {
  const rests = new Map<string, { since: number; until: number; isBad: boolean }>()
  const untilOf = ({ id }: StoredCredential): number => rests.get(id)?.until ?? 0
  const isBad = ({ id }: StoredCredential): boolean => rests.get(id)?.isBad === true
  const rest = (keyId: string, ms: number, bad: boolean): void => {
    const since = now()
    rests.set(keyId, { since, until: Math.max(since + ms, rests.get(keyId)?.until ?? 0), isBad: bad })
  }
  return {
    now,
    choose: (keys) => {
      const rested = keys.filter((key) => untilOf(key) <= now())
      return rested.length > 0
        ? rested
        : keys.toSorted((a, b) => Number(isBad(a)) - Number(isBad(b)) || untilOf(a) - untilOf(b)).slice(0, 1)
    },
    note: (keyId, { status, headers }, sentAt) => {
      if (status === 429) rest(keyId, Math.min(parseRetryAfter(headers) ?? COOL_MS, MAX_COOL_MS), false)
      else if (status === 401) rest(keyId, BAD_MS, true)
      else if (sentAt > (rests.get(keyId)?.since ?? 0)) rests.delete(keyId)
      const refused = status === 429 || status === 401
      if (refused) onRefused(keyId, status)
      return refused
    },
  }
}
