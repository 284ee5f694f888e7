import type { QueueJobJson } from '@bull-board/api/typings/app'
import { isUuid } from '../protocol/ids.ts'
import { AUXILIARY_PURPOSES, JOB_NOTES } from '../protocol/views.ts'
import { AUXILIARY_JOB, formatFailure, JOB_TRIGGERS, readFailure, TURN_JOB } from '../queue/index.ts'

/** Stands where a job holds something else than what our producers write. */
const NOT_AN_ID = '<not an id>'

/** Stands where the reason of a failure begins with no code of ours. */
const NOT_A_CODE = '<not a code>'

/**
 * A job as Bull Board may show it (I10): IDs, codes, times and counts. Whoever can write to the queue's database can put
 * anything into a job, so each field is built anew from what it may hold; what has no line here is not shown.
 */
export const showJob = (job: QueueJobJson): QueueJobJson => ({
  id: isJobId(job.id) ? job.id : NOT_AN_ID,
  name: [TURN_JOB, AUXILIARY_JOB].find((name) => name === job.name) ?? NOT_AN_ID,
  data: showPayload(job.data),
  failedReason: showReason(job.failedReason),
  stacktrace: [],
  returnvalue: JOB_NOTES.find((note) => note === job.returnvalue) ?? null,
  progress: 0,
  opts: { attempts: numberOr(0, (job.opts as { attempts?: unknown } | null)?.attempts) },
  timestamp: numberOr(0, job.timestamp),
  attemptsMade: numberOr(0, job.attemptsMade),
  attemptsStarted: numberOr(0, job.attemptsStarted),
  stalledCounter: numberOr(0, job.stalledCounter),
  delay: numberOr(0, job.delay),
  priority: numberOr(0, job.priority),
  processedOn: numberOr(null, job.processedOn),
  finishedOn: numberOr(null, job.finishedOn),
})

const FIELDS: Record<string, (value: unknown) => boolean> = {
  version: Number.isSafeInteger,
  turnId: isUuid,
  runId: isUuid,
  chatId: isUuid,
  apiKeyId: (value) => value === null || isUuid(value),
  trigger: (value) => JOB_TRIGGERS.some((trigger) => trigger === value),
  purpose: (value) => AUXILIARY_PURPOSES.some((purpose) => purpose === value),
}

function showPayload(data: unknown): Record<string, unknown> {
  if (typeof data !== 'object' || data === null) return {}
  const given = new Map(Object.entries(data))
  const shown = Object.entries(FIELDS).filter(([name]) => given.has(name))
  return Object.fromEntries(
    shown.map(([name, fits]) => [name, fits(given.get(name)) ? given.get(name) : NOT_AN_ID]),
  )
}

/** `turn-<uuid>-<count>`, `aux-<uuid>-<count>`, or a number where BullMQ gave the ID. */
const JOB_ID = /^((turn|aux)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-)?\d+$/

export const isJobId = (id: unknown): id is string => typeof id === 'string' && JOB_ID.test(id)

function showReason(reason: unknown): string {
  if (typeof reason !== 'string' || reason === '') return ''
  const failure = readFailure(reason)
  return failure === null ? NOT_A_CODE : formatFailure(failure)
}

const numberOr = <T>(otherwise: T, value: unknown): number | T =>
  typeof value === 'number' ? value : otherwise
