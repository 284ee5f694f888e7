import { query, statement, type Database } from '../db/index.ts'
import { isTurnmillError } from '../protocol/errors.ts'
import type { Usage } from '../protocol/usage.ts'
import { STANDING, STANDING_VERSION, type CallSubject } from './authorise.ts'
import { toBudgetError, type BudgetVerdict, type RefusingBudget } from './budgets.ts'
import type { ToolAsked } from './meter.ts'
import { together } from './together.ts'

/**
 * The gateway's books: a row per call, written before it is made and settled once when it is over. The row is also the
 * reservation of what the call may cost at most.
 *
 * I11 recorded usage is what the provider reported; what it did not report is marked estimated.
 */
export interface Books {
  /**
   * Writes a call down and takes its worst case out of the budgets that it falls under, where its key may still call and
   * nothing that it goes by has changed.
   *
   * @returns why it may not be made; `null` where it may.
   * @throws {TurnmillError} `budget_exceeded`, `budget_busy`: of which budget, see `toBudgetError`. `database_unavailable`:
   * it may be written down all the same.
   */
  open(call: NewInterception): Promise<Refusal | null>
  /** Settles a call; a second time changes nothing. */
  settle(settlement: Settlement): Promise<void>
}

/** `stale`: what the call was found to need has changed since; nothing of it is written. */
export type Refusal = 'unauthorised' | 'stale' | 'model_unpriced'

/** What the statement says of a call. */
type Opened = { refusal: Refusal | null; budget: null } | { refusal: BudgetVerdict; budget: RefusingBudget }

