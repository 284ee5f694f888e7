export { dropAmbientCredentials } from './ambient-credentials.ts'
export { ConfigError, demand, demandAll, loadConfig, unknownSettings } from './load.ts'
export type { Setting } from './setting.ts'
export { SETTINGS, type Config } from './settings.ts'
