import { query, statement, type Database, type Statement, type Transaction } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'

/** A request that may be sent again: the caller's key, the name it gave the request, and what it asked for. */
export interface KeyedRequest {
  apiKeyId: string
  key: string
  /** SHA-256. */
  requestHash: Buffer
}

/** What the request was answered. */
export interface KeptAnswer {
  status: number
  /** Encrypted: it may hold a secret that is shown once. */
  response: string
}

/** Waits for a twin's transaction. No row: the twin has committed. $1 API key, $2 key, $3 hash. */
const reserveKey = statement(
  'idempotency/reserve',
  `insert into idempotency_keys (api_key_id, key, request_hash) values ($1, $2, $3) on conflict do nothing returning key`,
)

/** $1 API key, $2 key. */
const readKey = statement(
  'idempotency/read',
  'select request_hash, status, response from idempotency_keys where api_key_id = $1 and key = $2',
)

/** $1 API key, $2 key, $3 status, $4 encrypted response. */
const keepAnswer = statement(
  'idempotency/keep',
  'update idempotency_keys set status = $3, response = $4 where api_key_id = $1 and key = $2',
)

/** $1 rows at most. The subquery makes the time one value, so that the index finds the rows. */
const pruneKeys = statement(
  'idempotency/prune',
  `delete from idempotency_keys where (api_key_id, key) in (
    select api_key_id, key from idempotency_keys
    where created_at < (select clock_timestamp() - interval '24 hours') order by created_at limit $1)`,
)

interface KeyRow {
  request_hash: Buffer
  status: number
  response: string
}

/**
 * Takes the key for a request, in the transaction of its effect: whoever comes with the same key meanwhile waits here
 * until that has committed, or takes the key where it was rolled back. One round trip.
 *
 * @returns what the request was answered before; `null` where it is to be carried out now.
 * @throws {TurnmillError} `idempotency_key_reused` where the key stands for another request.
 */
export async function reserveIdempotencyKey(
  tx: Transaction,
  { apiKeyId, key, requestHash }: KeyedRequest,
): Promise<KeptAnswer | null> {
  for (;;) {
    const [[reserved], [found]] = await Promise.all([
      tx.query(reserveKey(apiKeyId, key, requestHash)),
      tx.query<KeyRow>(readKey(apiKeyId, key)),
    ])
    if (reserved !== undefined) return null
    // Pruned between the two statements: the key is free again.
    if (found === undefined) continue
    if (!found.request_hash.equals(requestHash)) throw reused(key)
    return { status: found.status, response: found.response }
  }
}

const reused = (key: string): TurnmillError =>
  new TurnmillError(
    'idempotency_key_reused',
    `Idempotency-Key ${JSON.stringify(key)} was sent with another method, path or body before`,
  )

/** Keeps the answer, as the last statement of the transaction. */
export const keepIdempotentAnswer = (
  { apiKeyId, key }: KeyedRequest,
  { status, response }: KeptAnswer,
): Statement => keepAnswer(apiKeyId, key, status, response)

/** Retention: forgets keys after 24 hours, `limit` at most. */
export const pruneIdempotencyKeys = async (db: Database, limit: number): Promise<void> => {
  await query(db, pruneKeys(limit))
}
