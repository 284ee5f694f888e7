import { isErrorCode, type ErrorCode } from '../protocol/errors.ts'
import { isUuid } from '../protocol/ids.ts'
import type { AuxiliaryPurpose } from '../protocol/views.ts'

/** Why a job was made. */
export const JOB_TRIGGERS = [
  'create',
  'send',
  'edit',
  'promote',
  'subagent',
  'tool_results',
  'compact',
  'retry',
  'resume',
  'reconcile',
] as const
export type JobTrigger = (typeof JOB_TRIGGERS)[number]

/** Payload of a job on the `turns` queue. IDs only: no text, no secret, no URL. */
export interface TurnJob {
  version: 1
  turnId: string
  chatId: string
  /** The initiator. `null` is said out loud, never left out: with gateway routing on it fails closed. */
  apiKeyId: string | null
  trigger: JobTrigger
  traceparent?: string
}

/** Payload of a job on the `auxiliary` queue. IDs and a purpose only. */
export interface AuxiliaryJob {
  version: 1
  runId: string
  chatId: string
  /** The initiator, said out loud as in `TurnJob`. */
  apiKeyId: string | null
  purpose: AuxiliaryPurpose
}

/** What a payload must agree with; `null` for one of a version we do not know, which is read for its id alone. */
export type JobComparison = { chatId: string; apiKeyId: string | null } | null

/** What a worker takes from a payload: the turn, and what the payload must agree with. */
export interface JobClaim {
  turnId: string
  compare: JobComparison
}

/** The same of a job for an auxiliary run. */
export interface AuxiliaryJobClaim {
  runId: string
  compare: JobComparison
}

const field = (data: unknown, name: string): unknown =>
  typeof data === 'object' && data !== null ? (data as Record<string, unknown>)[name] : undefined

/** Reads a payload of any version, hostile ones too; `null` where it names no turn. */
export function readJob(data: unknown): JobClaim | null {
  const turnId = field(data, 'turnId')
  return isUuid(turnId) ? { turnId, compare: readComparison(data) } : null
}

/** The same, of a payload that is for an auxiliary run. */
export function readAuxiliaryJob(data: unknown): AuxiliaryJobClaim | null {
  const runId = field(data, 'runId')
  return isUuid(runId) ? { runId, compare: readComparison(data) } : null
}

const readComparison = (data: unknown): JobComparison =>
  field(data, 'version') === 1
    ? { chatId: uuidOrNil(field(data, 'chatId')), apiKeyId: uuidOrNull(field(data, 'apiKeyId')) }
    : null

const NIL = '00000000-0000-0000-0000-000000000000'

// What is no id agrees with no row.
const uuidOrNil = (value: unknown): string => (isUuid(value) ? value.toLowerCase() : NIL)

function uuidOrNull(value: unknown): string | null {
  if (value === null || value === undefined) return null
  return uuidOrNil(value)
}

/** What a job is for: a turn, or an auxiliary run. */
export type JobSubject = 'turn' | 'run'

/** Why a job failed, as far as the queue keeps it: the error's text may be a provider's, and stands on the row. */
export interface JobFailure {
  code: ErrorCode
  subject: JobSubject
  /** `null` where the job names none. */
  id: string | null
}

/** `<code>: turn <id>` */
export const formatFailure = ({ code, subject, id }: JobFailure): string =>
  id === null ? code : `${code}: ${subject} ${id}`

/** Reads a failed job's reason, whoever wrote it; `null` where it begins with no code of ours. */
export function readFailure(reason: string): JobFailure | null {
  const [, code, subject, id] = /^([a-z_]+)(?:: (turn|run) (\S+)$)?/.exec(reason) ?? []
  if (!isErrorCode(code)) return null
  return { code, subject: subject === 'run' ? 'run' : 'turn', id: isUuid(id) ? id : null }
}
