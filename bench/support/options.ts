import { parseArgs } from 'node:util'
import type { Scenario } from '../scenarios/scenario.ts'

/** The command line is wrong: told in one line, without a stack. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** The value of each option of a scenario, defaults included. */
export type OptionValues = Readonly<Record<string, string>>

export interface CommandLine {
  /** The scenarios that were named. */
  names: readonly string[]
  /** The options that were given. Their defaults are the scenarios'. */
  given: Readonly<Record<string, string | undefined>>
}

/** @throws {UsageError} for an option that no scenario has. */
export function readCommandLine(scenarios: readonly Scenario[], args: readonly string[]): CommandLine {
  const known = scenarios.flatMap((scenario) => Object.keys(scenario.options))
  const options = Object.fromEntries(known.map((name) => [name, { type: 'string' } as const]))
  try {
    const { values, positionals } = parseArgs({ args: [...args], options, allowPositionals: true })
    return { names: positionals, given: values }
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

/** The scenario's own options: as given, else by default. */
export const optionsOf = ({ options }: Scenario, given: CommandLine['given']): OptionValues =>
  Object.fromEntries(Object.entries(options).map(([name, option]) => [name, given[name] ?? option.default]))

/** @throws {UsageError} unless the option is a whole number of at least `minimum`. */
export function wholeNumber(options: OptionValues, name: string, minimum = 1): number {
  const text = options[name] ?? ''
  const value = Number(text)
  if (!/^\d+$/.test(text) || value < minimum)
    throw new UsageError(`--${name} is ${text}, expected a whole number of at least ${minimum}`)
  return value
}

export const helpText = (scenarios: readonly Scenario[]): string =>
  ['npm run bench -- [scenario …] [--option value …]', ...scenarios.map(describe)].join('\n\n')

function describe({ name, summary, options }: Scenario): string {
  const lines = Object.entries(options).map(
    ([option, { default: value, sentence }]) =>
      `  ${`--${option}`.padEnd(14)} ${sentence} (default: ${value || 'none'})`,
  )
  return [`${name}: ${summary}`, ...lines].join('\n')
}
