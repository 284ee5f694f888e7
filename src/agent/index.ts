export { createAdvisorTool, type AdvisorEffects } from './advisor.ts'
export { AskFailedError, askModel, type ModelReply } from './ask-model.ts'
export type { AttemptEffects } from './attempt.ts'
export type { Deadlines } from './deadlines.ts'
export { createLeaseKeeper, type HeldLease, type LeaseKeeper, type LeaseKeeperOptions } from './leases.ts'
export type { ModelCallEffects } from './model-call.ts'
export {
  createTurnProcessor,
  untilCommitted,
  type JobOutcome,
  type TurnProcessorDeps,
} from './process-turn.ts'
export { RETRYABLE, retryDelayMs, sleepUnlessAborted, type RetryPolicy } from './retries.ts'
export { createSubagentTools, SUBAGENT_PROMPTS, type SubagentEffects } from './subagent-tools.ts'
export { fillToolBox } from './tool-box.ts'
export { demandUsableKey, runTurn, type TurnEffects, type TurnOutcome } from './turn.ts'
