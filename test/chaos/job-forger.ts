/** Puts jobs onto the queue that nobody should heed, and looks at what lies there. */
import { setTimeout as sleep } from 'node:timers/promises'
import type pg from 'pg'
import { TURN_JOB, TURNS_QUEUE, type QueueBackend } from '../../src/queue/index.ts'
import type { Random } from './random.ts'

export interface JobForger {
  /** Delivers turns that wait or run up to three times more, under other job ids. Gives the number of jobs. */
  duplicate(): Promise<number>
  /** Jobs of ended turns, of turns that never were, under another user's key, and of no shape at all. */
  forge(): Promise<number>
  /** Jobs that somebody is going to run, or is running. */
  openJobs(): Promise<string[]>
  close(): Promise<void>
}

interface TurnRow {
  id: string
  chat_id: string
  api_key_id: string
}

const MANY = 40
const TRIES = 40

export async function createJobForger(
  backend: QueueBackend,
  pool: pg.Pool,
  random: Random,
): Promise<JobForger> {
  const queue = backend.queue<object>(TURNS_QUEUE, {
    defaultJobOptions: { attempts: 1, removeOnComplete: { count: 1000 }, removeOnFail: { count: 1000 } },
  })
  queue.on('error', () => undefined)
  // On Postgres a queue whose first query fails stays broken for good.
  await queue.waitUntilReady()
  let count = 0

  const add = (data: object): Promise<unknown> => {
    const jobId = `storm-${++count}`
    // Redis or Postgres may just have come back.
    return persistently(() => queue.add(TURN_JOB, data, { jobId }))
  }
  const turnsIn = async (states: readonly string[]): Promise<TurnRow[]> => {
    const statement = `select id, chat_id, api_key_id from turns where state = any($1) order by created_at desc limit ${MANY}`
    return (await persistently(() => pool.query<TurnRow>(statement, [states]))).rows
  }
  const payload = (turn: TurnRow): object => ({
    version: 1,
    turnId: turn.id,
    chatId: turn.chat_id,
    apiKeyId: turn.api_key_id,
    trigger: 'reconcile',
  })

  return {
    duplicate: async () => {
      const turns = random.shuffle(await turnsIn(['pending', 'running', 'interrupting'])).slice(0, 5)
      const jobs = turns.flatMap((turn) => Array.from({ length: random.integer(1, 3) }, () => payload(turn)))
      await Promise.all(jobs.map(add))
      return jobs.length
    },
    forge: async () => {
      const ended = random
        .shuffle(await turnsIn(['completed', 'failed', 'interrupted', 'superseded']))
        .slice(0, 4)
      const [active] = random.shuffle(await turnsIn(['pending', 'running']))
      const jobs = [
        ...ended.map(payload),
        payload({ id: crypto.randomUUID(), chat_id: crypto.randomUUID(), api_key_id: crypto.randomUUID() }),
        { version: 99, nonsense: true },
        ...(active === undefined ? [] : [{ ...payload(active), apiKeyId: crypto.randomUUID() }]),
      ]
      await Promise.all(jobs.map(add))
      return jobs.length
    },
    openJobs: async () => {
      const jobs = await queue.getJobs(['waiting', 'active', 'delayed', 'prioritized'])
      return jobs.map(
        (job) => `${job.id ?? '?'} of turn ${String((job.data as Partial<{ turnId: string }>).turnId)}`,
      )
    },
    close: () => queue.close(),
  }
}

async function persistently<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await work()
    } catch (error) {
      if (tries === TRIES) throw error
      await sleep(250)
    }
  }
}
