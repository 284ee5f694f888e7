import { statement, withTransaction, type Transaction } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { isUuid } from '../protocol/ids.ts'
import type { MessagePart } from '../protocol/messages.ts'
import { toAdmittedTurns } from './admission.ts'
import { lockChatOf } from './commit-statements.ts'
import { fenced, type HeldTurn } from './commit.ts'
import { admissionOf, type Committed } from './effects.ts'
import { cascade, lockDescendants, lockFamilyTurns, runningTurnsOf } from './families.ts'
import { lockOwnChat } from './lock.ts'
import { decideMove } from './moves.ts'
import { sendWithin, type ProducerLimits, type Sent } from './produce.ts'
import { statesBefore } from './states.ts'
import type { Claim } from './work.ts'

/** What a turn does to subagents that are there: only while it is held, which its chat's lock keeps true. */

/**
 * Sends a subagent a message under the key of its parent's turn, and for the model that it was explicitly spawned with.
 *
 * @throws {TurnmillError} `turn_fenced`; `missing_key` where the key has been deleted; `not_found` where it is no child of the
 * turn's chat; what a send is refused with.
 */
export const messageSubagent = (
  { db, claim }: HeldTurn,
  limits: ProducerLimits,
  childId: string,
  parts: MessagePart[],
): Promise<Committed<Sent>> =>
  withTransaction(db, async (tx) => {
    const { model_config_id: modelConfigId, api_key_id: apiKeyId } = await lockParentOf(tx, claim, childId)
    const { userId, turnId } = claim
    if (apiKeyId === null)
      throw new TurnmillError('missing_key', `the key of turn ${turnId} has been deleted`)
    const message = { chatId: childId, parts, modelConfigId, reasoningEffort: null }
    return sendWithin(tx, limits, { userId, apiKeyId }, { ...message, whenBusy: 'queue' })
  })

/**
 * Stops a subagent with all below it: what is queued for them does not run either.
 *
 * @throws {TurnmillError} `turn_fenced`; `not_found` where it is no child of the turn's chat; `chat_archived`.
 */
export const interruptSubagent = (
  { db, slots, claim }: HeldTurn,
  childId: string,
): Promise<Committed<null>> =>
  withTransaction(db, async (tx) => {
    await lockParentOf(tx, claim, childId)
    const chat = await lockOwnChat(tx, childId, claim.userId)
    decideMove('interrupt', chat)
    const below = chat.hasChildren ? await lockDescendants(tx, childId) : []
    const family = [chat, ...below]
    const admission = admissionOf(chat, below, slots)
    const results = await tx.commitWith([
      ...lockFamilyTurns(childId, below),
      ...cascade(family),
      ...admission,
    ])
    return {
      result: null,
      admitted: results.slice(-admission.length).flatMap(toAdmittedTurns),
      stopped: runningTurnsOf(family),
      changed: below.map(({ id }) => id),
      parentId: chat.parentId,
    }
  })

/** Under the parent's lock. $1 parent's turn, $2 epoch, $3 states, $4 child. No row: fenced. */
const heldParentOf = statement(
  'subagents/held-parent',
  `select c.id as child_id, t.api_key_id, (select model_config_id from turns where chat_id = c.id and number = 1) as model_config_id
  from turns t left join chats c on c.id = $4 and c.parent_id = t.chat_id
  where t.id = $1 and t.epoch = $2 and t.state = any($3)`,
)

interface HeldParentRow {
  child_id: string | null
  /** The parent's. */
  api_key_id: string | null
  /** Which the child was explicitly spawned with. */
  model_config_id: string | null
}

/** Locks the parent before its child, as all that lock families do. One round trip. */
async function lockParentOf(
  tx: Transaction,
  { turnId, epoch, chatId }: Claim,
  childId: string,
): Promise<HeldParentRow> {
  const known = isUuid(childId) ? childId : null
  const [, [found]] = await Promise.all([
    tx.query(lockChatOf(chatId)),
    tx.query<HeldParentRow>(heldParentOf(turnId, epoch, statesBefore('steer'), known)),
  ])
  if (found === undefined) throw fenced({ turnId, epoch }, 'steer')
  if (found.child_id === null)
    throw new TurnmillError('not_found', `there is no agent ${JSON.stringify(childId)} of this chat`)
  return found
}
