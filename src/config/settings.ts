import { ACCESS } from './access.ts'
import { COMPUTER } from './computer.ts'
import { DEVELOPMENT } from './development.ts'
import { LIMITS } from './limits.ts'
import { MODEL_CALLS } from './model-calls.ts'
import { PROCESS } from './process.ts'
import { RECOVERY } from './recovery.ts'
import type { Setting } from './setting.ts'
import { STORAGE } from './storage.ts'
import { STREAMS } from './streams.ts'
import { TOOLS } from './tools.ts'
import { TURNS } from './turns.ts'
import { WORKERS } from './workers.ts'

/** Every setting there is, in the order in which the reference lists them. Nothing else reads the environment. */
export const SETTINGS = {
  ...PROCESS,
  ...DEVELOPMENT,
  ...ACCESS,
  ...WORKERS,
  ...STORAGE,
  ...LIMITS,
  ...RECOVERY,
  ...TURNS,
  ...MODEL_CALLS,
  ...TOOLS,
  ...COMPUTER,
  ...STREAMS,
} satisfies Record<string, Setting<unknown>>

type Parsed<S> = S extends Setting<infer T> ? T : never

/** Settings without a default that nobody has to set. */
export type Optional =
  | 'databaseUrl'
  | 'redisUrl'
  | 'metricsPort'
  | 'familyCostMicros'
  | 'openaiApiKey'
  | 'anthropicApiKey'
  | 'bootstrapApiKey'
  | 'apiKeyPepper'
  | 'encryptionKeys'
  | 'allowPrivateProviders'
  | 'toolsModule'
  | 'chromiumPath'
  | 'chromiumSandbox'

export type Config = {
  readonly [K in keyof typeof SETTINGS]: K extends Optional
    ? Parsed<(typeof SETTINGS)[K]> | null
    : Parsed<(typeof SETTINGS)[K]>
}
