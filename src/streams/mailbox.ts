/** Things put in by callbacks, taken out by one loop. */
export interface Mailbox<T> {
  put(item: T): void
  /** All that came since the last batch, in order; waits for at least one. Ends when the signal aborts. */
  batches(): AsyncGenerator<T[], void, undefined>
}

export function createMailbox<T>(signal: AbortSignal): Mailbox<T> {
  let items: T[] = []
  let wake: (() => void) | undefined
  const wakeUp = (): void => {
    wake?.()
    wake = undefined
  }
  const isOpen = (): boolean => !signal.aborted
  signal.addEventListener('abort', wakeUp, { once: true })
  return {
    put: (item) => {
      items.push(item)
      wakeUp()
    },
    async *batches() {
      while (isOpen()) {
        if (items.length === 0) await new Promise<void>((resolve) => (wake = resolve))
        const batch = items
        items = []
        if (batch.length > 0 && isOpen()) yield batch
      }
    },
  }
}