export interface NewInterception {
  id: string
  subject: CallSubject
  /** Of the authorisation that the call goes by. */
  version: string
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

/** $1 calls, as `toOpened` gives them: what each was found to need is looked at once more, in the same snapshot. */
const openCalls = statement(
  'gateway/open',
  `with opened as materialized (
    select call.*, caller.id as "userId", caller.admin, p.id as "providerId", m.id as "modelConfigId",
      case when caller.id is null then 'unauthorised' when ${STANDING_VERSION} is distinct from call.version then 'stale' end as refusal
    from jsonb_to_recordset($1::jsonb) as call (
      id uuid, key uuid, provider text, model text, config uuid, version text, amount bigint, purpose text, "chatId" uuid, "turnId" uuid,
      step int, epoch int, attempt int, endpoint text, streamed boolean, client text, kind text, hint text, "limitMs" float8)
    ${STANDING}),
  fitting as (
    select array_agg(id) as ids, array_agg(key) as keys, array_agg("userId") as users, array_agg(amount) as amounts
    from opened where refusal is null),
  reserved as materialized (select r.* from fitting, turnmill_reserve(ids, keys, users, amounts) r),
  written as (
    insert into interceptions (id, api_key_id, user_id, reserved_micros, budget_windows, provider_id, provider, model, model_config_id,
      purpose, chat_id, turn_id, step, epoch, attempt, endpoint, streamed, client, credential_kind, credential_hint,
      started_at, deadline_at)
    select o.id, o.key, o."userId", case when r.windows = '{}' then 0 else o.amount end, r.windows, o."providerId", o.provider, o.model,
      o."modelConfigId", o.purpose, o."chatId", o."turnId", o.step, o.epoch, o.attempt, o.endpoint, o.streamed, o.client, o.kind, o.hint,
      clock_timestamp(), clock_timestamp() + o."limitMs" * interval '1 ms'
    from opened o join reserved r on r.call = o.id where r.verdict is null)
  select o.id, coalesce(o.refusal, r.verdict) as refusal,
    case when r.refused_by->>'subject' = 'deployment' and not o.admin then r.refused_by || '{"amounts": null}' else r.refused_by end as budget
  from opened o left join reserved r on r.call = o.id`,
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

/** $1 settlements, as `toSettled` gives them. */
const settleCalls = statement(
  'gateway/settle',
  `with given as materialized (
    select * from jsonb_to_recordset($1::jsonb) as g (
      id uuid, status int, error text, cost bigint, "firstByteMs" int, usage jsonb, prompt text, tools jsonb, kind text, hint text)),
  call as (
    update interceptions i set settled_at = clock_timestamp(), status = g.status, error_code = g.error, cost_micros = g.cost,
      estimated = coalesce((g.usage->>'estimated')::boolean, false), first_byte_at = started_at + g."firstByteMs" * interval '1 ms',
      credential_kind = g.kind, credential_hint = g.hint
    from given g where i.id = g.id and i.settled_at is null
    returning i.id, i.reserved_micros, i.budget_windows, g.cost, g.usage, g.prompt, g.tools),
  ${settled('coalesce(call.cost, 0)')},
  used as (
    insert into token_usages (interception_id, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens)
    select call.id, u."inputTokens", u."outputTokens", u."cacheReadTokens", u."cacheWriteTokens", u."reasoningTokens"
    from call, jsonb_to_record(call.usage) u ("inputTokens" bigint, "outputTokens" bigint, "cacheReadTokens" bigint,
      "cacheWriteTokens" bigint, "reasoningTokens" bigint) where jsonb_typeof(call.usage) = 'object'),
  prompts as (insert into user_prompts (interception_id, text) select call.id, call.prompt from call where call.prompt is not null),
  tools as (
    insert into tool_usages (interception_id, position, call_id, name)
    select call.id, t.position, t.call->>'callId', t.call->>'name'
    from call, jsonb_array_elements(call.tools) with ordinality t (call, position))
  select id from call`,
)

/** Most calls of a statement: what begins meanwhile waits for the next one. */
const MAX_TOGETHER = 50

export function createBooks(db: Database): Books {
  const open = together<NewInterception, Opened | undefined>({
    max: MAX_TOGETHER,
    run: async (calls) => {
      const rows = await query<Opened & { id: string }>(db, openCalls(JSON.stringify(calls.map(toOpened))))
      const opened = new Map(rows.map((row) => [row.id, row]))
      return calls.map(({ id }) => opened.get(id))
    },
    runsAlone: isOfOneCall,
  })
  const settle = together<Settlement, void>({
    max: MAX_TOGETHER,
    run: async (settlements) => {
      await query(db, settleCalls(JSON.stringify(settlements.map(toSettled))))
      return settlements.map(() => undefined)
    },
    runsAlone: isOfOneCall,
  })
  return {
    open: async (call) => {
      const opened = await open(call)
      if (opened === undefined) throw new TypeError('a call was not written down')
      if (opened.budget !== null) throw toBudgetError(opened.refusal, opened.budget, call.subject)
      return opened.refusal
    },
    settle,
  }
}

/** Whether a statement failed by something in it, so that each of its calls is better asked for alone. */
const isOfOneCall = (error: unknown): boolean =>
  !(isTurnmillError(error) && error.code === 'database_unavailable')

const toOpened = ({ id, subject, place, credential, ...call }: NewInterception) => ({
  id,
  key: subject.apiKeyId,
  provider: subject.provider,
  model: subject.model,
  config: subject.modelConfigId,
  version: call.version,
  amount: call.worstCaseMicros,
  purpose: call.purpose,
  chatId: call.chatId,
  turnId: call.turnId,
  ...place,
  endpoint: call.endpoint,
  streamed: call.streamed,
  client: call.client,
  ...{ kind: credential.kind, hint: credential.hint },
  limitMs: call.limitMs,
})

const toSettled = ({ id, credential, ...call }: Settlement) => ({
  id,
  status: call.status,
  error: call.errorCode,
  cost: call.costMicros,
  firstByteMs: call.firstByteMs,
  usage: call.usage,
  prompt: call.prompt,
  tools: call.tools,
  ...{ kind: credential.kind, hint: credential.hint },
})

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
