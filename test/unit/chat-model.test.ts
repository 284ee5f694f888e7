import fc from 'fast-check'
import { anyHistory, COMMAND_NAMES, count, createCoverage } from '../support/chat-commands.ts'
import { apply, checkAtRest, checkInvariants, createModel, settling } from '../support/chat-model.ts'

const RUNS = 10_000

test(`the tables keep I1 to I5, I7 and I8 in ${RUNS} random histories`, () => {
  const coverage = createCoverage()
  let runs = 0
  // A failure prints the seed and the shortest history that shows it.
  fc.assert(
    fc.property(anyHistory(40), (commands) => {
      runs += 1
      const model = createModel()
      for (const command of commands) {
        const before = structuredClone(model.turns)
        count(coverage, command, apply(model, command))
        checkInvariants(model, before)
      }
      for (const command of settling(model)) apply(model, command)
      checkInvariants(model, model.turns)
      checkAtRest(model)
    }),
    { numRuns: RUNS },
  )
  expect(runs).toBeGreaterThanOrEqual(RUNS)
  const unexercised = COMMAND_NAMES.filter((name) => (coverage.accepted.get(name) ?? 0) < RUNS / 100)
  expect(unexercised).toEqual([])
})
