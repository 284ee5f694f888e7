import { parseArgs } from 'node:util'
import type { Scenario } from '../scenarios/scenario.ts'

/** The command line is wrong: told in one line, without a stack. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** The value of each option of any scenario, defaults included. */
export type OptionValues = Readonly<Record<string, string>>

export interface CommandLine {
  /** The scenarios that were named. */
  names: readonly string[]
  options: OptionValues
}

/** @throws {UsageError} for an option that no scenario has. */
export function readOptions(scenarios: readonly Scenario[], args: readonly string[]): CommandLine {
  const described = Object.assign({}, ...scenarios.map((scenario) => scenario.options)) as Scenario['options']
  const names = Object.entries(described)
  const options = Object.fromEntries(
    names.map(([name, option]) => [name, { type: 'string', default: option.default } as const]),
  )
  try {
    const { values, positionals } = parseArgs({ args: [...args], options, allowPositionals: true })
    return { names: positionals, options: values as Record<string, string> }
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

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
