import pg from 'pg'

/** How many turns of a user are in which state. */
export interface TurnCount {
  pending: number
  running: number
  completed: number
}

const countsOf = {
  name: 'bench/counts',
  text: `select /* bench */ count(*) filter (where state = 'pending')::int as pending,
    count(*) filter (where state = 'running')::int as running,
    count(*) filter (where state = 'completed')::int as completed
    from turns where user_id = $1`,
}

/** Counts a user's turns by looking at the rows. */
export class TurnCounts {
  readonly #client: pg.Client

  private constructor(client: pg.Client) {
    this.#client = client
  }

  static async open(databaseUrl: string): Promise<TurnCounts> {
    const client = new pg.Client({ connectionString: databaseUrl, application_name: 'bench' })
    client.on('error', () => undefined)
    await client.connect()
    return new TurnCounts(client)
  }

  async read(userId: string): Promise<TurnCount> {
    const { rows } = await this.#client.query<TurnCount>({ ...countsOf, values: [userId] })
    return rows[0] ?? { pending: 0, running: 0, completed: 0 }
  }

  async close(): Promise<void> {
    await this.#client.end()
  }
}
