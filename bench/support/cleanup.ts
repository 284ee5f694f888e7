type Stop = () => Promise<unknown>

/** What a run has started so far: stopped in the reverse order when it ends, fails or is interrupted. */
export class Cleanup {
  readonly #stops: Stop[] = []

  add(stop: Stop): void {
    this.#stops.push(stop)
  }

  /** Stops all; a failure of one does not spare the others. */
  async run(): Promise<void> {
    for (const stop of this.#stops.splice(0).reverse()) {
      try {
        await stop()
      } catch (error) {
        console.error('something did not stop cleanly:', error)
      }
    }
  }

  /** Runs `work` and cleans up after it, also on Ctrl-C. A second signal leaves at once; the children's leashes end them. */
  static async during<T>(work: (cleanup: Cleanup) => Promise<T>): Promise<T> {
    const cleanup = new Cleanup()
    let interrupted = false
    const interrupt = (signal: NodeJS.Signals): void => {
      if (interrupted) process.exit(130)
      interrupted = true
      console.error(`\n${signal}: stopping what was started`)
      void cleanup.run().then(() => process.exit(130))
    }
    const crash = (error: unknown): void => {
      console.error(error)
      void cleanup.run().then(() => process.exit(1))
    }
    const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
    for (const signal of signals) process.on(signal, interrupt)
    process.on('uncaughtException', crash)
    try {
      return await work(cleanup)
    } finally {
      // Interrupted, the other cleanup is under way and exits; an error of work cut short is nobody's news.
      if (interrupted) await new Promise(() => undefined)
      await cleanup.run()
      for (const signal of signals) process.off(signal, interrupt)
      process.off('uncaughtException', crash)
    }
  }
}
