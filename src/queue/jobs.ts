import { isErrorCode, type ErrorCode } from '../protocol/errors.ts'
import { isUuid } from '../protocol/ids.ts'

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

/** What a worker takes from a payload: the turn, and what the payload must agree with. */
export interface JobClaim {
  turnId: string
  /** `null` for a payload of a version we do not know: it is read for its turn alone. */
  compare: { chatId: string; apiKeyId: string | null } | null
}

const field = (data: unknown, name: string): unknown =>
  typeof data === 'object' && data !== null ? (data as Record<string, unknown>)[name] : undefined

/** Reads a payload of any version, hostile ones too; `null` where it names no turn. */
export function readJob(data: unknown): JobClaim | null {
  const turnId = field(data, 'turnId')
  if (!isUuid(turnId)) return null
  if (field(data, 'version') !== 1) return { turnId, compare: null }
  return {
    turnId,
    compare: { chatId: uuidOrNil(field(data, 'chatId')), apiKeyId: uuidOrNull(field(data, 'apiKeyId')) },
  }
}

const NIL = '00000000-0000-0000-0000-000000000000'

// What is no id agrees with no row.
const uuidOrNil = (value: unknown): string => (isUuid(value) ? value.toLowerCase() : NIL)

function uuidOrNull(value: unknown): string | null {
  if (value === null || value === undefined) return null
  return uuidOrNil(value)
}

/** Why a job failed, as far as the queue keeps it: the error's text may be a provider's, and stands on the turn. */
export interface JobFailure {
  code: ErrorCode
  /** `null` where the job names no turn. */
  turnId: string | null
}

/** `<code>: turn <id>` */
export const formatFailure = ({ code, turnId }: JobFailure): string =>
  turnId === null ? code : `${code}: turn ${turnId}`

/** Reads a failed job's reason, whoever wrote it; `null` where it begins with no code of ours. */
export function readFailure(reason: string): JobFailure | null {
  const [, code, turnId] = /^([a-z_]+)(?:: turn (\S+)$)?/.exec(reason) ?? []
  return isErrorCode(code) ? { code, turnId: isUuid(turnId) ? turnId : null } : null
}
