import { statement, type Statement, type Transaction } from '../db/index.ts'
import type { ChatStatus } from '../protocol/views.ts'
import { closeOpenCalls, endUnheld, stopRunning, supersedeQueues } from './effect-statements.ts'
import { statesThatLand } from './states.ts'

/** A chat below another one, its row lock held by this transaction. */
export interface Descendant {
  id: string
  status: ChatStatus
  activeTurnId: string | null
}

interface DescendantRow {
  id: string
  status: ChatStatus
  active_turn_id: string | null
}

/** $1 parents, $2 the turns that spawned them, or null for any. */
const lockChildren = statement(
  'families/lock-children',
  `select id, status, active_turn_id from chats
  where parent_id = any($1) and ($2::uuid[] is null or spawned_by_turn_id = any($2)) order by id for no key update`,
)

/**
 * Locks all chats below one that is locked already: from ancestor to descendant, then by id, so that two families'
 * transactions cannot wait for each other in a circle. Whoever holds a chat's lock alone adds children to it.
 *
 * @param spawnedBy only children that these turns spawned, with all below them.
 */
export async function lockDescendants(
  tx: Transaction,
  chatId: string,
  spawnedBy: readonly string[] | null = null,
): Promise<Descendant[]> {
  const found: Descendant[] = []
  let parents = [chatId]
  let turns = spawnedBy
  while (parents.length > 0) {
    const rows = await tx.query<DescendantRow>(lockChildren(parents, turns))
    found.push(...rows.map((row) => ({ id: row.id, status: row.status, activeTurnId: row.active_turn_id })))
    parents = rows.map((row) => row.id)
    turns = null
  }
  return found
}

/** Those of the descendants whose worker is to be told to stop. */
export const runningTurnsOf = (descendants: readonly Descendant[]): string[] =>
  descendants.flatMap(({ status, activeTurnId }) =>
    status === 'running' && activeTurnId !== null ? [activeTurnId] : [],
  )

/** The rows of active turns in the order of their ids, as renewals take them. $1 chats. */
const lockTurns = statement(
  'families/lock-turns',
  `select 1 from turns
  where chat_id = any($1) and state in ('pending', 'running', 'interrupting', 'requires_action', 'waiting')
  order by id for no key update`,
)

/** What comes before everything that a cascade does: several turns change, so all are locked first. */
export const lockFamilyTurns = (chatId: string, descendants: readonly Descendant[]): Statement[] =>
  descendants.length === 0 ? [] : [lockTurns([chatId, ...descendants.map(({ id }) => id)])]

/** Interrupts descendants and supersedes their queues. */
export function cascade(descendants: readonly Descendant[]): Statement[] {
  if (descendants.length === 0) return []
  const ids = descendants.map(({ id }) => id)
  const turns = descendants.flatMap(({ activeTurnId }) => (activeTurnId === null ? [] : [activeTurnId]))
  return [
    supersedeQueues(ids),
    stopRunning(ids),
    endUnheld(ids, statesThatLand('interrupt', 'interrupted')),
    closeOpenCalls(turns, ['interrupted']),
  ]
}
