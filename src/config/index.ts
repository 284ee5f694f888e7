export { dropAmbientCredentials } from './ambient-credentials.ts'
export { ConfigError, demand, loadConfig } from './load.ts'
export type { Setting } from './setting.ts'
export { SETTINGS, type Config } from './settings.ts'
