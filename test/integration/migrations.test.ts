import { cp, mkdir, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { diagnoseMigrationHistory, diffMigrationsWithSchema } from '../../scripts/schema-engine.ts'
import { findMigrationsDir, migrationChecksum } from '../../src/db/migration-files.ts'
import { migrate } from '../../src/db/migrate.ts'
import { readCatalogue } from '../support/catalogue.ts'
import type { Catalogue } from '../support/catalogue.ts'
import { createEmptyDatabase, createTestDatabase } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { makeScratch } from '../support/scratch.ts'

const SCHEMA_FILE = fileURLToPath(new URL('../../prisma/schema.prisma', import.meta.url))

/** All that the migrations make beyond prisma/schema.prisma. Whoever adds or drops one says so here. */
const EXPECTED: Catalogue = {
  check: [
    'api_keys.api_keys_secret_hash_check',
    'auxiliary_runs.auxiliary_runs_finished_check',
    'auxiliary_runs.auxiliary_runs_lease_check',
    'auxiliary_runs.auxiliary_runs_purpose_check',
    'auxiliary_runs.auxiliary_runs_state_check',
    'budget_windows.budget_windows_amounts_check',
    'budgets.budgets_limit_check',
    'budgets.budgets_period_check',
    'budgets.budgets_subject_check',
    'chats.chats_active_turn_check',
    'chats.chats_archived_check',
    'chats.chats_depth_check',
    'chats.chats_family_check',
    'chats.chats_last_error_check',
    'chats.chats_status_check',
    'chats.chats_subagent_type_check',
    'files.files_media_type_check',
    'files.files_size_check',
    'idempotency_keys.idempotency_keys_response_check',
    'interceptions.interceptions_credential_kind_check',
    'interceptions.interceptions_reserved_check',
    'mcp_servers.mcp_servers_name_check',
    'mcp_servers.mcp_servers_timeout_check',
    'messages.messages_boundary_check',
    'messages.messages_parts_check',
    'messages.messages_role_check',
    'messages.messages_step_check',
    'messages.messages_visibility_check',
    'model_configs.model_configs_compaction_threshold_check',
    'model_configs.model_configs_limits_check',
    'model_configs.model_configs_prices_check',
    'model_overrides.model_overrides_purpose_check',
    'providers.providers_name_check',
    'providers.providers_type_check',
    'queued_messages.queued_messages_parts_check',
    'queued_messages.queued_messages_state_check',
    'tool_calls.tool_calls_finished_check',
    'tool_calls.tool_calls_state_check',
    'turns.turns_awaits_check',
    'turns.turns_deadline_check',
    'turns.turns_error_check',
    'turns.turns_finished_check',
    'turns.turns_job_check',
    'turns.turns_lease_check',
    'turns.turns_number_check',
    'turns.turns_pool_check',
    'turns.turns_state_check',
    'turns.turns_trigger_check',
    'users.users_role_check',
    'users.users_status_check',
  ],
  exclusion: [],
  'expression index': [],
  function: [
    'turnmill_add_usage',
    'turnmill_admit',
    'turnmill_advance_history',
    'turnmill_advance_queue',
    'turnmill_advance_snapshot',
    'turnmill_reserve',
    'turnmill_stamp_revision',
    'turnmill_touch_chat',
    'turnmill_window_start',
    'turnmill_xid',
  ],
  'partial index': [
    'auxiliary_runs.auxiliary_runs_finished',
    'auxiliary_runs.auxiliary_runs_open',
    'files.files_uploads',
    'interceptions.interceptions_unsettled',
    'messages.messages_images',
    'messages.messages_one_result_per_step',
    'model_configs.model_configs_one_default',
    'queued_messages.queued_messages_ended',
    'queued_messages.queued_messages_images',
    'queued_messages.queued_messages_queue',
    'turns.turns_admission',
    'turns.turns_deadlines',
    'turns.turns_one_active_per_chat',
    'turns.turns_slots',
  ],
  trigger: [
    'chats.chats_advance_snapshot',
    'messages.messages_advance_history',
    'messages.messages_stamp_insert',
    'messages.messages_stamp_update',
    'messages.messages_touch_insert',
    'messages.messages_touch_update',
    'queued_messages.queued_messages_advance_insert',
    'queued_messages.queued_messages_advance_update',
    'queued_messages.queued_messages_stamp_insert',
    'queued_messages.queued_messages_stamp_update',
    'turns.turns_stamp_insert',
    'turns.turns_stamp_update',
    'turns.turns_touch_insert',
    'turns.turns_touch_update',
  ],
  view: [],
}

let database: TestDatabase
let scratch: string

beforeEach(async () => {
  database = await createEmptyDatabase()
  scratch = await makeScratch('turnmill-migrations-')
})

afterEach(async () => {
  await database.drop()
  await rm(scratch, { recursive: true, force: true })
})

async function query<Row extends pg.QueryResultRow>(sql: string, values: unknown[] = []): Promise<Row[]> {
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  try {
    return (await client.query<Row>(sql, values)).rows
  } finally {
    await client.end()
  }
}

/** Writes a migrations directory for one test: name → script. */
async function writeMigrations(scripts: Record<string, string>): Promise<string> {
  const migrationsDir = path.join(scratch, 'migrations')
  await rm(migrationsDir, { recursive: true, force: true })
  for (const [name, sql] of Object.entries(scripts)) {
    await mkdir(path.join(migrationsDir, name), { recursive: true })
    await writeFile(path.join(migrationsDir, name, 'migration.sql'), sql)
  }
  return migrationsDir
}

function comparison(migrationsDir = findMigrationsDir()): Parameters<typeof diffMigrationsWithSchema>[0] {
  return { databaseUrl: database.url, migrationsDir, schemaFile: SCHEMA_FILE }
}

const ONE = { '20260101000000_one': 'create table one (id int);\n' }
const TWO = { '20260102000000_two': 'create table two (id int);\n' }

describe('the project’s migrations', () => {
  test('lead to the schema that Prisma knows', async () => {
    expect(await diffMigrationsWithSchema(comparison())).toBe('')
  })

  test('are compared for real: a table that only a migration makes is found', async () => {
    const migrationsDir = path.join(scratch, 'migrations')
    await cp(findMigrationsDir(), migrationsDir, { recursive: true })
    await mkdir(path.join(migrationsDir, '99990101000000_stray'))
    await writeFile(
      path.join(migrationsDir, '99990101000000_stray', 'migration.sql'),
      'create table stray (id int);',
    )
    expect(await diffMigrationsWithSchema(comparison(migrationsDir))).toContain('DROP TABLE "stray"')
    expect(await query(`select to_regclass('stray') as stray`)).toEqual([{ stray: null }])
  })

  test('make exactly the listed CHECKs, partial indexes, triggers and functions', async () => {
    const migrated = await createTestDatabase()
    try {
      expect(await readCatalogue(migrated.url)).toEqual(EXPECTED)
    } finally {
      await migrated.drop()
    }
  })

  test('are recorded so that Prisma sees nothing to do', async () => {
    const { applied } = await migrate(database.url)
    expect(await diagnoseMigrationHistory(comparison())).toMatchObject({
      editedMigrationNames: [],
      failedMigrationNames: [],
      hasMigrationsTable: true,
      history: null,
    })
    const ledger = await query<{ migration_name: string }>(
      'select migration_name from _prisma_migrations order by 1',
    )
    expect(ledger.map((row) => row.migration_name)).toEqual(applied)
  })
})

describe('the runner', () => {
  test('applies what is new, in order of names, and nothing twice', async () => {
    const lines: string[] = []
    const migrationsDir = await writeMigrations({ ...TWO, ...ONE })
    const log = (line: string): number => lines.push(line)
    expect(await migrate(database.url, { migrationsDir, log })).toEqual({
      applied: ['20260101000000_one', '20260102000000_two'],
    })
    expect(await migrate(database.url, { migrationsDir, log })).toEqual({ applied: [] })
    expect(lines).toEqual(['applied migration 20260101000000_one', 'applied migration 20260102000000_two'])
  })

  test('writes rows as Prisma does', async () => {
    await migrate({ connectionString: database.url }, { migrationsDir: await writeMigrations(ONE) })
    const rows = await query('select * from _prisma_migrations')
    expect(rows).toEqual([
      {
        id: expect.stringMatching(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/),
        checksum: migrationChecksum('create table one (id int);\n'),
        finished_at: expect.any(Date),
        migration_name: '20260101000000_one',
        logs: null,
        rolled_back_at: null,
        started_at: expect.any(Date),
        applied_steps_count: 1,
      },
    ])
    const shape = await query(
      `select column_name, udt_name, character_maximum_length as length, is_nullable, column_default
         from information_schema.columns where table_name = '_prisma_migrations' order by ordinal_position`,
    )
    expect(shape).toEqual([
      { column_name: 'id', udt_name: 'varchar', length: 36, is_nullable: 'NO', column_default: null },
      { column_name: 'checksum', udt_name: 'varchar', length: 64, is_nullable: 'NO', column_default: null },
      {
        column_name: 'finished_at',
        udt_name: 'timestamptz',
        length: null,
        is_nullable: 'YES',
        column_default: null,
      },
      {
        column_name: 'migration_name',
        udt_name: 'varchar',
        length: 255,
        is_nullable: 'NO',
        column_default: null,
      },
      { column_name: 'logs', udt_name: 'text', length: null, is_nullable: 'YES', column_default: null },
      {
        column_name: 'rolled_back_at',
        udt_name: 'timestamptz',
        length: null,
        is_nullable: 'YES',
        column_default: null,
      },
      {
        column_name: 'started_at',
        udt_name: 'timestamptz',
        length: null,
        is_nullable: 'NO',
        column_default: 'now()',
      },
      {
        column_name: 'applied_steps_count',
        udt_name: 'int4',
        length: null,
        is_nullable: 'NO',
        column_default: '0',
      },
    ])
  })

  test('runs at once with itself: one applies, the other finds nothing to do (M2)', async () => {
    const migrationsDir = await writeMigrations({ ...ONE, ...TWO })
    const results = await Promise.all([1, 2, 3].map(() => migrate(database.url, { migrationsDir })))
    expect(results.map((result) => result.applied.length).sort()).toEqual([0, 0, 2])
  })

  test('gives up on a lock that another runner keeps (M2)', async () => {
    const migrationsDir = await writeMigrations(ONE)
    const other = new pg.Client({ connectionString: database.url })
    await other.connect()
    try {
      await other.query('select pg_advisory_lock(72707369)')
      await expect(migrate(database.url, { migrationsDir, lockTimeoutMs: 50 })).rejects.toThrow(
        'the migration lock was not given within 50 ms, expected another runner to finish by then',
      )
    } finally {
      await other.end()
    }
  })

  test('leaves nothing of a script that fails, and applies it once it is mended (M1)', async () => {
    const broken = 'create table two (id int);\n\ninsert into absent values (1);\n'
    const brokenDir = await writeMigrations({ ...ONE, '20260102000000_two': broken })
    await expect(migrate(database.url, { migrationsDir: brokenDir })).rejects.toMatchObject({
      name: 'MigrationError',
      message: expect.stringMatching(
        /^migration 20260102000000_two failed .* "absent" does not exist \(line 3\)$/,
      ),
    })
    expect(await query(`select to_regclass('one')::text as one, to_regclass('two')::text as two`)).toEqual([
      { one: 'one', two: null },
    ])
    expect(await query('select migration_name from _prisma_migrations')).toHaveLength(1)
    const migrationsDir = await writeMigrations({ ...ONE, ...TWO })
    expect(await migrate(database.url, { migrationsDir })).toEqual({ applied: ['20260102000000_two'] })
  })

  test('refuses a migration that was edited after it was applied (M3)', async () => {
    await migrate(database.url, { migrationsDir: await writeMigrations(ONE) })
    const edited = 'create table one (id bigint);\n'
    const migrationsDir = await writeMigrations({ '20260101000000_one': edited, ...TWO })
    await expect(migrate(database.url, { migrationsDir })).rejects.toThrow(
      `migration 20260101000000_one has checksum ${migrationChecksum(edited)} on disk, ` +
        `expected ${migrationChecksum(ONE['20260101000000_one'])} as applied`,
    )
    expect(await query(`select to_regclass('two') as two`)).toEqual([{ two: null }])
  })

  test('takes a checkout with other line endings for the same migration', async () => {
    await migrate(database.url, { migrationsDir: await writeMigrations(ONE) })
    const migrationsDir = await writeMigrations({ '20260101000000_one': 'create table one (id int);\r\n' })
    expect(await migrate(database.url, { migrationsDir })).toEqual({ applied: [] })
  })

  test('refuses a ledger with a migration that never finished, until it is marked as rolled back (M3)', async () => {
    await migrate(database.url, { migrationsDir: await writeMigrations(ONE) })
    await query(
      `insert into _prisma_migrations (id, checksum, migration_name) values ('x', 'y', '20260102000000_two')`,
    )
    const migrationsDir = await writeMigrations({ ...ONE, ...TWO })
    await expect(migrate(database.url, { migrationsDir })).rejects.toThrow(
      /^migration 20260102000000_two is recorded as started at \S+Z and never finished, expected it to be finished/,
    )
    await query(`update _prisma_migrations set rolled_back_at = now() where id = 'x'`)
    expect(await migrate(database.url, { migrationsDir })).toEqual({ applied: ['20260102000000_two'] })
  })

  test('refuses a migration that is applied and gone from disk (M3)', async () => {
    await migrate(database.url, { migrationsDir: await writeMigrations(ONE) })
    await expect(migrate(database.url, { migrationsDir: await writeMigrations(TWO) })).rejects.toThrow(
      'migration 20260101000000_one is applied but not on disk, ' +
        'expected only migrations later than 20260102000000_two to be unknown',
    )
  })

  test('lets the next version’s migrations be', async () => {
    await migrate(database.url, { migrationsDir: await writeMigrations({ ...ONE, ...TWO }) })
    expect(await migrate(database.url, { migrationsDir: await writeMigrations(ONE) })).toEqual({
      applied: [],
    })
  })
})
