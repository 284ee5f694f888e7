/**
 * Prisma's schema engine as WebAssembly, for development: it compares the migrations with the schema.
 *
 * The engine needs a database server, on which it makes and drops a shadow database; it changes no database that exists.
 */
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { PrismaPg } from '@prisma/adapter-pg'
import { bindMigrationAwareSqlAdapterFactory, ColumnTypeEnum } from '@prisma/driver-adapter-utils'
import type { SqlDriverAdapter, SqlMigrationAwareDriverAdapterFactory } from '@prisma/driver-adapter-utils'
import * as engineBindings from '@prisma/schema-engine-wasm/schema_engine_bg'
import type { MigrationList, SchemaEngine } from '@prisma/schema-engine-wasm/schema_engine_bg'
import pg from 'pg'
import { readMigrationFiles } from '../src/db/migration-files.ts'

/** What the engine compares, and the server on which it does. */
export interface SchemaComparison {
  /** Connection URL; its role may create databases. */
  databaseUrl: string
  migrationsDir: string
  schemaFile: string
}

/** How a database's ledger stands to the migrations on disk, in the engine's own judgement. */
export type HistoryDiagnosis = Awaited<ReturnType<SchemaEngine['diagnoseMigrationHistory']>>

const NO_FILTERS = { externalTables: [], externalEnums: [] }
const EMPTY_DIFF = '-- This is an empty migration.'

/** The SQL that leads from the migrations to the schema; empty when they agree. CHECKs, triggers and the like it does not see. */
export async function diffMigrationsWithSchema(comparison: SchemaComparison): Promise<string> {
  return withSchemaEngine(comparison, async (engine, migrations, schema) => {
    const { stdout } = await engine.diff({
      from: { tag: 'migrations', ...migrations },
      to: { tag: 'schemaDatamodel', files: [schema] },
      script: true,
      exitCode: null,
      filters: NO_FILTERS,
    })
    const script = stdout?.trim() ?? ''
    return script === EMPTY_DIFF ? '' : script
  })
}

/** What `prisma migrate status` would say of the database. */
export async function diagnoseMigrationHistory(comparison: SchemaComparison): Promise<HistoryDiagnosis> {
  return withSchemaEngine(comparison, (engine, migrationsList) =>
    engine.diagnoseMigrationHistory({ migrationsList, optInToShadowDatabase: false, filters: NO_FILTERS }),
  )
}

type EngineTask<Result> = (
  engine: SchemaEngine,
  migrations: MigrationList,
  schema: { path: string; content: string },
) => Promise<Result>

async function withSchemaEngine<Result>(
  { databaseUrl, migrationsDir, schemaFile }: SchemaComparison,
  task: EngineTask<Result>,
): Promise<Result> {
  await (engineLoaded ??= loadEngine())
  const schema = { path: 'schema.prisma', content: await readFile(schemaFile, 'utf8') }
  const adapters = createAdapterFactory(databaseUrl)
  const engine = await engineBindings.SchemaEngine.new(
    { datamodels: [[schema.path, schema.content]] },
    () => undefined, // Its debug log.
    bindMigrationAwareSqlAdapterFactory(adapters),
  )
  try {
    return await task(engine, await readMigrationList(migrationsDir), schema)
  } finally {
    engine.free()
    await adapters.disposeAll()
  }
}

async function readMigrationList(baseDir: string): Promise<MigrationList> {
  const files = await readMigrationFiles(baseDir)
  return {
    baseDir,
    shadowDbInitScript: '',
    lockfile: { path: 'migration_lock.toml', content: 'provider = "postgresql"\n' },
    migrationDirectories: files.map(({ name, sql }) => ({
      path: name,
      migrationFile: { path: 'migration.sql', content: { tag: 'ok', value: sql } },
    })),
  }
}

let engineLoaded: Promise<void> | undefined

/** What the package's own entry does, which Node cannot load: it imports the .wasm file as a module. */
async function loadEngine(): Promise<void> {
  const require = createRequire(import.meta.url)
  const script = require.resolve('@prisma/schema-engine-wasm/schema_engine_bg')
  const source = await readFile(script.replace(/\.js$/, '.wasm'))
  const { instance } = await webAssembly.instantiate(source, { './schema_engine_bg.js': engineImports() })
  const { exports } = instance
  const bindings = engineBindings as unknown as { __wbg_set_wasm(exports: unknown): void }
  bindings.__wbg_set_wasm(exports)
  exports.__wbindgen_start()
}

