import { isUniqueViolation, query, statement, type Database } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import type { CallSubject } from './authorise.ts'

export const BUDGET_SUBJECTS = ['key', 'user', 'deployment'] as const
export type BudgetSubject = (typeof BUDGET_SUBJECTS)[number]

export const BUDGET_PERIODS = ['day', 'month', 'total'] as const
export type BudgetPeriod = (typeof BUDGET_PERIODS)[number]

/** A limit of what the calls of a key, of a user, or of all may cost. Days and months are those of UTC. */
export interface BudgetView {
  id: string
  subject: BudgetSubject
  /** Of the key or the user; `null` for the deployment. */
  subjectId: string | null
  period: BudgetPeriod
  limitMicros: number
  /** Of the present period: what is settled, and what calls under way may cost at most. */
  spentMicros: number
  reservedMicros: number
}

/** `budget_exceeded`: by what is spent alone. `budget_busy`: only calls under way are in the way. */
export type BudgetVerdict = 'budget_exceeded' | 'budget_busy'

/** The first budget that a call does not fit into. */
export interface RefusingBudget {
  id: string
  subject: BudgetSubject
  period: BudgetPeriod
  /** When the present period is over, in ISO 8601; `null` for `total`. */
  endsAt: string | null
  /** The most that the call may cost. */
  worstCaseMicros: number
  /** Of the present period; `null` for callers that may not know what the deployment spends. */
  amounts: Pick<BudgetView, 'limitMicros' | 'spentMicros' | 'reservedMicros'> | null
}

export interface NewBudget {
  subject: BudgetSubject
  subjectId: string | null
  period: BudgetPeriod
  limitMicros: number
}

/** Stands for the deployment, which has no id. */
const DEPLOYMENT = '00000000-0000-0000-0000-000000000000'

/** $1 budget, or null for all. */
const readBudgets = statement(
  'gateway/budgets',
  `select b.id, b.subject, nullif(b.subject_id, '${DEPLOYMENT}') as "subjectId", b.period, b.limit_micros::float8 as "limitMicros",
    coalesce(w.spent_micros, 0)::float8 as "spentMicros", coalesce(w.reserved_micros, 0)::float8 as "reservedMicros"
  from budgets b left join budget_windows w on w.budget_id = b.id and w.start = turnmill_window_start(b.period)
  where $1::uuid is null or b.id = $1 order by b.id`,
)

/** $1 subject, $2 id. */
const subjectExists = statement(
  'gateway/budget-subject',
  `select 1 from api_keys where $1 = 'key' and id = $2 union all
    select 1 from users where $1 = 'user' and id = $2 and status <> 'deleted'`,
)

export const listBudgets = (db: Database): Promise<BudgetView[]> => query<BudgetView>(db, readBudgets(null))

/** @throws {TurnmillError} `not_found`. */
export async function readBudget(db: Database, id: string): Promise<BudgetView> {
  const [budget] = await query<BudgetView>(db, readBudgets(id))
  if (budget === undefined) throw new TurnmillError('not_found', `budget ${id} does not exist`)
  return budget
}

/** @throws {TurnmillError} `not_found` where there is no such key or user, `conflict` where it has such a budget. */
export async function createBudget(db: Database, budget: NewBudget): Promise<BudgetView> {
  const { subject, period, limitMicros } = budget
  const subjectId = await demandSubject(db, budget)
  const id = newId()
  try {
    await db.prisma.budget.create({
      data: { id, subject, subjectId, period, limitMicros: BigInt(limitMicros) },
    })
  } catch (error) {
    if (isUniqueViolation(error))
      throw new TurnmillError('conflict', `there is a budget of this ${subject} by ${period} already`)
    throw error
  }
  return readBudget(db, id)
}

async function demandSubject(db: Database, { subject, subjectId }: NewBudget): Promise<string> {
  if (subject === 'deployment') return DEPLOYMENT
  const [found] = subjectId === null ? [] : await query(db, subjectExists(subject, subjectId))
  if (subjectId === null || found === undefined)
    throw new TurnmillError('not_found', `${subject} ${subjectId ?? ''} does not exist`)
  return subjectId
}

/** What is spent and reserved stays. @throws {TurnmillError} `not_found`. */
export async function changeBudget(db: Database, id: string, limitMicros: number): Promise<BudgetView> {
  await db.prisma.budget.updateMany({ where: { id }, data: { limitMicros: BigInt(limitMicros) } })
  return readBudget(db, id)
}

/** @throws {TurnmillError} `not_found`. */
export async function deleteBudget(db: Database, id: string): Promise<void> {
  const { count } = await db.prisma.budget.deleteMany({ where: { id } })
  if (count === 0) throw new TurnmillError('not_found', `budget ${id} does not exist`)
}

/** Direct routing asks nobody before a call, so it cannot hold a budget. */
export const hasBudgets = async (db: Database): Promise<boolean> => (await db.prisma.budget.count()) > 0

const NAMES: Record<BudgetSubject, string> = {
  key: 'the API key',
  user: 'its user',
  deployment: 'the deployment',
}
const PERIOD_NAMES: Record<BudgetPeriod, string> = { day: 'daily', month: 'monthly', total: 'total' }

/** When calls under way may have ended, in ms. */
const BUSY_MS = 1000

/** Says which budget it is, what is left of it and until when; the same in its extensions. */
export function toBudgetError(
  verdict: BudgetVerdict,
  { worstCaseMicros, amounts, ...budget }: RefusingBudget,
  { provider, model }: CallSubject,
): TurnmillError {
  const { subject, period, endsAt } = budget
  const call = `a call of model ${model} of provider ${provider} may cost ${worstCaseMicros} micro-dollars`
  const name = `the ${PERIOD_NAMES[period]} budget of ${NAMES[subject]}`
  const isBusy = verdict === 'budget_busy'
  const less = isBusy ? `calls under way leave less of ${name}` : `${name} has less left`
  const left = amounts === null ? '' : ` (${leftOf(amounts, isBusy)} of ${amounts.limitMicros})`
  const end = endsAt === null ? '' : `; its period ends at ${endsAt}`
  return new TurnmillError(verdict, `${call}, and ${less}${left}${end}`, {
    retryAfterMs: isBusy ? BUSY_MS : undefined,
    extensions: { budget: { ...budget, ...amounts }, worstCaseMicros },
  })
}

/** A limit may have been lowered below what is spent. */
const leftOf = (
  { limitMicros, spentMicros, reservedMicros }: NonNullable<RefusingBudget['amounts']>,
  isBusy: boolean,
): number => Math.max(0, limitMicros - spentMicros - (isBusy ? reservedMicros : 0))
