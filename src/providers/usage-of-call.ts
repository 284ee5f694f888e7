import { setTimeout as sleep } from 'node:timers/promises'
import { charactersOf } from '../protocol/messages.ts'
import { NO_USAGE, type Usage } from '../protocol/usage.ts'
import type { ModelCall, ModelRequest } from './contract.ts'
import type { UsageTally } from './usage-tally.ts'

/** How far a call came. */
export interface CallProgress {
  /** Whether the provider may have been asked. */
  sent: boolean
  /** Whether it began to answer. */
  begun: boolean
}

export const UNKNOWN_USAGE: Usage = Object.freeze({ ...NO_USAGE, estimated: true })

/** How long the books may take for a call that is over, in ms. */
const CHARGE_MS = 1000

/**
 * What a call that is over has used: what was reported; where it was not, what the gateway's books charge, or else an
 * estimate. `null` where nothing was used.
 */
export async function usageOfCall(
  { connection, request, signal }: ModelCall,
  tally: UsageTally,
  { sent, begun }: CallProgress,
): Promise<Usage | null> {
  const { charge } = connection
  const counted = (): Usage => tally.total({ input: estimateInput(request), output: request.maxOutputTokens })
  if (tally.isReported) return counted()
  // Whoever hangs up before the answer begins may have to pay all the same.
  if (charge === undefined) return begun || (sent && signal.aborted) ? counted() : null
  const charged = await Promise.race([charge(), sleep(CHARGE_MS, undefined, { ref: false })])
  if (charged !== undefined) return charged
  return begun ? counted() : null
}

/** Roughly what a token stands for, in characters; common for English text, too high for most other scripts. */
const CHARACTERS_PER_TOKEN = 4

/** A count of our own of what a request asks, in tokens. */
function estimateInput(request: ModelRequest): number {
  const system = request.system?.length ?? 0
  const sent = request.messages.flatMap(({ parts }) => parts.filter(({ type }) => type !== 'reasoning'))
  const tools = request.tools.length === 0 ? 0 : JSON.stringify(request.tools).length
  return Math.ceil((system + tools + charactersOf(sent)) / CHARACTERS_PER_TOKEN)
}
