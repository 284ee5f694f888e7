import type { Server } from 'node:http'

/** How often connections without a request are looked for, in ms. */
const SWEEP_MS = 50

/** How long requests that are under way have to be answered, in ms. */
const LIMIT_MS = 3000

/**
 * Lets the requests of a server that is about to close end: a connection is closed once it has none, which `close` does
 * for those that have none at that moment. What is not answered within `LIMIT_MS` is cut.
 *
 * @returns what to call once the server is closed.
 */
export function drainConnections(
  server: Pick<Server, 'closeIdleConnections' | 'closeAllConnections'>,
): () => void {
  const sweep = setInterval(() => server.closeIdleConnections(), SWEEP_MS)
  const limit = setTimeout(() => server.closeAllConnections(), LIMIT_MS)
  return () => {
    clearInterval(sweep)
    clearTimeout(limit)
  }
}
