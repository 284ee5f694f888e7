import type { Transport } from '@modelcontextprotocol/sdk/shared/transport.js'
import { z } from 'zod'
import type { GuardedFetch } from '../builtin/web-fetch.ts'
import { untilAborted } from '../until-aborted.ts'
import type { McpServer } from './load-servers.ts'
import { createServerFetch } from './server-fetch.ts'

/** One session with a server. It holds no socket between calls. */
export interface McpConnection {
  /** One page of the server's tools, as it lists them. */
  listTools(cursor: string | undefined, signal: AbortSignal): Promise<ToolsPage>
  /** What a tool answers, as it answers it. */
  callTool(name: string, input: unknown, signal: AbortSignal): Promise<CallResult>
  /** Ends the session; resolves within a short time, also where the server does not answer. */
  close(): Promise<void>
}

// What a server says is taken apart piece by piece, so that one bad tool or block does not spoil the rest.
const toolsPage = z.looseObject({
  tools: z.array(z.unknown()),
  nextCursor: z.string().min(1).optional().catch(undefined),
})
/**
 * Many servers write `null` for what they leave out. Whether a call went wrong is a boolean by the specification; whatever
 * else a server says there counts as an error, so that no model takes for done what was not, and the content is told all
 * the same.
 * Source: https://modelcontextprotocol.io/specification/2025-11-25/server/tools#error-handling
 */
const callResult = z.looseObject({
  content: z
    .array(z.unknown())
    .nullish()
    .transform((content) => content ?? []),
  structuredContent: z.unknown().optional(),
  isError: z
    .unknown()
    .nullish()
    .transform((value) => value !== undefined && value !== null && value !== false),
})
export type ToolsPage = z.output<typeof toolsPage>
export type CallResult = z.output<typeof callResult>

export interface ConnectOptions {
  fetch: GuardedFetch
  /** The longest answer of the server, in bytes. */
  maxBytes: number
  signal: AbortSignal
}

const CLIENT = { name: 'turnmill', version: '0.1.0' }
const CLOSE_MS = 2000
/** What the client may take longer than the caller, who says why. */
const GRACE_MS = 1000
/** None: an answer is resumed where it is read, since the SDK tells no request of a resumption that comes to nothing. */
const RECONNECTION = {
  initialReconnectionDelay: 0,
  maxReconnectionDelay: 0,
  reconnectionDelayGrowFactor: 1,
  maxRetries: 0,
}

/** Most deployments have no server, and no use for the SDK. */
async function loadSdk() {
  const [{ Client }, { StreamableHTTPClientTransport }] = await Promise.all([
    import('@modelcontextprotocol/sdk/client/index.js'),
    import('@modelcontextprotocol/sdk/client/streamableHttp.js'),
  ])
  return { Client, StreamableHTTPClientTransport }
}

/** The SDK hears a signal for ever, and cancels what was long answered: it is given one that ends with the work. */
async function whilePending<T>(signal: AbortSignal, work: (own: AbortSignal) => Promise<T>): Promise<T> {
  signal.throwIfAborted()
  const own = new AbortController()
  const onAbort = (): void => own.abort(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    return await untilAborted(work(own.signal), signal)
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

/** Begins a session. @throws what the server, the connection or the signal says. */
export async function connectMcp(
  server: McpServer,
  { fetch, maxBytes, signal }: ConnectOptions,
): Promise<McpConnection> {
  const { Client, StreamableHTTPClientTransport } = await loadSdk()
  const timeout = server.timeoutMs + GRACE_MS
  const client = new Client(CLIENT, { capabilities: {} })
  const headers = Object.fromEntries(
    Object.entries(server.headers).map(([name, value]) => [name, value.reveal()]),
  )
  const transport = new StreamableHTTPClientTransport(new URL(server.url), {
    fetch: createServerFetch({ fetch, timeoutMs: timeout, maxBytes }),
    requestInit: { headers },
    reconnectionOptions: RECONNECTION,
  })
  // What goes wrong is told by the request that it concerns.
  client.onerror = () => undefined
  try {
    await whilePending(signal, (own) => client.connect(transport as Transport, { signal: own, timeout }))
  } catch (error) {
    await client.close()
    throw error
  }
  return {
    listTools: (cursor, stop) =>
      untilAborted(
        client.request({ method: 'tools/list', params: cursor === undefined ? {} : { cursor } }, toolsPage, {
          signal: stop,
          timeout,
        }),
        stop,
      ),
    callTool: (name, input, stop) =>
      untilAborted(
        client.request(
          { method: 'tools/call', params: { name, arguments: input as Record<string, unknown> } },
          callResult,
          { signal: stop, timeout },
        ),
        stop,
      ),
    close: async () => {
      const ended = transport.terminateSession()
      await untilAborted(ended, AbortSignal.timeout(CLOSE_MS)).catch(() => undefined)
      await client.close()
    },
  }
}
