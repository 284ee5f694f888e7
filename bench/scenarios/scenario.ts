import type { Cleanup } from '../support/cleanup.ts'
import type { OptionValues } from '../support/options.ts'

/** One option of a scenario, as `--name value`. */
export interface ScenarioOption {
  default: string
  sentence: string
}

export interface ScenarioContext {
  options: OptionValues
  /** Whatever is started is registered here, so that it ends however the run ends. */
  cleanup: Cleanup
  progress(line: string): void
}

export interface Report {
  /** Tables, as they are printed. */
  text: string
  /** What makes the run fail: never a figure, but what did not happen at all, or what was not exercised. */
  failures: readonly string[]
}

/** One thing that is measured. */
export interface Scenario {
  name: string
  summary: string
  options: Readonly<Record<string, ScenarioOption>>
  /** Gives the report that is printed at the end. */
  run(context: ScenarioContext): Promise<Report>
}
