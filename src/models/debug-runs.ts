import { setTimeout as sleep } from 'node:timers/promises'
import { query, statement, type Database, type Statement } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import type { Route } from '../protocol/routes.ts'
import type { ProviderConnection } from '../providers/contract.ts'
import { recordingFetch, type RecordedRequest, type RecordedResponse } from './recording.ts'

/** Runs that are kept of one chat: the newest. */
const RUNS_PER_CHAT = 200

/** A recorded model call, as a list has it. Times are ISO 8601 in UTC. */
export interface DebugRunSummary {
  id: string
  chatId: string
  turnId: string | null
  step: number | null
  attempt: number | null
  purpose: string
  modelConfigId: string | null
  method: string
  path: string
  /** `null` where there is no answer, or none yet. */
  status: number | null
  createdAt: string
  /** `null` while the call runs; for good where its process has died. */
  finishedAt: string | null
  expiresAt: string
}

export interface DebugRunView extends DebugRunSummary {
  request: RecordedRequest
  response: RecordedResponse | null
}

/** Whether a chat's calls are recorded: a subagent's are where its root's are. */
const isRecorded = (chat: string): string => `exists (
    select 1 from chats d where d.id in (${chat}.id, ${chat}.root_id) and d.debug_until > clock_timestamp())`

/** $1 chat. */
const readRecorded = statement(
  'debug/is-on',
  `select ${isRecorded('c')} as recorded from chats c where id = $1`,
)

/**
 * No row where the chat is gone or its calls are recorded no longer. $1 run, $2 chat, $3 turn, $4 step, $5 attempt,
 * $6 purpose, $7 model config, $8 request, $9 hours it is kept, $10 runs to be left of the chat beside it.
 */
const insertRun = statement(
  'debug/begin',
  `with gone as (
    delete from debug_runs where id in (
      select id from debug_runs where chat_id = $2 order by created_at desc, id desc offset $10))
  insert into debug_runs (id, chat_id, turn_id, step, attempt, purpose, model_config_id, request, expires_at)
  select $1, c.id, $3, $4, $5, $6, $7, $8, clock_timestamp() + $9 * interval '1 hour'
  from chats c where c.id = $2 and ${isRecorded('c')}`,
)

/** $1 run, $2 response. */
const endRun = statement(
  'debug/end',
  'update debug_runs set response = $2, finished_at = clock_timestamp() where id = $1',
)

const SUMMARY = `jsonb_build_object(
    'id', r.id, 'chatId', r.chat_id, 'turnId', r.turn_id, 'step', r.step, 'attempt', r.attempt, 'purpose', r.purpose,
    'modelConfigId', r.model_config_id, 'method', r.request->>'method', 'path', r.request->>'path',
    'status', r.response->'status')`

/** $1 chat, $2 rows, $3 the last id of the page before. Newest first. */
const runsOfChat = statement(
  'debug/list',
  `select ${SUMMARY} as summary, created_at, finished_at, expires_at from debug_runs r
  where chat_id = $1 and expires_at > clock_timestamp() and ($3::uuid is null or id < $3) order by id desc limit $2`,
)

/** $1 chat, $2 run. */
const runOfChat = statement(
  'debug/read',
  `select ${SUMMARY} as summary, created_at, finished_at, expires_at, request, response from debug_runs r
  where chat_id = $1 and id = $2 and expires_at > clock_timestamp()`,
)

/** $1 rows at most. The subquery makes the time one value, so that the index finds the rows. */
const pruneRuns = statement(
  'debug/prune',
  `delete from debug_runs where id in (
    select id from debug_runs where expires_at < (select clock_timestamp()) order by expires_at limit $1)`,
)

type Kept = Omit<DebugRunSummary, 'createdAt' | 'finishedAt' | 'expiresAt'>

interface RunRow {
  summary: Kept
  created_at: Date
  finished_at: Date | null
  expires_at: Date
}

interface WholeRow extends RunRow {
  request: RecordedRequest
  response: RecordedResponse | null
}

export interface DebugRunsOptions {
  db: Database
  retentionHours: number
  /** Called where a call could not be recorded, which the call does not notice. */
  onError(error: unknown): void
}

/** Records model calls of chats whose owner has asked for it. */
export interface DebugRuns {
  /** Whether the calls of a chat are recorded, for whoever has not read it along with something else. One round trip. */
  isOn(chatId: string): Promise<boolean>
  /** A connection as it is, whose calls are recorded. Recording neither fails a call nor keeps it waiting. */
  record(route: Route, connection: ProviderConnection): ProviderConnection
  /** Resolves when what was recorded so far is written, or after `limitMs`. */
  idle(limitMs: number): Promise<void>
}

export function createDebugRuns({ db, retentionHours, onError }: DebugRunsOptions): DebugRuns {
  const pending = new Set<Promise<void>>()
  const write = (after: Promise<void>, one: Statement): Promise<void> => {
    const run = async (): Promise<void> => {
      await after
      await query(db, one)
    }
    const written = run().catch(onError)
    pending.add(written)
    void written.finally(() => pending.delete(written))
    return written
  }
  const all = async (): Promise<void> => {
    while (pending.size > 0) await Promise.all(pending)
  }
  const begin = (route: Route, request: RecordedRequest) => {
    const id = newId()
    const { chatId, turnId, purpose } = route.attribution
    const { step = null, attempt = null } = route.place ?? {}
    const begun = write(
      Promise.resolve(),
      insertRun(
        id, chatId, turnId, step, attempt, purpose, route.modelConfigId, JSON.stringify(request), retentionHours,
        RUNS_PER_CHAT - 1,
      ), // prettier-ignore
    )
    return (response: RecordedResponse): void => void write(begun, endRun(id, JSON.stringify(response)))
  }
  return {
    isOn: async (chatId) => {
      const [row] = await query<{ recorded: boolean }>(db, readRecorded(chatId))
      return row?.recorded ?? false
    },
    record: (route, connection) => ({
      ...connection,
      fetch: recordingFetch(connection.fetch, [connection.credential], {
        begin: (request) => begin(route, request),
        onError,
      }),
    }),
    idle: (limitMs) => Promise.race([all(), sleep(limitMs, undefined, { ref: false })]),
  }
}

/** Recorded calls of a chat, newest first. */
export async function listDebugRuns(
  db: Database,
  chatId: string,
  { limit, after }: { limit: number; after: string | null },
): Promise<{ items: DebugRunSummary[]; next: string | null }> {
  const rows = await query<RunRow>(db, runsOfChat(chatId, limit + 1, after))
  const items = rows.slice(0, limit).map(toSummary)
  return { items, next: rows.length > limit ? (items.at(-1)?.id ?? null) : null }
}

/** @throws {TurnmillError} `not_found` where there is none in this chat, or none any more. */
export async function readDebugRun(db: Database, chatId: string, runId: string): Promise<DebugRunView> {
  const [row] = await query<WholeRow>(db, runOfChat(chatId, runId))
  if (row === undefined)
    throw new TurnmillError('not_found', `debug run ${runId} does not exist in chat ${chatId}`)
  return { ...toSummary(row), request: row.request, response: row.response }
}

const toSummary = (row: RunRow): DebugRunSummary => ({
  ...row.summary,
  createdAt: row.created_at.toISOString(),
  finishedAt: row.finished_at?.toISOString() ?? null,
  expiresAt: row.expires_at.toISOString(),
})

/** Retention: forgets what has been kept for long enough, `limit` rows at most. */
export async function pruneDebugRuns(db: Database, limit: number): Promise<void> {
  await query(db, pruneRuns(limit))
}
