import { query, statement, type Database } from '../db/index.ts'

/** $1 name. */
const enabledByName = statement(
  'models/find',
  `select id from model_configs where enabled and (lower(display_name) = lower($1) or model = $1 or id::text = $1)
  order by is_default desc, id limit 1`,
)

/** The enabled model config of a display name, a model's name or an ID; `null` where there is none. */
export async function findModelConfig(db: Database, name: string): Promise<string | null> {
  const [row] = await query<{ id: string }>(db, enabledByName(name))
  return row?.id ?? null
}
