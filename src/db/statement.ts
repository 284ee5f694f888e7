/** A prepared statement with its parameters, as `pg` takes it. */
export interface Statement {
  /** Unique per text: Postgres keeps the plan under it. */
  name: string
  text: string
  values: unknown[]
}

/**
 * Names a statement once; the result binds parameters to it. A name stands for one text in the whole program.
 *
 * @param text SQL with `$1 …`.
 */
export const statement =
  (name: string, text: string) =>
  (...values: unknown[]): Statement => ({ name, text, values })
