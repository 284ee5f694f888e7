import type { Config } from '../config/index.ts'
import { errorCode, openDatabase, query, statement, toStartError } from '../db/index.ts'
import type { Sealed } from './secrets.ts'

const findSealed = statement(
  'development/sealed',
  `select exists (select from api_keys) as "apiKeys",
    exists (select from provider_keys) or exists (select from user_provider_keys) as credentials`,
)

/** SQLSTATE of a table that is not there: nothing was migrated yet. */
const UNDEFINED_TABLE = '42P01'

/** Looks into a database that may be empty, before anything of it is opened. */
export async function readSealed(config: Config, url: string): Promise<Sealed> {
  const db = openDatabase({
    url,
    poolSize: 1,
    connectTimeoutMs: config.databaseConnectTimeoutMs,
    silenceMs: config.databaseSilenceMs,
    applicationName: 'turnmill start',
  })
  try {
    const [sealed] = await query<Sealed>(db, findSealed())
    return sealed ?? { apiKeys: false, credentials: false }
  } catch (error) {
    if (errorCode(error) === UNDEFINED_TABLE) return { apiKeys: false, credentials: false }
    throw toStartError(error)
  } finally {
    await db.close()
  }
}
