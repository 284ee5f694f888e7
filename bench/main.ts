import type { Scenario } from './scenarios/scenario.ts'
import { durableTurns } from './scenarios/durable-turns.ts'
import { fairness } from './scenarios/fairness.ts'
import { gateway } from './scenarios/gateway.ts'
import { stop } from './scenarios/stop.ts'
import { Cleanup } from './support/cleanup.ts'
import { helpText, optionsOf, readCommandLine, UsageError, type OptionValues } from './support/options.ts'

/** Every scenario there is, in the order they run. */
const SCENARIOS: readonly Scenario[] = [durableTurns, gateway, stop, fairness]

/** `bench [scenario …] [--option value …]`; all scenarios where none is named. */
async function main(args: readonly string[]): Promise<void> {
  if (args.includes('--help')) {
    console.log(helpText(SCENARIOS))
    return
  }
  const { names, given } = readCommandLine(SCENARIOS, args)
  for (const scenario of choose(names)) await measure(scenario, optionsOf(scenario, given))
}

/** Failures fail the run, but not before the scenarios after this one have had their turn. */
async function measure(scenario: Scenario, options: OptionValues): Promise<void> {
  console.log(`\n${scenario.name}: ${scenario.summary}\n`)
  const progress = (line: string): void => console.log(`  ${line}`)
  const { text, failures } = await Cleanup.during((cleanup) => scenario.run({ options, cleanup, progress }))
  console.log(`\n${text}`)
  if (failures.length === 0) return
  console.error([`\n${scenario.name} failed:`, ...failures.map((failure) => `  ${failure}`)].join('\n'))
  process.exitCode = 1
}

function choose(names: readonly string[]): readonly Scenario[] {
  const known = SCENARIOS.map((scenario) => scenario.name)
  const unknown = names.find((name) => !known.includes(name))
  if (unknown !== undefined)
    throw new UsageError(`there is no scenario ${unknown}, expected one of ${known.join(', ')}`)
  return names.length === 0 ? SCENARIOS : SCENARIOS.filter((scenario) => names.includes(scenario.name))
}

try {
  await main(process.argv.slice(2))
} catch (error) {
  console.error(error instanceof UsageError ? `bench: ${error.message}; see --help` : error)
  process.exitCode = 1
}
