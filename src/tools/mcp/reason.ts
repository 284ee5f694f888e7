import { z } from 'zod'
import { isTurnmillError } from '../../protocol/errors.ts'
import { messageOf } from '../settle-outcome.ts'
import type { McpServer } from './load-servers.ts'
import { createRedactor } from './redact.ts'

const MAX_REASON = 500

/** What went wrong, for the log and for models: without the address and the headers of the server, and not at any length. */
export function reasonOf(error: unknown, server: Pick<McpServer, 'headers'>): string {
  if (isTurnmillError(error)) return 'it may not be reached at its address'
  if (error instanceof z.core.$ZodError) return 'its answer is not what the protocol says'
  const unreached = whyUnreached(error, server)
  return unreached === null ? tell(messageOf(error), server) : `it could not be reached (${unreached})`
}

/** Whether a server may have done what it was called for all the same: unless it said no, or the call never came to it. */
export function mayHaveDone(error: unknown, server: Pick<McpServer, 'headers'>): boolean {
  if (isTurnmillError(error)) return false
  const unreached = whyUnreached(error, server)
  if (unreached !== null) return !NEVER_SENT.has(unreached)
  const { data } = answeredError.safeParse(error)
  if (data === undefined) return true
  return data.name === 'McpError' ? !OF_REFUSALS.has(data.code) : data.code < 400 || data.code > 499
}

/** What a connection fails with before it stands. Sources: Node's `errno` codes, and the errors of undici. */
const NEVER_SENT: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
])

/**
 * What a request is refused with before it is run: it could not be parsed, is none, or names a method or parameters that
 * there are not. All other errors may come of running it, and two codes are the client's own, for a connection that ended
 * and one that was silent.
 * Source: JSON-RPC 2.0, section 5.1
 */
const OF_REFUSALS: ReadonlySet<number> = new Set([-32_700, -32_600, -32_601, -32_602])

/** An answer of JSON-RPC that is an error, or one of HTTP. */
const answeredError = z.looseObject({ name: z.string(), code: z.number() })

const tell = (text: string, { headers }: Pick<McpServer, 'headers'>): string =>
  createRedactor(headers)(text).slice(0, MAX_REASON)

/** The same for an admin, who can do something about an address. */
export function adviceOn(error: unknown, server: Pick<McpServer, 'headers' | 'name' | 'url'>): string {
  const unreached = whyUnreached(error, server)
  return unreached === null
    ? reasonOf(error, server)
    : `the MCP server ${server.name} could not be reached at ${server.url} (${unreached}): check its url, and that it runs and listens there`
}

/** The code of what a fetch failed of before there was an answer, `ECONNREFUSED` say; `null` where it was something else. */
function whyUnreached(error: unknown, server: Pick<McpServer, 'headers'>): string | null {
  const { data } = failedFetch.safeParse(error)
  return data === undefined ? null : tell(data.cause.code ?? data.cause.message, server)
}

/** Source: the Fetch standard has a TypeError for every network error; undici says in its cause which one it was. */
const failedFetch = z.looseObject({
  name: z.literal('TypeError'),
  cause: z.looseObject({ code: z.string().optional(), message: z.string() }),
})
