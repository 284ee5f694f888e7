import { query, statement, withTransaction, type Database } from '../db/index.ts'
import type { Usage } from '../protocol/usage.ts'
import { firstId } from './ids-in-time.ts'
import { CLIENT_CLOSED } from './relay.ts'

/** Reading the gateway's books: what calls used and cost, summed. */

export const USAGE_GROUPS = ['key', 'user', 'provider', 'model', 'purpose', 'day'] as const
export type UsageGroup = (typeof USAGE_GROUPS)[number]

/** Which calls. `null` does not choose. */
export interface UsageRequest {
  /** The first moment, and the first one after it. */
  from: Date
  to: Date
  userId: string | null
  apiKeyId: string | null
  chatId: string | null
  groupBy: UsageGroup | null
}

/** Tokens and micro-dollars, whole numbers. */
export interface Sums extends Omit<Usage, 'estimated'> {
  /** Of what has a price. */
  costMicros: number
  /** How many hold a count of our own. */
  estimated: number
  /** How many have no price. */
  unpriced: number
}

export interface CallSums extends Sums {
  calls: number
  /** Refused by the provider, or broken off; not what its caller left, as an interrupt does. */
  failed: number
  underWay: number
}

export interface GroupedUsage {
  total: CallSums
  /** The dearest first; days in their order. */
  items: (CallSums & { group: string })[]
  /** Whether there are more groups than these. */
  more: boolean
}

/** How calls end that their caller left. */
const LEFT_CODES = [
  CLIENT_CLOSED,
  'turn_interrupted',
  'turn_fenced',
  'worker_stopped',
  'key_revoked',
  'gateway_unauthorized',
]
const LEFT = LEFT_CODES.map((code) => `'${code}'`).join(', ')

/** Groups that are shown at most. */
const MAX_GROUPS = 1000

/** How long Postgres may sum, in ms; then the caller may ask for a shorter period. */
const SUM_LIMIT_MS = 15_000

const GROUPS: Readonly<Record<UsageGroup, string>> = {
  key: 'i.api_key_id::text',
  user: 'i.user_id::text',
  provider: 'i.provider',
  model: `i.provider || '/' || i.model`,
  purpose: 'i.purpose',
  day: `to_char(i.started_at at time zone 'UTC', 'YYYY-MM-DD')`,
}

/**
 * What finds the rows, the narrowest first. IDs are in order of time, so that the period of everybody's calls needs no
 * index of its own; they are made by the processes, whose clocks may differ from the database's by an hour.
 */
const FINDERS = {
  chat: 'i.chat_id = $3',
  key: 'i.api_key_id = $4',
  user: 'i.user_id = $5',
  all: `i.id >= ${firstId("$1::timestamptz - interval '1 hour'")} and i.id < ${firstId("$2::timestamptz + interval '1 hour'")}`,
} as const
type Finder = keyof typeof FINDERS

/** $1 from, $2 to, $3 chat, $4 key, $5 user, $6 groups at most. */
export const sumCalls = (finder: Finder, groupBy: UsageGroup | null) =>
  statement(
    `gateway/usage-of-${finder}-by-${groupBy ?? 'nothing'}`,
    `select ${groupBy === null ? 'null' : GROUPS[groupBy]} as "group", ${groupBy === null ? 'true' : `grouping(${GROUPS[groupBy]}) = 1`} as "isTotal",
      count(*)::float8 as calls,
      (count(*) filter (where i.settled_at is null))::float8 as "underWay",
      (count(*) filter (where i.error_code not in (${LEFT}) or i.status >= 400))::float8 as failed,
      (count(*) filter (where i.estimated))::float8 as estimated,
      (count(*) filter (where i.settled_at is not null and i.cost_micros is null))::float8 as unpriced,
      coalesce(sum(t.input_tokens), 0)::float8 as "inputTokens", coalesce(sum(t.output_tokens), 0)::float8 as "outputTokens",
      coalesce(sum(t.cache_read_tokens), 0)::float8 as "cacheReadTokens",
      coalesce(sum(t.cache_write_tokens), 0)::float8 as "cacheWriteTokens",
      coalesce(sum(t.reasoning_tokens), 0)::float8 as "reasoningTokens", coalesce(sum(i.cost_micros), 0)::float8 as "costMicros"
    from interceptions i left join token_usages t on t.interception_id = i.id
    where ${FINDERS[finder]} and i.started_at >= $1 and i.started_at < $2
      and ($3::uuid is null or i.chat_id = $3) and ($4::uuid is null or i.api_key_id = $4) and ($5::uuid is null or i.user_id = $5)
    ${groupBy === null ? '' : `group by grouping sets ((${GROUPS[groupBy]}), ())`}
    order by "isTotal" desc, ${groupBy === 'day' ? '' : '"costMicros" desc, '}"group" limit $6`,
  )

