/** Random histories on real Postgres and a real queue: after every command the rows are what the model says. */
import fc from 'fast-check'
import type { JobQueue, JobWorker } from '../../src/queue/backend.ts'
import { anyHistory, COMMAND_NAMES, count, createCoverage, nameOf } from '../support/chat-commands.ts'
import {
  apply, checkAtRest, checkInvariants, createModel, isDutiful, pick, settling, type ChatModel, type Command,
} from '../support/chat-model.ts' // prettier-ignore
import { projectModel, startReplay, type Replay } from '../support/chat-replay.ts'
import { startTurnmill, type BackendKind, type Turnmill } from '../support/turnmill.ts'

const RUNS: [BackendKind, number][] = [
  ['redis', 300],
  ['postgres', 60],
]

const coverage = createCoverage()

describe.each(RUNS)('on the %s backend', (backend, runs) => {
  let turnmill: Turnmill
  let queue: JobQueue<object>
  let worker: JobWorker<object>

  beforeAll(async () => {
    turnmill = await startTurnmill({
      backend,
      workers: 0,
      // Every lease is over at once, so that any delivery may take a turn over.
      environment: {
        TURNMILL_LEASE_MS: '2',
        TURNMILL_LEASE_RENEWAL_MS: '1',
        TURNMILL_LOST_AFTER_MS: '1',
        TURNMILL_QUEUE_LIMIT: '3',
      },
    })
    queue = turnmill.services.backend.queue('turns')
    worker = turnmill.services.backend.worker('turns', null as never, {
      autorun: false,
      lockDuration: 60_000,
    })
  })
  afterAll(async () => {
    await worker.close()
    await queue.close()
    await turnmill.stop()
  })

  test(`rows are what the model says through ${runs} random histories (I1 to I5, I7, I8)`, async () => {
    let finished = 0
    await fc.assert(
      fc.asyncProperty(anyHistory(25), async (commands) => {
        const model = createModel()
        const replay = await startReplay({ turnmill, queue, worker })
        for (const command of commands) count(coverage, command, await both(replay, model, command))
        for (const command of settling(model)) await both(replay, model, command)
        await demandRest(replay, model)
        finished += 1
      }),
      // A failure prints the seed and the path to the history that shows it.
      { numRuns: runs, endOnFailure: true, ...replayedSeed() },
    )
    expect(finished).toBe(runs)
  }, 300_000)
})

test('every command was exercised: accepted somewhere, and refused where it can be', () => {
  expect(COMMAND_NAMES.filter((name) => !coverage.accepted.has(name))).toEqual([])
  expect([...coverage.refused.values()].reduce((sum, refused) => sum + refused, 0)).toBeGreaterThan(100)
})

/** `TURNMILL_TEST_SEED=<seed>` runs a failed history again. */
const replayedSeed = (): { seed?: number } => {
  const seed = process.env['TURNMILL_TEST_SEED']
  return seed === undefined ? {} : { seed: Number(seed) }
}

/** A worker that has not done its duty is not a history. */
function isSensible(model: ChatModel, command: Command): boolean {
  if (command.type !== 'work') return true
  const holder = pick(model.holders, command.holder)
  const turn = holder === undefined ? undefined : model.turns[holder.turn - 1]
  return turn !== undefined && isDutiful(turn, command.transition)
}

async function both(replay: Replay, model: ChatModel, command: Command): Promise<boolean> {
  if (!isSensible(model, command)) return false
  const before = structuredClone(model.turns)
  const real = await replay.perform(command, model)
  const expected = apply(model, command)
  const seen = await replay.project()
  const said = `${nameOf(command)}: `
  expect([said, real, seen]).toEqual([said, expected, projectModel(model)])
  checkInvariants(model, before)
  return real
}

const STATE_OF = { history: 'promoted', removed: 'promoted', queued: 'queued', deleted: 'deleted', superseded: 'superseded' } // prettier-ignore

async function demandRest(replay: Replay, model: ChatModel): Promise<void> {
  checkAtRest(model)
  const fates = await replay.fates()
  for (const [label, state] of fates)
    expect([label, state]).toEqual([label, STATE_OF[model.fates.get(label) ?? 'queued']])
  expect(await replay.waitingJobs()).toBe(0)
}
