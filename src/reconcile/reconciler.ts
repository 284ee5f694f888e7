import { setTimeout as sleep } from 'node:timers/promises'
import type { AuxiliaryRuns } from '../auxiliary/index.ts'
import type { AdmittedTurn, Chats, PendingRun } from '../chats/index.ts'
import type { AuxiliaryQueue, TurnQueue } from '../queue/index.ts'

export interface ReconcilerOptions {
  chats: Pick<Chats, 'admitWaiting' | 'suspects' | 'renewJobs' | 'expireWaits' | 'repairQueues'>
  queue: Pick<TurnQueue, 'findLost'>
  /** Enqueues turns whose job was lost. Must not throw. */
  enqueue(turns: readonly AdmittedTurn[]): Promise<void>
  /** The same for auxiliary runs. */
  auxiliary: {
    runs: Pick<AuxiliaryRuns, 'suspects' | 'renewJobs'>
    queue: Pick<AuxiliaryQueue, 'findLost'>
    enqueue(runs: readonly PendingRun[]): Promise<void>
  }
  /** Runs the work unless another process is at it. Gives whether it ran. */
  alone(work: () => Promise<void>): Promise<boolean>
  /** Query 6: settles model calls whose process is gone, `limit` at most. Gives their number. */
  settleCalls(limit: number): Promise<number>
  /** Deletes what was kept for long enough, `limit` rows of a kind at most. */
  prune(limit: number): Promise<void>
  periodMs: number
  /** How old an enqueueing must be before its job is asked for. */
  lostAfterMs: number
  onPass(repaired: Repaired): void
  onError(error: unknown): void
}

/** What a pass put right, in turns where nothing else is said. */
export interface Repaired {
  admitted: number
  enqueued: number
  /** Auxiliary runs whose job was lost. */
  auxiliary: number
  /** Waits for clients and subagents that ended. */
  resumed: number
  /** Queues that waited behind nothing: each is a bug of ours. */
  repaired: number
  /** Model calls whose process was gone. */
  settled: number
}

/** Finds work that Postgres holds and the queue has lost, and forgets what was kept long enough. Runs in every process, on nothing but a timer. */
export interface Reconciler {
  start(): void
  /** A pass at once. Skipped while one is under way. */
  pass(): Promise<void>
  /** The queue has come back: a pass as soon as no other is under way, to which no job is too young to be lost. */
  catchUp(): Promise<void>
  /** Resolves when no pass is under way any more. */
  stop(): Promise<void>
}

const ROWS = 500
/** Pages per pass, so that a long backlog in good order cannot hide a lost job for ever, nor hold the pass for ever. */
const PAGES = 40

/** How long another process may be at its pass when the queue comes back; later, the timer does. */
const CATCH_UP_TRIES = 20
const CATCH_UP_MS = 100

export function createReconciler(options: ReconcilerOptions): Reconciler {
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> | undefined
  let stopped = false

  const run = (lostAfterMs: number): Promise<boolean> => {
    const passed = options
      .alone(() => reconcile({ ...options, lostAfterMs }))
      .catch((error: unknown) => {
        options.onError(error)
        return true
      })
    running = passed.then(() => void (running = undefined))
    return passed
  }

  const pass = async (): Promise<void> => {
    await (running ?? run(options.lostAfterMs))
  }

  async function catchUp(): Promise<void> {
    for (let tries = 0; tries < CATCH_UP_TRIES; tries++) {
      await running
      if (stopped || (await run(0))) return
      await sleep(CATCH_UP_MS)
    }
  }

  return {
    start: () => {
      timer ??= setInterval(() => void pass(), options.periodMs).unref()
    },
    pass,
    catchUp,
    stop: async () => {
      stopped = true
      clearInterval(timer)
      timer = undefined
      await running
    },
  }
}

/** What needs Postgres alone comes first: the queue may be away. */
async function reconcile(options: ReconcilerOptions): Promise<void> {
  const { chats, onPass, onError, prune } = options
  // What one step meets does not keep the others from their work.
  const attempt = (step: Promise<number>): Promise<number> =>
    step.catch((error: unknown) => {
      onError(error)
      return 0
    })
  const admitted = await attempt(admitWaiting(options))
  const resumed = await attempt(chats.expireWaits(ROWS, onError))
  const repaired = await attempt(chats.repairQueues(ROWS))
  const settled = await attempt(options.settleCalls(ROWS))
  await attempt(prune(ROWS).then(() => 0))
  const { queue, enqueue, auxiliary, lostAfterMs } = options
  const enqueued = await attempt(enqueueLost({ rows: chats, queue, enqueue }, lostAfterMs))
  const runs = await attempt(enqueueLost({ ...auxiliary, rows: auxiliary.runs }, lostAfterMs))
  onPass({ admitted, enqueued, auxiliary: runs, resumed, repaired, settled })
}

/** Query 1. */
async function admitWaiting({ chats, enqueue }: ReconcilerOptions): Promise<number> {
  const admitted = await chats.admitWaiting(ROWS)
  await enqueue(admitted)
  return admitted.length
}

/** Rows that expect a job, the queue of their jobs, and how they are given new ones. */
interface LostWork<Suspect extends { jobId: string }, Cursor, Pending> {
  rows: {
    suspects(page: {
      olderThanMs: number
      limit: number
      after: Cursor | null
    }): Promise<{ suspects: Suspect[]; next: Cursor | null }>
    renewJobs(lost: readonly Suspect[]): Promise<Pending[]>
  }
  queue: { findLost(jobIds: readonly string[]): Promise<Set<string>> }
  enqueue(pending: readonly Pending[]): Promise<void>
}

/** Queries 2 and 3: a row that should have a job, and whose job nobody is going to run, gets a new one. */
async function enqueueLost<Suspect extends { jobId: string }, Cursor, Pending>(
  { rows, queue, enqueue }: LostWork<Suspect, Cursor, Pending>,
  lostAfterMs: number,
): Promise<number> {
  let after: Cursor | null = null
  let enqueued = 0
  for (let page = 0; page < PAGES; page++) {
    const { suspects, next }: { suspects: Suspect[]; next: Cursor | null } = await rows.suspects({
      olderThanMs: lostAfterMs,
      limit: ROWS,
      after,
    })
    const lostIds = await queue.findLost(suspects.map((suspect) => suspect.jobId))
    const renewed = await rows.renewJobs(suspects.filter((suspect) => lostIds.has(suspect.jobId)))
    await enqueue(renewed)
    enqueued += renewed.length
    if (next === null) break
    after = next
  }
  return enqueued
}