/** The one call that is needed here; TypeScript has `WebAssembly` only in the browser's library. */
const { WebAssembly: webAssembly } = globalThis as unknown as {
  WebAssembly: {
    instantiate(
      source: Uint8Array,
      imports: Record<string, Record<string, unknown>>,
    ): Promise<{ instance: { exports: { __wbindgen_start(): void } } }>
  }
}

/** The bindings as the engine imports them, save that its lock timer (10 s) does not keep a finished process alive. */
function engineImports(): Record<string, unknown> {
  const unrefTimeout = (callback: () => void, delayMs: number): NodeJS.Timeout =>
    setTimeout(callback, delayMs).unref()
  return Object.fromEntries(
    Object.entries(engineBindings).map(([name, value]) => [
      name,
      name.startsWith('__wbg_setTimeout') ? unrefTimeout : value,
    ]),
  )
}

interface AdapterFactory extends SqlMigrationAwareDriverAdapterFactory {
  /** Closes all connections and drops the shadow databases. */
  disposeAll(): Promise<void>
}

/**
 * Prisma's adapter for `pg`, with a shadow database of our own making: given a connection string, the adapter's own
 * shadow *is* the real database.
 */
function createAdapterFactory(databaseUrl: string): AdapterFactory {
  const disposals: (() => Promise<void>)[] = []
  const connect = async (url: string): Promise<SqlDriverAdapter> => {
    const pool = new CatalogPool({ connectionString: url })
    const dispose = once(() => pool.end())
    disposals.unshift(dispose) // Connections go before the database they lead to.
    return Object.assign(await adaptPool(pool), { dispose })
  }
  return {
    provider: 'postgres',
    adapterName: '@prisma/adapter-pg',
    connect: () => connect(databaseUrl),
    connectToShadowDb: async () => {
      const database = `shadow_${crypto.randomUUID()}`
      await runOnce(databaseUrl, `create database "${database}" template template0`)
      disposals.unshift(() => runOnce(databaseUrl, `drop database "${database}" with (force)`))
      const shadowUrl = new URL(databaseUrl)
      shadowUrl.pathname = `/${database}`
      return connect(shadowUrl.href)
    },
    disposeAll: async () => {
      for (const dispose of disposals) await dispose()
    },
  }
}

/** Type ids of the catalogue's internal one-byte `"char"`, and of an array of it. */
const CHAR_OID = 18
const CHAR_ARRAY_OID = 1002

/** Answers `"char"` columns as arrays of it: the adapter knows only the array type. */
class CatalogPool extends pg.Pool {
  /** The one form of the call that the adapter uses; a script of several statements has several results. */
  readonly queryCatalog = async (query: string | pg.QueryConfig): Promise<unknown> => {
    const results: unknown = await super.query(query)
    for (const { fields } of [results].flat() as pg.QueryResult[]) {
      for (const field of fields) if (field.dataTypeID === CHAR_OID) field.dataTypeID = CHAR_ARRAY_OID
    }
    return results
  }

  override query = this.queryCatalog as pg.Pool['query']
}

async function adaptPool(pool: CatalogPool): Promise<SqlDriverAdapter> {
  const adapter: SqlDriverAdapter = await new PrismaPg(pool).connect()
  const queryRaw = adapter.queryRaw.bind(adapter)
  return Object.assign(adapter, {
    // The adapter's own splits a script at every semicolon, also inside a function's body.
    async executeScript(script: string): Promise<void> {
      await pool.query(script)
    },
    // The other half of CatalogPool: the engine expects a character. It reads no real array of "char".
    async queryRaw(query: Parameters<typeof queryRaw>[0]) {
      const result = await queryRaw(query)
      const columnTypes = result.columnTypes.map((type) =>
        type === ColumnTypeEnum.CharacterArray ? ColumnTypeEnum.Character : type,
      )
      return { ...result, columnTypes }
    },
  })
}

function once(task: () => Promise<void>): () => Promise<void> {
  let done: Promise<void> | undefined
  return () => (done ??= task())
}

async function runOnce(databaseUrl: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: databaseUrl })
  await client.connect()
  try {
    await client.query(sql)
  } finally {
    await client.end()
  }
}
