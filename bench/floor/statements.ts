/** The floor's six prepared statements, and the tables they need. */

export const SCHEMA = `
create table keys (id uuid primary key, user_id uuid not null, token text not null unique);
create table providers (id int primary key, base_url text not null, credential text not null, model text not null);
create table chats (id uuid primary key, user_id uuid not null, created_at timestamptz not null default now());
create table turns (
  id uuid primary key, chat_id uuid not null references chats, key_id uuid not null references keys,
  state text not null default 'pending', created_at timestamptz not null default now(), finished_at timestamptz);
create table messages (
  id bigserial primary key, chat_id uuid not null references chats, turn_id uuid not null, role text not null,
  parts jsonb not null, created_at timestamptz not null default now());
create index on turns (chat_id);
create index on messages (chat_id, id);`

const statement =
  (name: string, text: string) =>
  (...values: unknown[]) => ({ name, text, values })

/** $1 token. */
export const findKey = statement('key', 'select id, user_id from keys where token = $1')

/** $1 chat, $2 user, $3 turn, $4 key, $5 parts. */
export const insertTurn = statement(
  'insert',
  `with chat as (insert into chats (id, user_id) values ($1, $2)),
  turn as (insert into turns (id, chat_id, key_id) values ($3, $1, $4))
  insert into messages (chat_id, turn_id, role, parts) values ($1, $3, 'user', $5) returning id`,
)

/** $1 turn. */
export const claimTurn = statement(
  'claim',
  `update turns set state = 'running' where id = $1 and state = 'pending' returning chat_id`,
)

/** $1 chat. */
export const readHistory = statement(
  'history',
  'select role, parts from messages where chat_id = $1 order by id',
)

export const readProvider = statement('provider', 'select base_url, credential, model from providers limit 1')

/** $1 turn, $2 parts. */
export const finishTurn = statement(
  'finish',
  `with turn as (
    update turns set state = 'completed', finished_at = clock_timestamp() where id = $1 returning chat_id)
  insert into messages (chat_id, turn_id, role, parts) select chat_id, $1, 'assistant', $2 from turn`,
)
