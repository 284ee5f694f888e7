import pg from 'pg'

/** How often all turns under way are looked at, in ms: what a turn is seen to take is late by half of it on average. */
const TICK_MS = 10
/** A turn that takes longer is stuck. */
const STUCK_MS = 30_000

/** The state in which a turn was found committed, or that it never came to one. */
export type Settlement = 'completed' | 'failed' | 'interrupted' | 'superseded' | 'stuck'

interface Waiting {
  resolve(settlement: Settlement): void
  since: number
}

const settledOf = {
  name: 'bench/settled',
  // The comment marks it, so that it is not counted among the contender's statements.
  text: `select /* bench */ id, state from turns
    where id = any($1) and state in ('completed', 'failed', 'interrupted', 'superseded')`,
}

/** Learns which turns are committed by looking at the rows: one query per tick for all of them. */
export class Settlements {
  readonly #client: pg.Client
  readonly #waiting = new Map<string, Waiting>()
  #timer: NodeJS.Timeout | undefined

  private constructor(client: pg.Client) {
    this.#client = client
  }

  static async open(databaseUrl: string): Promise<Settlements> {
    const client = new pg.Client({ connectionString: databaseUrl, application_name: 'bench' })
    client.on('error', () => undefined)
    await client.connect()
    const settlements = new Settlements(client)
    settlements.#schedule()
    return settlements
  }

  /** Resolves when the turn's end is committed. */
  of(turnId: string): Promise<Settlement> {
    return new Promise((resolve) => this.#waiting.set(turnId, { resolve, since: performance.now() }))
  }

  async close(): Promise<void> {
    clearTimeout(this.#timer)
    await this.#client.end()
  }

  #schedule(): void {
    this.#timer = setTimeout(() => void this.#look().then(() => this.#schedule()), TICK_MS)
  }

  async #look(): Promise<void> {
    if (this.#waiting.size === 0) return
    const values = [[...this.#waiting.keys()]]
    const { rows } = await this.#client.query<{ id: string; state: Settlement }>({ ...settledOf, values })
    for (const { id, state } of rows) this.#settle(id, state)
    for (const [id, { since }] of this.#waiting)
      if (performance.now() - since > STUCK_MS) this.#settle(id, 'stuck')
  }

  #settle(turnId: string, settlement: Settlement): void {
    this.#waiting.get(turnId)?.resolve(settlement)
    this.#waiting.delete(turnId)
  }
}
