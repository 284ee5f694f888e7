export interface LiveCallsOptions {
  /** Those of these keys that may be used, in one query. */
  findUsableKeys(apiKeyIds: readonly string[]): Promise<Set<string>>
  periodMs: number
  onError(error: unknown): void
}

/** The calls of outside clients that are under way: a key that is revoked meanwhile ends them. */
export interface LiveCalls {
  /** @returns a signal for the call, and what to call when it is over. */
  add(apiKeyId: string): { signal: AbortSignal; remove(): void }
  start(): void
  stop(): void
}

export function createLiveCalls({ findUsableKeys, periodMs, onError }: LiveCallsOptions): LiveCalls {
  const calls = new Map<string, Set<AbortController>>()
  let timer: NodeJS.Timeout | undefined
  const look = async (): Promise<void> => {
    if (calls.size === 0) return
    try {
      const usable = await findUsableKeys([...calls.keys()])
      for (const [apiKeyId, ones] of calls) if (!usable.has(apiKeyId)) for (const one of ones) one.abort()
    } catch (error) {
      onError(error)
    }
  }
  return {
    add: (apiKeyId) => {
      const call = new AbortController()
      const ones = calls.get(apiKeyId) ?? new Set()
      calls.set(apiKeyId, ones.add(call))
      const remove = (): void => {
        ones.delete(call)
        if (ones.size === 0 && calls.get(apiKeyId) === ones) calls.delete(apiKeyId)
      }
      return { signal: call.signal, remove }
    },
    start: () => {
      timer ??= setInterval(() => void look(), periodMs).unref()
    },
    stop: () => {
      clearInterval(timer)
      timer = undefined
    },
  }
}
