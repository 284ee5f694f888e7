export type { RunEffects } from './ask.ts'
export { toOneLine } from './one-line.ts'
export { createRunProcessor, type RunJobOutcome, type RunProcessorDeps } from './process-run.ts'
export { TITLE_INSTRUCTIONS } from './prompts.ts'
export {
  createAuxiliaryRuns,
  type AuxiliaryRuns,
  type RunClaim,
  type RunClaimRequest,
  type RunCursor,
  type RunSuspect,
} from './runs.ts'
export { RUN_MOVES, RUN_TRANSITION_MEANINGS, type RunTransition } from './states.ts'
