import type { Spent } from '../chats/index.ts'
import type { BuiltRoute } from '../models/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { textOf } from '../protocol/messages.ts'
import type { ModelRequest } from '../providers/contract.ts'
import { withDeadlines } from './deadlines.ts'
import { collect, reasons, toSpent, type ModelCallEffects } from './model-call.ts'

/** What a call outside of a turn's steps gave: a title, an advice, a summary. */
export interface ModelReply {
  /** Its text parts, joined; reasoning is left out. May be empty. */
  text: string
  spent: Spent
  finishReason: string
}

/** A call that gave no answer. `spent` is what it cost all the same, as far as the provider reported it. */
export class AskFailedError extends TurnmillError {
  readonly spent: Spent

  constructor(error: TurnmillError, spent: Spent) {
    super(error.code, error.message, { cause: error, retryAfterMs: error.retryAfterMs })
    this.spent = spent
  }
}

/**
 * Calls a model once, outside of a turn's steps, and gives its whole answer. Nobody watches it, and nothing is tried again.
 *
 * @param built the route of this one call, made by `buildRoute` under whoever's key it is.
 * @param signal aborting it closes the provider's socket.
 * @throws {AskFailedError} with the code of what went wrong; an abort's own reason where it is a `TurnmillError`.
 */
export async function askModel(
  effects: ModelCallEffects,
  { route, facts }: BuiltRoute,
  request: ModelRequest,
  signal: AbortSignal,
): Promise<ModelReply> {
  const stream = withDeadlines(
    (callSignal) => effects.callModel(route, request, callSignal),
    effects.deadlines,
    { signal, reasoning: reasons(request) },
  )
  const { prices } = facts.modelConfig
  const { parts, ending } = await collect(stream, () => undefined)
  if (ending.type === 'error') throw new AskFailedError(ending.error, toSpent(ending.usage, prices))
  const { usage, reason } = ending
  return { text: textOf(parts), spent: toSpent(usage, prices), finishReason: reason }
}
