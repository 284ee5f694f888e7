/** What a database holds that Prisma's schema cannot say, so that neither its diff nor its client would miss it. */
import pg from 'pg'

/** Kinds of objects that only the SQL of a migration makes. */
export const CATALOGUE_KINDS = [
  'check',
  'exclusion',
  'expression index',
  'function',
  'partial index',
  'trigger',
  'view',
] as const

export type CatalogueKind = (typeof CATALOGUE_KINDS)[number]
export type Catalogue = Record<CatalogueKind, string[]>

/** Names stand with their table where they are unique only there. Objects of extensions belong to nobody here. */
const CATALOGUE_QUERY = `
  with own_schema as (select 'public'::regnamespace as oid)
  select case contype when 'c' then 'check' else 'exclusion' end as kind, conrelid::regclass || '.' || conname as name
    from pg_constraint join own_schema on connamespace = own_schema.oid
   where contype in ('c', 'x')
  union all
  select case when indpred is null then 'expression index' else 'partial index' end, indrelid::regclass || '.' || relname
    from pg_index join pg_class on pg_class.oid = indexrelid join own_schema on relnamespace = own_schema.oid
   where indpred is not null or indexprs is not null
  union all
  select 'trigger', tgrelid::regclass || '.' || tgname
    from pg_trigger join pg_class on pg_class.oid = tgrelid join own_schema on relnamespace = own_schema.oid
   where not tgisinternal
  union all
  select 'function', proname
    from pg_proc join own_schema on pronamespace = own_schema.oid
   where not exists (select from pg_depend where objid = pg_proc.oid and deptype = 'e')
  union all
  select 'view', relname
    from pg_class join own_schema on relnamespace = own_schema.oid
   where relkind in ('v', 'm')
  order by 1, 2`

/** Reads the names of all such objects, by kind, sorted. */
export async function readCatalogue(databaseUrl: string): Promise<Catalogue> {
  const client = new pg.Client({ connectionString: databaseUrl })
  await client.connect()
  try {
    const { rows } = await client.query<{ kind: CatalogueKind; name: string }>(CATALOGUE_QUERY)
    return groupByKind(rows)
  } finally {
    await client.end()
  }
}

function groupByKind(rows: readonly { kind: CatalogueKind; name: string }[]): Catalogue {
  const namesOf = (kind: CatalogueKind): string[] =>
    rows
      .filter((row) => row.kind === kind)
      .map((row) => row.name)
      .sort()
  return Object.fromEntries(CATALOGUE_KINDS.map((kind) => [kind, namesOf(kind)])) as Catalogue
}
