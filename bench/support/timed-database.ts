import type { Database } from '../../src/db/index.ts'

/** Round trips by the name of their statement, in ms each. */
export type RoundTrips = ReadonlyMap<string, readonly number[]>

export interface TimedDatabase {
  db: Database
  /** Those since this was last asked. */
  takeRoundTrips(): RoundTrips
}

/** The same database, with a clock beside every prepared statement: from the call until its rows are there. */
export function timeStatements(db: Database): TimedDatabase {
  let times = new Map<string, number[]>()
  const note = (name: string, ms: number): void => {
    const own = times.get(name)
    if (own === undefined) times.set(name, [ms])
    else own.push(ms)
  }
  const query = async (statement: { name: string }): Promise<unknown> => {
    const start = performance.now()
    const result = await db.pool.query(statement as never)
    note(statement.name, performance.now() - start)
    return result
  }
  return {
    db: { ...db, pool: { query } as never },
    takeRoundTrips: () => {
      const taken = times
      times = new Map()
      return taken
    },
  }
}
