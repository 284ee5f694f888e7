import { REASONING_EFFORTS, type ReasoningEffort } from '../protocol/messages.ts'

/** Per-model settings, as stored in `model_configs.options`. */
export interface ModelOptions {
  temperature?: number
  /** Effort where the message asks for none. */
  reasoningEffort?: ReasoningEffort
  /** The most effort that a message may ask for. */
  maxReasoningEffort?: ReasoningEffort
  /** Responses instead of Chat Completions, or the other way round; otherwise the provider's type decides. */
  useResponsesApi?: boolean
  /** Whether the model takes tools at all, which it does where nothing is said. */
  tools?: boolean
}

/** Whether the first effort is greater than the second one. */
export const exceedsEffort = (effort: ReasoningEffort, maximum: ReasoningEffort): boolean =>
  REASONING_EFFORTS.indexOf(effort) > REASONING_EFFORTS.indexOf(maximum)

/**
 * The effort that a call of this model is made with: what was asked for, else the model's default, and the model's
 * maximum at most. `null` where neither says anything: the provider decides, and no maximum makes a model reason.
 */
export function clampEffort(asked: ReasoningEffort | null, options: ModelOptions): ReasoningEffort | null {
  const effort = asked ?? options.reasoningEffort ?? null
  const { maxReasoningEffort: maximum } = options
  return effort !== null && maximum !== undefined && exceedsEffort(effort, maximum) ? maximum : effort
}
