/** Every change of a turn's state or epoch, written by a trigger in the storm's own database: by whom, and when. */
import type pg from 'pg'
import type { TurnState } from '../../src/protocol/views.ts'

export interface TurnChange {
  turnId: string
  chatId: string
  epoch: number
  /** `null` where the turn was made. */
  from: TurnState | null
  to: TurnState
  /** The process that wrote it. */
  by: string
  /** Ms since 1970, by the database's clock, which is ours. */
  at: number
  /** Given back until a later time. */
  delayed: boolean
}

const INSTALL = `
  create schema storm;
  create table storm.turn_changes (
    id bigserial primary key, turn_id uuid not null, chat_id uuid not null, epoch int not null, was text, state text not null,
    process text not null, at timestamptz not null, delayed boolean not null);
  create function storm.log_turn() returns trigger language plpgsql as $$
  begin
    insert into storm.turn_changes (turn_id, chat_id, epoch, was, state, process, at, delayed)
    values (new.id, new.chat_id, new.epoch, case when tg_op = 'UPDATE' then old.state end, new.state,
      current_setting('application_name'), clock_timestamp(), coalesce(new.not_before > clock_timestamp(), false));
    return null;
  end $$;
  create trigger storm_made after insert on turns for each row execute function storm.log_turn();
  create trigger storm_changed after update on turns for each row
    when (old.state is distinct from new.state or old.epoch is distinct from new.epoch) execute function storm.log_turn();`

export const installTurnLog = (pool: pg.Pool): Promise<unknown> => pool.query(INSTALL)

/** Per turn, in the order in which it happened. */
export async function readTurnLog(pool: pg.Pool): Promise<Map<string, TurnChange[]>> {
  const { rows } = await pool.query<TurnChange>(
    `select turn_id as "turnId", chat_id as "chatId", epoch, was as "from", state as "to", process as "by",
       (extract(epoch from at) * 1000)::float8 as at, delayed
     from storm.turn_changes order by id`,
  )
  return Map.groupBy(rows, ({ turnId }) => turnId)
}
