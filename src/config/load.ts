import type { Setting } from './setting.ts'
import { SETTINGS, type Config, type Optional } from './settings.ts'

/** Names every bad value at once, each with what was expected; never prints the value of a secret. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'

  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    super(`the environment is not usable:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`)
    this.problems = problems
  }
}

/**
 * Reads and checks the environment.
 *
 * @throws {ConfigError} naming every bad value.
 */
export function loadConfig(environment: NodeJS.ProcessEnv = process.env): Config {
  const problems: string[] = []
  const entries = Object.entries(SETTINGS).map(([key, setting]) => [
    key,
    readSetting(setting, environment, problems),
  ])
  if (problems.length > 0) throw new ConfigError(problems)
  const config = Object.fromEntries(entries) as Config
  checkTogether(config)
  return config
}

function readSetting(setting: Setting<unknown>, environment: NodeJS.ProcessEnv, problems: string[]): unknown {
  const given = environment[setting.name]
  const value = given === undefined || given === '' ? setting.default : given
  if (value === null) return null
  try {
    return setting.parse(value)
  } catch (error) {
    const shown = setting.type === 'secret' || setting.type === 'url' ? '' : ` is ${JSON.stringify(value)},`
    problems.push(`${setting.name}${shown} expected ${(error as Error).message}${suchAs(setting)}`)
    return null
  }
}

const suchAs = ({ example }: Setting<unknown>): string => (example === null ? '' : `, such as ${example}`)

function checkTogether(config: Config): void {
  if (config.leaseRenewalMs * 2 > config.leaseMs)
    throw new ConfigError([
      `TURNMILL_LEASE_RENEWAL_MS is ${config.leaseRenewalMs}, expected at most half of TURNMILL_LEASE_MS (${config.leaseMs})`,
    ])
}

/** A setting that this process cannot do without. @throws {ConfigError} */
export const demand = <K extends Optional>(config: Config, key: K, why: string): NonNullable<Config[K]> =>
  demandAll(config, { [key]: why } as Record<K, string>)[key]

/** Settings that this process cannot do without. @throws {ConfigError} naming all that are not set. */
export function demandAll<K extends Optional>(
  config: Config,
  whys: Readonly<Record<K, string>>,
): { readonly [Key in K]: NonNullable<Config[Key]> } {
  const missing = (Object.entries(whys) as [K, string][]).filter(([key]) => config[key] === null)
  if (missing.length > 0)
    throw new ConfigError(
      missing.map(([key, why]) => `${SETTINGS[key].name} is not set, ${why}${suchAs(SETTINGS[key])}`),
    )
  return config as { [Key in K]: NonNullable<Config[Key]> }
}

/** Names that look like settings and are none: a misspelt one would go unnoticed. */
export function unknownSettings(environment: NodeJS.ProcessEnv = process.env): string[] {
  const known = new Set<string>(Object.values(SETTINGS).map(({ name }) => name))
  const isOurs = (name: string): boolean => name.startsWith('TURNMILL_') && !name.startsWith('TURNMILL_TEST_')
  return Object.keys(environment).filter((name) => isOurs(name) && !known.has(name))
}
