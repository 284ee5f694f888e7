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
