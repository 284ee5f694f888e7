import { query, statement, withTransaction, type Database } from '../db/index.ts'
import { toAdmittedTurns, type AdmittedTurn, type Pool, type PoolSlots } from './admission.ts'
import { lockChatOf } from './commit-statements.ts'
import { admit } from './effect-statements.ts'
import { statesBefore } from './states.ts'
import type { ClaimRequest } from './work.ts'

/** $1 turn. */
const placeOfTurn = statement('reopen/place', 'select chat_id, user_id, pool from turns where id = $1')

// Only the job that is on the row, and only a delivery that was asked for anew: a duplicate has made no attempt.
/** $1 turn, $2 states, $3 job, $4 attempts made, $5 whether the payload is to be compared, $6 its key, $7 its chat. */
const reopenTurn = statement(
  'reopen/turn',
  `with turn as (
    update turns t set state = 'pending', error = null, finished_at = null, admitted_at = null, not_before = null,
      takeovers = 0, job_attempts = $4
    from chats c
    where t.id = $1 and t.state = any($2) and t.job_id = $3 and t.job_attempts < $4
      and (not $5 or t.api_key_id is null or (t.api_key_id = $6 and t.chat_id = $7))
      and c.id = t.chat_id and c.last_turn_id = t.id and c.status = 'failed' and c.archived_at is null
    returning t.id, t.chat_id)
  update chats c set status = 'pending', active_turn_id = turn.id, last_error = null
  from turn where c.id = turn.chat_id returning turn.id as turn_id`,
)

interface Place {
  chat_id: string
  user_id: string
  pool: Pool
}

export interface Reopened {
  chatId: string
  admitted: AdmittedTurn[]
}

/**
 * Runs the very turn that failed once more, under its own key, at an operator's retry of its job.
 *
 * @returns `null` where the chat is no longer as the turn left it, or the delivery is no such retry.
 */
export async function reopenFailedTurn(
  db: Database,
  slots: PoolSlots,
  { turnId, jobId, attemptsMade, compare }: ClaimRequest,
): Promise<Reopened | null> {
  const [place] = await query<Place>(db, placeOfTurn(turnId))
  if (place === undefined) return null
  return withTransaction(db, async (tx) => {
    const [, reopened = [], admitted = []] = await tx.commitWith([
      lockChatOf(place.chat_id),
      reopenTurn(
        turnId, statesBefore('reopen'), jobId, attemptsMade, compare !== null, compare?.apiKeyId, compare?.chatId,
      ), // prettier-ignore
      admit(place.user_id, place.pool, slots[place.pool]),
    ])
    return reopened.length === 0 ? null : { chatId: place.chat_id, admitted: toAdmittedTurns(admitted) }
  })
}
