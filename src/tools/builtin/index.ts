import { BUILTIN_TOOLS, type BuiltinTool } from '../../protocol/tools.ts'
import type { Tool } from '../contract.ts'
import { createCalculator } from './calculator.ts'
import { createCurrentTime } from './current-time.ts'
import { createWebFetch, type GuardedFetch } from './web-fetch.ts'

export type { GuardedFetch } from './web-fetch.ts'

export interface BuiltinToolOptions {
  /** How pages are fetched: refuses what may not be reached, and follows no redirect. */
  fetch: GuardedFetch
  /** The time, in ms since 1970. */
  now: () => number
  /** Which of them; by default all. */
  names?: readonly BuiltinTool[]
}

/** The tools that come with Turnmill, and show how one is made. */
export function createBuiltinTools({ fetch, now, names = BUILTIN_TOOLS }: BuiltinToolOptions): Tool[] {
  const make: Record<BuiltinTool, () => Tool> = {
    current_time: () => createCurrentTime(now),
    calculator: createCalculator,
    web_fetch: () => createWebFetch(fetch),
  }
  return names.map((name) => make[name]())
}
