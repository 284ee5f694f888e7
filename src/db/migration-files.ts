/** The migrations on disk: `<directory>/<YYYYMMDDHHMMSS>_<name>/migration.sql`, as Prisma lays them out. */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

export interface MigrationFile {
  /** Name of its directory; the order of names is the order of application. */
  name: string
  sql: string
}

/**
 * The project's own `prisma/migrations`, seen from `src/db/` in a checkout and from `dist/src/db/` in a build.
 *
 * @throws {Error} when neither is there.
 */
export function findMigrationsDir(): string {
  const places = ['../../prisma/migrations', '../../../prisma/migrations'].map((relative) =>
    fileURLToPath(new URL(relative, import.meta.url)),
  )
  const found = places.find((place) => existsSync(place))
  if (found === undefined) throw new Error(`no migrations directory, expected ${places.join(' or ')}`)
  return found
}

/** All migrations of a directory in order of application. Other files, such as `migration_lock.toml`, are passed over. */
export async function readMigrationFiles(migrationsDir: string): Promise<MigrationFile[]> {
  const entries = await readdir(migrationsDir, { withFileTypes: true })
  const names = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name)
  return Promise.all(
    names.sort().map(async (name) => ({
      name,
      sql: await readFile(path.join(migrationsDir, name, 'migration.sql'), 'utf8'),
    })),
  )
}

/**
 * Checksum of a migration as Prisma writes it: SHA-256 of the file's text, in lower-case hexadecimal.
 * Source: schema-engine/connectors/schema-connector/src/checksum.rs of prisma-engines.
 */
export function migrationChecksum(sql: string): string {
  return createHash('sha256').update(sql).digest('hex')
}

/** True if `checksum` is that of `sql` with either kind of line ending, which a checkout may have changed. */
export function matchesChecksum(sql: string, checksum: string): boolean {
  const unix = sql.replaceAll('\r\n', '\n')
  return [sql, unix, unix.replaceAll('\n', '\r\n')].some((text) => migrationChecksum(text) === checksum)
}
