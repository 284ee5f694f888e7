/** What the storm's provider does to each request, and what it writes down about it. */
import { createRandom, pickWeighted } from './random.ts'

/** An answer is of this many parts. */
export const PARTS = 20

export const WRONGS = [
  'too-many-requests',
  'unavailable',
  'server-error',
  'rejected',
  'cut',
  'no-ending',
  'silence',
] as const
export type Wrong = (typeof WRONGS)[number]

export interface Plan {
  kind: 'answer' | Wrong
  firstDelayMs: number
  partDelayMs: number
  /** Where a wrong answer breaks off, in parts. */
  stopAt: number
  /** In seconds; `null` sends no header. */
  retryAfter: number | null
}

const WEIGHTS: Readonly<Record<Plan['kind'], number>> = {
  answer: 78,
  'too-many-requests': 5,
  unavailable: 3,
  'server-error': 3,
  rejected: 1,
  cut: 4,
  'no-ending': 3,
  silence: 3,
}

/** One in so many answers takes seconds, so that a stopping worker has something to hand back. */
const SLOW_SHARE = 0.12

/** The same for the same question, whenever and by whichever worker it is asked. */
export function planOf(seed: number, asked: string, attempt: number): Plan {
  const random = createRandom(seed, `provider ${asked} ${attempt}`)
  const slow = random.chance(SLOW_SHARE)
  return {
    kind: pickWeighted(random, WEIGHTS),
    firstDelayMs: random.integer(0, 300),
    partDelayMs: slow ? random.integer(150, 350) : random.integer(0, 30),
    stopAt: random.integer(0, PARTS - 1),
    retryAfter: random.pick([null, null, 0, 1, 2]),
  }
}

/** What each request is answered: no other answer contains it, and no two of them joined are a third. */
export const answerParts = (number: number): string[] =>
  Array.from({ length: PARTS }, (_, part) => `answer ${number} part ${part}; `)

export const answerText = (number: number): string => answerParts(number).join('')

/** Different for every request, and large, so that no two sums of a few are equal by chance. */
export function tokensOf(seed: number, number: number): { input: number; output: number } {
  const random = createRandom(seed, `tokens ${number}`)
  return { input: random.integer(1000, 900_000), output: random.integer(1000, 900_000) }
}

export interface ReportedTokens {
  inputTokens: number
  outputTokens: number
}

/** A request as the provider saw it. Times are ms since 1970. */
export interface JournalEntry {
  number: number
  turnId: string | null
  keyId: string | null
  /** The last thing the user said. */
  asked: string
  /** 1, 2, … of this turn. */
  attempt: number
  plan: Plan['kind']
  startedAt: number
  /** `null` while it is open. */
  endedAt: number | null
  /** The caller left before the provider was done. */
  closedEarly: boolean
  /** All parts and the ending were written. */
  complete: boolean
  /** When the answer began; `null` where it did not. */
  openedAt: number | null
  /** What was written of the tokens used. */
  reported: ReportedTokens | null
}
