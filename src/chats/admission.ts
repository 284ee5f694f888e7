import type { TurnTrigger } from '../protocol/views.ts'

export type Pool = 'root' | 'subagent'

/** How many turns of one user run at once, per pool. */
export type PoolSlots = Readonly<Record<Pool, number>>

/** A turn that has just been given a slot, and the job that is to be made for it. */
export interface AdmittedTurn {
  turnId: string
  chatId: string
  apiKeyId: string | null
  trigger: TurnTrigger
  jobId: string
  /** Whether a worker has held it before: it has stood in the queue once, and goes on ahead of those that wait to begin. */
  begun: boolean
}

export interface AdmittedRow {
  turn_id: string
  chat_id: string
  api_key_id: string | null
  trigger: TurnTrigger
  job_id: string
  begun: boolean
}

/** The columns of an `AdmittedRow`, of what `turnmill_admit` gave as `a`. */
export const ADMITTED = 'a.*, (select epoch > 0 from turns where id = a.turn_id) as begun'

export const toAdmittedTurn = (row: AdmittedRow): AdmittedTurn => ({
  turnId: row.turn_id,
  chatId: row.chat_id,
  apiKeyId: row.api_key_id,
  trigger: row.trigger,
  jobId: row.job_id,
  begun: row.begun,
})

export const toAdmittedTurns = (rows: object[]): AdmittedTurn[] => (rows as AdmittedRow[]).map(toAdmittedTurn)