interface SumRow extends CallSums {
  group: string | null
  isTotal: boolean
}

/** $1 ms. */
const limitTime = statement('gateway/limit-time', `select set_config('statement_timeout', $1, true)`)

/** @throws {TurnmillError} `database_unavailable` where there is more to sum than can be waited for. */
export async function readUsage(db: Database, request: UsageRequest): Promise<GroupedUsage> {
  const { from, to, chatId, apiKeyId, userId, groupBy } = request
  const sums = sumCalls(finderOf(request), groupBy)(from, to, chatId, apiKeyId, userId, MAX_GROUPS + 2)
  const [total, ...groups] = await withTransaction(db, async (tx) => {
    await tx.query(limitTime(String(SUM_LIMIT_MS)))
    return tx.query<SumRow>(sums)
  })
  if (total === undefined) throw new Error('an aggregate gave no row')
  return {
    total: toCallSums(total),
    items: groups
      .slice(0, MAX_GROUPS)
      .map(({ group, ...row }) => ({ group: group ?? '', ...toCallSums(row) })),
    more: groups.length > MAX_GROUPS,
  }
}

function finderOf({ chatId, apiKeyId, userId }: UsageRequest): Finder {
  if (chatId !== null) return 'chat'
  if (apiKeyId !== null) return 'key'
  return userId === null ? 'all' : 'user'
}

const toCallSums = (row: CallSums): CallSums => ({
  calls: row.calls,
  failed: row.failed,
  underWay: row.underWay,
  inputTokens: row.inputTokens,
  outputTokens: row.outputTokens,
  cacheReadTokens: row.cacheReadTokens,
  cacheWriteTokens: row.cacheWriteTokens,
  reasoningTokens: row.reasoningTokens,
  costMicros: row.costMicros,
  estimated: row.estimated,
  unpriced: row.unpriced,
})

export interface ChatUsage {
  /** What the turns' own rows say, on both kinds of route. */
  turns: Sums & { turns: number }
  /** What the gateway has recorded and not yet forgotten. */
  calls: CallSums
  purposes: (CallSums & { purpose: string })[]
}

/** $1 chat. */
const sumTurns = statement(
  'gateway/usage-of-turns',
  `select count(*)::float8 as turns,
    coalesce(sum((usage->>'inputTokens')::bigint), 0)::float8 as "inputTokens",
    coalesce(sum((usage->>'outputTokens')::bigint), 0)::float8 as "outputTokens",
    coalesce(sum((usage->>'cacheReadTokens')::bigint), 0)::float8 as "cacheReadTokens",
    coalesce(sum((usage->>'cacheWriteTokens')::bigint), 0)::float8 as "cacheWriteTokens",
    coalesce(sum((usage->>'reasoningTokens')::bigint), 0)::float8 as "reasoningTokens",
    coalesce(sum(cost_micros), 0)::float8 as "costMicros",
    (count(*) filter (where (usage->>'estimated')::boolean))::float8 as estimated,
    (count(*) filter (where usage is not null and cost_micros is null))::float8 as unpriced
  from turns where chat_id = $1`,
)

const EVER = { from: new Date(0), to: new Date(Date.UTC(9999, 0)) }

/** Of one chat, without its subagents: they are chats of their own. */
export async function readChatUsage(db: Database, chatId: string): Promise<ChatUsage> {
  const [turns] = await query<ChatUsage['turns']>(db, sumTurns(chatId))
  if (turns === undefined) throw new Error('an aggregate gave no row')
  const { total, items } = await readUsage(db, {
    ...EVER,
    chatId,
    apiKeyId: null,
    userId: null,
    groupBy: 'purpose',
  })
  return { turns, calls: total, purposes: items.map(({ group, ...sums }) => ({ purpose: group, ...sums })) }
}
