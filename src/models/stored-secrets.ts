import { query, statement, type Database, type Statement } from '../db/index.ts'
import type { Secret } from '../protocol/secret.ts'
import type { CipherPlace, Encryption } from './encryption.ts'

/** The tables that hold secrets for long. */
const TABLES = ['provider_keys', 'user_provider_keys', 'mcp_servers', 'mcp_user_headers'] as const

/** A stored ciphertext, and where it belongs. */
interface StoredSecret {
  table: (typeof TABLES)[number]
  id: string
  encrypted: string
}

const placeOf = ({ table, id }: StoredSecret): CipherPlace =>
  table === 'mcp_servers'
    ? { table, column: 'headers', rowId: id }
    : { table, column: 'encrypted', rowId: id }

/** One secret of each encryption key that is in use. */
const samples = statement(
  'models/secret-samples',
  `select distinct on (split_part(encrypted, '.', 1)) "table", id, encrypted
  from (select 'provider_keys' as "table", id, encrypted from provider_keys
    union all select 'user_provider_keys', id, encrypted from user_provider_keys
    union all select 'mcp_servers', id, headers from mcp_servers where headers is not null
    union all select 'mcp_user_headers', id, encrypted from mcp_user_headers) stored
  order by split_part(encrypted, '.', 1), id`,
)

/**
 * Refuses keys that do not fit what is stored: a process with the wrong ones would fail turn by turn.
 *
 * @throws {Error} naming the key that is missing or wrong, never a value.
 */
export async function demandEncryptionKeys(db: Database, encryption: Encryption): Promise<void> {
  for (const stored of await query<StoredSecret>(db, samples())) decryptStored(encryption, stored)
}

/** For those who run Turnmill. @throws {Error} naming the row and the key. */
function decryptStored(encryption: Encryption, stored: StoredSecret): Secret {
  try {
    return encryption.decrypt(placeOf(stored), stored.encrypted)
  } catch (error) {
    const keyId = stored.encrypted.split('.')[0] ?? ''
    throw new Error(
      `TURNMILL_ENCRYPTION_KEYS does not fit the database: ${stored.table} ${stored.id} was encrypted with key ${JSON.stringify(keyId)}, which is missing or has another value`,
      { cause: error },
    )
  }
}

const ROWS = 100

/** $1 the present key's id, $2 the last row's id, $3 rows at most. */
const outdated = {
  provider_keys: statement(
    'models/outdated-provider-keys',
    `select 'provider_keys' as "table", id, encrypted from provider_keys
    where split_part(encrypted, '.', 1) <> $1 and id > $2 order by id limit $3`,
  ),
  user_provider_keys: statement(
    'models/outdated-user-keys',
    `select 'user_provider_keys' as "table", id, encrypted from user_provider_keys
    where split_part(encrypted, '.', 1) <> $1 and id > $2 order by id limit $3`,
  ),
  mcp_servers: statement(
    'models/outdated-mcp-servers',
    `select 'mcp_servers' as "table", id, headers as encrypted from mcp_servers
    where split_part(headers, '.', 1) <> $1 and id > $2 order by id limit $3`,
  ),
  mcp_user_headers: statement(
    'models/outdated-mcp-headers',
    `select 'mcp_user_headers' as "table", id, encrypted from mcp_user_headers
    where split_part(encrypted, '.', 1) <> $1 and id > $2 order by id limit $3`,
  ),
}

/** $1 row, $2 its ciphertext as it was read, $3 the new one. Whoever changed it meanwhile has the last word. */
const replace = {
  provider_keys: statement(
    'models/rotate-provider-key',
    'update provider_keys set encrypted = $3 where id = $1 and encrypted = $2',
  ),
  user_provider_keys: statement(
    'models/rotate-user-key',
    'update user_provider_keys set encrypted = $3 where id = $1 and encrypted = $2',
  ),
  mcp_servers: statement(
    'models/rotate-mcp-server',
    'update mcp_servers set headers = $3 where id = $1 and headers = $2',
  ),
  mcp_user_headers: statement(
    'models/rotate-mcp-headers',
    'update mcp_user_headers set encrypted = $3 where id = $1 and encrypted = $2',
  ),
} satisfies Record<StoredSecret['table'], (...values: unknown[]) => Statement>

const NIL = '00000000-0000-0000-0000-000000000000'

/**
 * Encrypts everything anew that is not under the present key, row by row: it can be stopped and run again at any time.
 *
 * @param onProgress called after each page with the number of rows so far.
 * @returns how many rows were encrypted anew.
 * @throws {Error} naming the row and the key that is missing or wrong, never a value.
 */
export async function rotateSecrets(
  db: Database,
  encryption: Encryption,
  onProgress: (rows: number) => void,
): Promise<number> {
  let rotated = 0
  for (const table of TABLES)
    for (let after = NIL; ;) {
      const rows = await query<StoredSecret>(db, outdated[table](encryption.currentKeyId, after, ROWS))
      for (const row of rows) {
        const anew = encryption.encrypt(placeOf(row), decryptStored(encryption, row))
        await query(db, replace[table](row.id, row.encrypted, anew))
      }
      rotated += rows.length
      if (rows.length > 0) onProgress(rotated)
      const last = rows.at(-1)
      if (last === undefined) break
      after = last.id
    }
  return rotated
}
