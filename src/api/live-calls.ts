import { TurnmillError } from '../protocol/errors.ts'

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

interface LiveCall {
  apiKeyId: string
  aborting: AbortController
}

export function createLiveCalls({ findUsableKeys, periodMs, onError }: LiveCallsOptions): LiveCalls {
  const live = new Set<LiveCall>()
  let timer: NodeJS.Timeout | undefined
  const look = async (): Promise<void> => {
    // A call that begins meanwhile was let in by a later look at its key than this one.
    const calls = [...live]
    if (calls.length === 0) return
    try {
      const usable = await findUsableKeys([...new Set(calls.map(({ apiKeyId }) => apiKeyId))])
      for (const { apiKeyId, aborting } of calls) if (!usable.has(apiKeyId)) aborting.abort(keyIsDead())
    } catch (error) {
      onError(error)
    }
  }
  return {
    add: (apiKeyId) => {
      const call = { apiKeyId, aborting: new AbortController() }
      live.add(call)
      return { signal: call.aborting.signal, remove: () => void live.delete(call) }
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

const keyIsDead = (): TurnmillError =>
  new TurnmillError('gateway_unauthorized', 'the API key of this call was revoked or expired while it ran')
