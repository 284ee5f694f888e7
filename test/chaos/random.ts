/** Pseudo-random numbers from a seed. Not for secrets. Source: https://github.com/bryc/code (mulberry32, cyrb53's mixing) */
export interface Random {
  /** From 0 up to 1. */
  next(): number
  /** From `low` up to `high`, a whole number, both included. */
  integer(low: number, high: number): number
  /** From `low` up to `high`. */
  between(low: number, high: number): number
  chance(share: number): boolean
  /** @throws {Error} of nothing. */
  pick<T>(from: readonly T[]): T
  shuffle<T>(of: readonly T[]): T[]
}

/** The same numbers for the same seed and name. What one name draws does not shift what another one does. */
export function createRandom(seed: number, name: string): Random {
  let state = hash(`${seed} ${name}`)
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const between = (low: number, high: number): number => low + next() * (high - low)
  const integer = (low: number, high: number): number => Math.floor(between(low, high + 1))
  const pick = <T>(from: readonly T[]): T => {
    if (from.length === 0) throw new Error('there is nothing to pick from')
    return from[integer(0, from.length - 1)] as T
  }
  return {
    next,
    between,
    integer,
    pick,
    chance: (share) => next() < share,
    shuffle: (of) => shuffle(of, integer),
  }
}

function shuffle<T>(of: readonly T[], integer: Random['integer']): T[] {
  const items = [...of]
  for (let index = items.length - 1; index > 0; index--) {
    const other = integer(0, index)
    ;[items[index], items[other]] = [items[other] as T, items[index] as T]
  }
  return items
}

function hash(text: string): number {
  let value = 0xdeadbeef
  for (const character of text) value = Math.imul(value ^ (character.codePointAt(0) ?? 0), 2_654_435_761)
  return (value ^ (value >>> 16)) >>> 0
}

/** Names drawn with weights that need not add up to anything. */
export function pickWeighted<T extends string>(random: Random, weights: Readonly<Record<T, number>>): T {
  const entries = Object.entries<number>(weights) as [T, number][]
  let rest = random.next() * entries.reduce((total, [, weight]) => total + weight, 0)
  for (const [name, weight] of entries) if ((rest -= weight) < 0) return name
  return entries.at(-1)![0]
}
