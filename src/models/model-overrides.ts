import { query, statement, type Database } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import { COMPUTER_PROVIDER_TYPES, type ProviderType, type Purpose } from '../protocol/routes.ts'
import { demandModelConfig } from './model-configs.ts'

/** Which model serves a purpose: a user's goes before the deployment's, and both before a chat's own. */
export interface ModelOverrideView {
  purpose: Purpose
  modelConfigId: string
  createdAt: string
}

/** Whose override: a user's, or the deployment's. */
export type OverrideOwner = string | null

interface OverrideRow {
  purpose: Purpose
  modelConfigId: string
  createdAt: Date
}

const COLUMNS = 'purpose, model_config_id as "modelConfigId", created_at as "createdAt"'

/** $1 user, or null for the deployment. */
const overridesOf = statement(
  'models/overrides',
  `select ${COLUMNS} from model_overrides where user_id is not distinct from $1::uuid order by purpose`,
)

/** $1 id, $2 purpose, $3 user, or null for the deployment, $4 model config. */
const setOverride = statement(
  'models/set-override',
  `insert into model_overrides (id, purpose, user_id, model_config_id) values ($1, $2, $3, $4)
  on conflict (purpose, user_id) do update set model_config_id = excluded.model_config_id, created_at = now()
  returning ${COLUMNS}`,
)

/** $1 purpose, $2 user, or null for the deployment. */
const removeOverride = statement(
  'models/remove-override',
  'delete from model_overrides where purpose = $1 and user_id is not distinct from $2::uuid returning id',
)

const toView = ({ purpose, modelConfigId, createdAt }: OverrideRow): ModelOverrideView => ({
  purpose,
  modelConfigId,
  createdAt: createdAt.toISOString(),
})

/** By purpose. */
export const listModelOverrides = async (db: Database, owner: OverrideOwner): Promise<ModelOverrideView[]> =>
  (await query<OverrideRow>(db, overridesOf(owner))).map(toView)

/** $1 model config. */
const typeOf = statement(
  'models/override-type',
  'select p.type from model_configs m join providers p on p.id = m.provider_id where m.id = $1',
)

/** Computer use asks by provider type: another model would never be asked, and nobody would be told. */
async function demandComputerUse(db: Database, modelConfigId: string): Promise<void> {
  const [provider] = await query<{ type: ProviderType }>(db, typeOf(modelConfigId))
  if (provider !== undefined && COMPUTER_PROVIDER_TYPES.includes(provider.type)) return
  const found = provider === undefined ? 'has no provider' : `is of type ${provider.type}`
  throw new TurnmillError(
    'invalid_request',
    `modelConfigId: computer_use needs a model of a provider of type ${COMPUTER_PROVIDER_TYPES.join(' or ')}, and model config ${modelConfigId} ${found}`,
  )
}

/**
 * Sets it in place of an earlier one.
 *
 * @throws {TurnmillError} `invalid_request` where the model cannot be used, or not for this purpose.
 */
export async function putModelOverride(
  db: Database,
  owner: OverrideOwner,
  purpose: Purpose,
  modelConfigId: string,
): Promise<ModelOverrideView> {
  await demandModelConfig(db, modelConfigId)
  if (purpose === 'computer_use') await demandComputerUse(db, modelConfigId)
  const [row] = await query<OverrideRow>(db, setOverride(newId(), purpose, owner, modelConfigId))
  if (row === undefined) throw new Error('an upsert gave no row')
  return toView(row)
}

/** @throws {TurnmillError} `not_found` where there is none. */
export async function deleteModelOverride(
  db: Database,
  owner: OverrideOwner,
  purpose: Purpose,
): Promise<void> {
  const [removed] = await query(db, removeOverride(purpose, owner))
  if (removed === undefined) throw new TurnmillError('not_found', `there is no override for ${purpose}`)
}
