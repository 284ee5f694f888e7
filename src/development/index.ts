export type { SimulatedProvider, SimulatedRequest } from './simulated-provider.ts'
export { startLocalGround, startProviders, type LocalGround } from './start.ts'
