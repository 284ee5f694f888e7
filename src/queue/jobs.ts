import { isUuid } from '../protocol/ids.ts'

/** Why a job was made. */
export type JobTrigger =
  | 'create'
  | 'send'
  | 'edit'
  | 'promote'
  | 'subagent'
  | 'tool_results'
  | 'compact'
  | 'retry'
  | 'resume'
  | 'reconcile'

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
