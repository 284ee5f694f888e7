import type { Upstream, UpstreamCall } from './upstream.ts'

/** An upstream call under way. */
export interface Reaching {
  /** @throws what the call does, and the signal's reason as soon as it aborts while no request is out. */
  upstream: Promise<Upstream>
  /** Whether a request is out. */
  isSent(): boolean
}

/**
 * Makes an upstream call that its caller may leave while the connection is being made: nobody waits for it then, and
 * whether it comes to stand says something of the provider still.
 */
export function leaveUnsent(
  signal: AbortSignal,
  reach: (progress: Pick<UpstreamCall, 'onConnect' | 'onSend'>) => Promise<Upstream>,
): Reaching {
  let sent = false
  const left = Promise.withResolvers<never>()
  const go = async (): Promise<Upstream> => {
    // Whoever has left by now has been sent nothing, and owes nothing.
    signal.throwIfAborted()
    const reached = reach({ onConnect: () => void (sent = false), onSend: () => void (sent = true) })
    const onAbort = (): void => {
      if (sent) return
      reached.then(({ answer }) => answer.body.destroy(), ignore)
      left.reject(signal.reason)
    }
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      return await Promise.race([reached, left.promise])
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }
  return { upstream: go(), isSent: () => sent }
}

const ignore = (): void => undefined
