export type { Deadlines } from './deadlines.ts'
export { createLeaseKeeper, type LeaseKeeper, type LeaseKeeperOptions } from './leases.ts'
export { createTurnProcessor, type JobOutcome, type TurnProcessorDeps } from './process-turn.ts'
export { runTurn, type TurnEffects, type TurnOutcome } from './turn.ts'
