import { statement } from '../db/index.ts'

/** The statements on queued messages. Each runs under the chat's row lock. No row: it is not (or no longer) queued. */

/** $1 chat, $2 queued message, $3 parts, $4 the editor's key, $5 the editor. */
export const editQueued = statement(
  'queue/edit',
  `update queued_messages set parts = $3, api_key_id = $4, created_by = $5, updated_at = clock_timestamp()
  where chat_id = $1 and id = $2 and state = 'queued' returning to_jsonb(queued_messages) as queued`,
)

/** Puts one at a place and counts the others around it. $1 chat, $2 queued message, $3 place, 0 for the head. */
export const moveQueued = statement(
  'queue/move',
  `with waiting as (
    select id, row_number() over (order by position, id) - 1 as place
    from queued_messages where chat_id = $1 and state = 'queued' and id <> $2),
  placed as (
    select id, place + case when place >= $3 then 1 else 0 end as position from waiting
    union all select $2::bigint, least($3, (select count(*) from waiting))),
  moved as (
    update queued_messages q set position = placed.position, updated_at = clock_timestamp()
    from placed where q.id = placed.id and q.chat_id = $1 and q.state = 'queued' returning q.*)
  select to_jsonb(moved) as queued from moved where id = $2`,
)

/** $1 chat, $2 queued message. */
export const deleteQueued = statement(
  'queue/delete',
  `update queued_messages set state = 'deleted', updated_at = clock_timestamp()
  where chat_id = $1 and id = $2 and state = 'queued' returning id`,
)

/** $1 chat, $2 queued message. */
export const readQueued = statement(
  'queue/read',
  `select to_jsonb(q) as queued from queued_messages q where chat_id = $1 and id = $2 and state = 'queued'`,
)
