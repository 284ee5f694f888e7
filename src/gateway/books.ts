import { query, statement, type Database } from '../db/index.ts'
import { newId } from '../protocol/ids.ts'
import type { Usage } from '../protocol/usage.ts'
import type { ToolAsked } from './meter.ts'

/**
 * The gateway's books: a row per call, written before it is made and settled once when it is over. The row is also the
 * reservation of what the call may cost at most.
 *
 * I11 recorded usage is what the provider reported; what it did not report is marked estimated.
 */
export interface Books {
  /**
   * Writes a call down and takes its worst case out of the budgets that it falls under.
   *
   * @returns its id, or why it may not be made.
   */
  open(call: NewInterception): Promise<{ id: string } | { refusal: Refusal }>
  /** Settles a call; a second time changes nothing. */
  settle(settlement: Settlement): Promise<void>
}

export type Refusal = 'model_unpriced' | 'budget_exceeded' | 'budget_busy'

export interface NewInterception {
  apiKeyId: string
  userId: string
  provider: { id: string; name: string }
  model: string
  modelConfigId: string | null
  purpose: string
  chatId: string | null
  turnId: string | null
  place: { step: number; epoch: number; attempt: number } | null
  endpoint: string
  streamed: boolean
  client: string | null
  credential: { kind: 'central' | 'byok' | 'none'; hint: string | null }
  /** The most that the call may cost, in micro-dollars; `null` where nobody can say. */
  worstCaseMicros: number | null
  /** When it is surely over, from now, in ms. */
  limitMs: number
}

export interface Settlement {
  id: string
  credential: NewInterception['credential']
  /** The upstream's status; `null` where it gave none. */
  status: number | null
  errorCode: string | null
  /** `null` where nothing was used, as far as anybody knows. */
  usage: Usage | null
  costMicros: number | null
  /** Between the call and the first byte of its answer. */
  firstByteMs: number | null
  prompt: string | null
  tools: readonly ToolAsked[]
}

/** $1 id, $2 key, $3 user, $4 worst case, $5 provider, $6 its name, $7 model, $8 model config, $9 purpose, $10 chat, $11 turn, $12 step, $13 epoch, $14 attempt, $15 endpoint, $16 streamed, $17 client, $18 and $19 kind and hint of the credential, $20 limit in ms. */
const openCall = statement(
  'gateway/open',
  `with reserved as materialized (select verdict, windows from turnmill_reserve($2, $3, $4::bigint)),
  call as (
    insert into interceptions (id, api_key_id, user_id, reserved_micros, budget_windows, provider_id, provider, model, model_config_id,
      purpose, chat_id, turn_id, step, epoch, attempt, endpoint, streamed, client, credential_kind, credential_hint,
      started_at, deadline_at)
    select $1, $2, $3, case when windows = '{}' then 0 else $4::bigint end, windows, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
      $17, $18, $19, clock_timestamp(), clock_timestamp() + $20 * interval '1 ms'
    from reserved where verdict is null)
  select verdict from reserved`,
)

// The windows are locked in the order in which they are reserved from.
const settled = (spent: string): string => `
  sums as (
    select taken.id, sum(call.reserved_micros)::bigint as reserved, sum(${spent})::bigint as spent
    from call, unnest(call.budget_windows) taken (id) group by taken.id),
  locked as (
    select w.id from sums join budget_windows w on w.id = sums.id join budgets b on b.id = w.budget_id
    order by case b.subject when 'key' then 1 when 'user' then 2 else 3 end, b.subject_id, b.period for no key update of w),
  windows as (
    update budget_windows w set reserved_micros = w.reserved_micros - sums.reserved, spent_micros = w.spent_micros + sums.spent
    from sums, locked where w.id = sums.id and w.id = locked.id)`

/** $1 id, $2 status, $3 error, $4 cost, $5 ms to the first byte, $6 usage, $7 prompt, $8 tools, $9 and $10 kind and hint of the credential. */
const settleCall = statement(
  'gateway/settle',
  `with call as (
    update interceptions set settled_at = clock_timestamp(), status = $2, error_code = $3, cost_micros = $4,
      estimated = coalesce(($6::jsonb->>'estimated')::boolean, false), first_byte_at = started_at + $5 * interval '1 ms',
      credential_kind = $9, credential_hint = $10
    where id = $1 and settled_at is null returning id, reserved_micros, budget_windows),
  ${settled('coalesce($4::bigint, 0)')},
  used as (
    insert into token_usages (interception_id, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens)
    select call.id, u."inputTokens", u."outputTokens", u."cacheReadTokens", u."cacheWriteTokens", u."reasoningTokens"
    from call, jsonb_to_record($6::jsonb) u ("inputTokens" bigint, "outputTokens" bigint, "cacheReadTokens" bigint,
      "cacheWriteTokens" bigint, "reasoningTokens" bigint) where $6::jsonb is not null),
  prompt as (insert into user_prompts (interception_id, text) select call.id, $7 from call where $7::text is not null),
  tools as (
    insert into tool_usages (interception_id, position, call_id, name)
    select call.id, t.position, t.call->>'callId', t.call->>'name'
    from call, jsonb_array_elements($8::jsonb) with ordinality t (call, position))
  select id from call`,
)

export const createBooks = (db: Database): Books => ({
  open: async (call) => {
    const id = newId()
    const [row] = await query<{ verdict: Refusal | null }>(db, openCall(...openValues(id, call)))
    const refusal = row?.verdict ?? null
    return refusal === null ? { id } : { refusal }
  },
  settle: async (settlement) => {
    const { id, credential, status, errorCode, usage, costMicros, firstByteMs, prompt, tools } = settlement
    await query(
      db,
      settleCall(id, status, errorCode, costMicros, firstByteMs, usage === null ? null : JSON.stringify(usage), prompt, JSON.stringify(tools), credential.kind, credential.hint), // prettier-ignore
    )
  },
})

const openValues = (id: string, call: NewInterception): unknown[] => [
  id, call.apiKeyId, call.userId, call.worstCaseMicros, call.provider.id, call.provider.name, call.model, call.modelConfigId,
  call.purpose, call.chatId, call.turnId, call.place?.step ?? null, call.place?.epoch ?? null, call.place?.attempt ?? null,
  call.endpoint, call.streamed, call.client, call.credential.kind, call.credential.hint, call.limitMs,
] // prettier-ignore

/** $1 rows at most. A call of a turn is over once somebody else has the turn, or nobody; any other by its deadline. */
const settleOverdue = statement(
  'gateway/settle-overdue',
  `with overdue as (
    select i.id from interceptions i
    where i.settled_at is null and i.deadline_at < clock_timestamp()
      and not exists (
        select 1 from turns t where t.id = i.turn_id and t.epoch = i.epoch and t.lease_until > clock_timestamp())
    order by i.deadline_at limit $1 for no key update of i skip locked),
  call as (
    update interceptions i set settled_at = clock_timestamp(), estimated = true, error_code = 'worker_lost',
      cost_micros = case when i.budget_windows = '{}' then null else i.reserved_micros end
    from overdue where i.id = overdue.id returning i.id, i.reserved_micros, i.budget_windows),
  ${settled('call.reserved_micros')}
  select id from call`,
)

/** Query 6 of the reconciler: settles calls whose process is gone, at their worst case. Gives their number. */
export const settleOverdueCalls = async (db: Database, limit: number): Promise<number> =>
  (await query(db, settleOverdue(limit))).length
