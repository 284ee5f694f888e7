export interface TogetherOptions<Item, Result> {
  /** Most items of a run. */
  max: number
  /** One result per item, in order. */
  run(items: readonly Item[]): Promise<readonly Result[]>
  /** Whether what a run failed with may be one item's alone: then each is run by itself. */
  runsAlone(error: unknown): boolean
}

interface Waiting<Item, Result> {
  item: Item
  resolve(result: Result): void
  reject(error: unknown): void
}

/**
 * Lets what comes while a run is under way go into the next one together. An item that finds nothing under way runs at
 * once, so nobody ever waits for company.
 */
export function together<Item, Result>({ max, run, runsAlone }: TogetherOptions<Item, Result>) {
  const waiting: Waiting<Item, Result>[] = []
  let running = false

  async function settle(group: readonly Waiting<Item, Result>[]): Promise<void> {
    try {
      const results = await run(group.map(({ item }) => item))
      for (const [index, { resolve }] of group.entries()) resolve(results[index] as Result)
    } catch (error) {
      if (group.length > 1 && runsAlone(error)) for (const one of group) await settle([one])
      else for (const { reject } of group) reject(error)
    }
  }

  async function drain(): Promise<void> {
    running = true
    while (waiting.length > 0) await settle(waiting.splice(0, max))
    running = false
  }

  return (item: Item): Promise<Result> =>
    new Promise((resolve, reject) => {
      waiting.push({ item, resolve, reject })
      if (!running) void drain()
    })
}
