import type { Statement, Transaction } from '../db/index.ts'
import { newId } from '../protocol/ids.ts'
import { toAdmittedTurns, type AdmittedTurn, type Pool, type PoolSlots } from './admission.ts'
import type { PendingRun } from './auxiliary.ts'
import * as sql from './effect-statements.ts'
import { cascade, lockDescendants, lockFamilyTurns, runningTurnsOf, type Descendant } from './families.ts'
import type { LockedChat } from './lock.ts'
import type { ChatMove, Effect } from './moves.ts'
import { statesThatLand } from './states.ts'

/** What is to be done once a change is committed, beside answering. */
export interface Aftermath {
  /** Turns that now have a slot and wait for their job. */
  admitted: AdmittedTurn[]
  /** Turns whose workers are to look at their rows at once. */
  stopped: string[]
  /** Further chats that changed, whose watchers are to be told. */
  changed: string[]
  /** A parent that may have waited for this. */
  parentId: string | null
  /** Auxiliary runs that wait for their job. */
  runs?: PendingRun[]
}

export interface Committed<T> extends Aftermath {
  result: T
}

/** A command that was found legal, about to be carried out under the chat's lock. */
export interface LegalCommand {
  tx: Transaction
  chat: LockedChat
  move: ChatMove
  slots: PoolSlots
  /** The statements of the effects that depend on what the command brings along. */
  own?: Partial<Record<Effect, Statement[]>>
  /** What it cascades to, locked already; all below the chat where absent. */
  descendants?: readonly Descendant[]
  /** Whether to leave the transaction open before admission, to look at rows first. @throws what ends it. */
  check?(rows: RowsOf): void
}

/** The rows that a statement gave, by its name. */
export type RowsOf = <Row extends object>(name: string) => Row[]

/** Carries a command out and commits it: one round trip, and one more where it cascades or is checked. */
export async function carryOut(command: LegalCommand): Promise<Aftermath & { rows: RowsOf }> {
  const { tx, chat, move, slots, check } = command
  const descendants = await findDescendants(command)
  const statements = [
    ...lockFamilyTurns(chat.id, descendants),
    ...move.does.flatMap((effect) => statementsOf(effect, command, descendants)),
  ]
  const admission = admissionOf(chat, descendants, slots)
  const early = check === undefined ? [] : await runAll(tx, statements)
  check?.(rowsByName(statements, early))
  const late = check === undefined ? [...statements, ...admission] : admission
  const results = [...early, ...(await tx.commitWith(late))]
  const rows = rowsByName([...statements, ...admission], results)
  return {
    rows,
    admitted: toAdmittedTurns(rows(ADMIT)),
    stopped: [...stoppedTurn(chat, move), ...runningTurnsOf(descendants)],
    changed: descendants.map(({ id }) => id),
    parentId: chat.parentId,
  }
}

const ADMIT = 'chats/admit'

const runAll = (tx: Transaction, statements: readonly Statement[]): Promise<object[][]> =>
  Promise.all(statements.map((statement) => tx.query(statement)))

const rowsByName =
  (statements: readonly Statement[], results: readonly object[][]): RowsOf =>
  <Row extends object>(name: string) =>
    statements.flatMap((statement, index) => (statement.name === name ? (results[index] as Row[]) : []))

async function findDescendants(command: LegalCommand): Promise<readonly Descendant[]> {
  const { tx, chat, move, descendants } = command
  if (descendants !== undefined) return descendants
  return chat.hasChildren && move.does.includes('cascade') ? lockDescendants(tx, chat.id) : []
}

function statementsOf(
  effect: Effect,
  { chat, own }: LegalCommand,
  descendants: readonly Descendant[],
): Statement[] {
  const given = own?.[effect]
  if (given !== undefined) return given
  switch (effect) {
    case 'close':
      return chat.status === 'failed' ? [sql.closeOpenCalls([chat.lastTurnId], ['failed'])] : []
    case 'promote':
      return [sql.promoteHead(chat.id, newId(), ['idle', 'failed'])]
    case 'stop':
      return [sql.stopRunning([chat.id])]
    case 'end':
      return [
        sql.endUnheld([chat.id], statesThatLand('interrupt', 'interrupted')),
        sql.closeOpenCalls([chat.activeTurnId], ['interrupted']),
      ]
    case 'cascade':
      return cascade(descendants)
    default:
      throw new Error(`the effect ${effect} has no statement of its own`)
  }
}

/** A worker that holds a turn looks at its row at once: it was told to stop, or it has lost it. */
const stoppedTurn = ({ status, activeTurnId }: LockedChat, { does }: ChatMove): string[] =>
  activeTurnId !== null &&
  (does.includes('stop') || ((does.includes('supersede') || does.includes('remove')) && isHeld(status)))
    ? [activeTurnId]
    : []

const isHeld = (status: LockedChat['status']): boolean => status === 'running' || status === 'interrupting'

/** Always root before subagent: two advisory locks are taken in one order by everybody. */
export function admissionOf(
  chat: Pick<LockedChat, 'userId' | 'pool'>,
  descendants: readonly Descendant[],
  slots: PoolSlots,
): Statement[] {
  const pools: Pool[] = chat.pool === 'root' && descendants.length > 0 ? ['root', 'subagent'] : [chat.pool]
  return pools.map((pool) => sql.admit(chat.userId, pool, slots[pool]))
}
