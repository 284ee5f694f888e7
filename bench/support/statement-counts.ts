import pg from 'pg'

/** What Postgres ran in one database. */
export interface StatementCount {
  text: string
  calls: number
  /** Time in the executor, all calls together. */
  totalMs: number
}

/** Reads pg_stat_statements. The bench's own queries are left out. */
export class StatementCounts {
  readonly #client: pg.Client

  private constructor(client: pg.Client) {
    this.#client = client
  }

  /** @param serverUrl the database that has the extension. */
  static async open(serverUrl: string): Promise<StatementCounts> {
    const client = new pg.Client({ connectionString: serverUrl })
    client.on('error', () => undefined)
    await client.connect()
    return new StatementCounts(client)
  }

  async reset(): Promise<void> {
    await this.#client.query('select pg_stat_statements_reset()')
  }

  /** What was run since the reset, the most expensive first. */
  async read(databaseUrl: string): Promise<StatementCount[]> {
    const { rows } = await this.#client.query<{ query: string; calls: string; total: number }>(
      `select query, sum(calls) as calls, sum(total_exec_time) as total from pg_stat_statements
      where dbid = (select oid from pg_database where datname = $1) and query not like '%/* bench */%'
      group by query order by 3 desc`,
      [new URL(databaseUrl).pathname.slice(1)],
    )
    return rows.map(({ query, calls, total }) => ({ text: query, calls: Number(calls), totalMs: total }))
  }

  async close(): Promise<void> {
    await this.#client.end()
  }
}
