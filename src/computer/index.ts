export { ComputerFailure, type ComputerDriver, type ComputerSession, type DisplaySize } from './driver.ts'
export type { EgressRules } from './egress.ts'
export {
  createPlaywrightDriver,
  type ComputerTimes,
  type PlaywrightDriverOptions,
} from './playwright-driver.ts'
export { createComputerTools, OPEN_PAGE_TOOL, type ComputerTools } from './tools.ts'
