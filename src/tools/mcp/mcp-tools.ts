import { createHash } from 'node:crypto'
import { toTurnError } from '../../protocol/errors.ts'
import type { Logger } from '../../telemetry/logger.ts'
import type { GuardedFetch } from '../builtin/web-fetch.ts'
import type { Tool, ToolOwner, ToolSource } from '../contract.ts'
import { untilAborted } from '../until-aborted.ts'
import { toToolOutcome } from './call-result.ts'
import { connectMcp, type CallResult, type McpConnection } from './connection.ts'
import { listTools, type ListedTool, type ListedTools } from './list-tools.ts'
import type { LoadMcpServers, McpServer } from './load-servers.ts'
import { adviceOn, mayHaveDone, reasonOf } from './reason.ts'
import { createRedactor } from './redact.ts'
import { createMcpSessions, type McpSessions } from './sessions.ts'

/** The tools of MCP servers. `close` ends the sessions with them. */
export interface McpTools extends ToolSource {
  close(): Promise<void>
}

export interface McpToolsOptions {
  servers: LoadMcpServers
  /** Reaches servers, as far as the rules of destinations let it, and follows no redirect. */
  fetch: GuardedFetch
  logger: Logger
  /** How long the list of a server's tools holds good, in ms. */
  listedMs?: number
  /** How long a server is left alone that could not be asked for its tools, in ms. */
  failedMs?: number
}

/** How long a server may take to list its tools, in ms: turns wait for it. */
const LIST_MS = 10_000
const LIST_BYTES = 4 * 1024 * 1024
/** Images come as text. */
const CALL_BYTES = 16 * 1024 * 1024
const SESSIONS = { idleMs: 300_000, most: 500 }
/** How long after its time a list is still given to one more turn, which then need not wait for a new one, in ms. */
const STALE_MS = 600_000
const MAX_LISTS = 2000
/** Of how many tools that are left out it is said why. */
const MAX_PROBLEMS = 10

/**
 * The tools of the servers that admins have configured. What a server does wrong costs its own tools, never a turn: a
 * dead one is missing, a broken tool of it is left out, a call that fails is a result that says so.
 *
 * An admin chose the server, so its hints are taken at their word: a tool that says it only reads is given to subagents
 * that may only read, and it and one that says it is idempotent are called again after a crash. What a server may not
 * be trusted with is denied by name.
 */
export function createMcpTools({
  servers,
  fetch,
  logger,
  listedMs = 60_000,
  failedMs = 15_000,
}: McpToolsOptions): McpTools {
  const sessions = createMcpSessions(SESSIONS)
  // Users of the same headers share a list. In the order of their last listing.
  const lists = new Map<string, { until: number; tools: Promise<ListedTool[]> }>()

  /** Its tools as they were listed lately; where that is a while ago, for the last time. Never rejects. */
  function toolsOf(server: McpServer): Promise<ListedTool[]> {
    const key = fingerprintOf(server)
    const known = lists.get(key)
    const age = Date.now() - (known?.until ?? 0)
    if (known !== undefined && age < 0) return known.tools
    const fresh = listAnew(server, key)
    return known !== undefined && age < STALE_MS ? known.tools : fresh
  }

  function listAnew(server: McpServer, key: string): Promise<ListedTool[]> {
    const entry = { until: Date.now() + listedMs, tools: Promise.resolve<ListedTool[]>([]) }
    entry.tools = list(server).catch((error: unknown) => {
      entry.until = Date.now() + failedMs
      logger.warn(
        { server: server.name, reason: reasonOf(error, server) },
        'the tools of an MCP server are missing',
      )
      return []
    })
    lists.delete(key)
    lists.set(key, entry)
    const [oldest] = lists.keys()
    if (lists.size > MAX_LISTS && oldest !== undefined) lists.delete(oldest)
    return entry.tools
  }

  async function list(server: McpServer): Promise<ListedTool[]> {
    const { tools, problems } = await listMcpTools(server, fetch)
    for (const problem of problems.slice(0, MAX_PROBLEMS))
      logger.warn(
        { server: server.name, reason: reasonOf(problem, server) },
        'a tool of an MCP server was left out',
      )
    return tools
  }

  const allToolsFor = async (owner: ToolOwner): Promise<Tool[]> => {
    const found = await servers(owner.userId)
    const tools = found.map(async (server) =>
      (await toolsOf(server))
        .filter(({ name }) => isAllowed(server, name))
        .map((tool) => toTool(tool, { server, owner, sessions, fetch })),
    )
    return (await Promise.all(tools)).flat()
  }

  return {
    toolsFor: async (owner, signal) => {
      try {
        return await untilAborted(allToolsFor(owner), signal)
      } catch (error) {
        signal.throwIfAborted()
        if (toTurnError(error).code === 'database_unavailable') throw error
        logger.warn({ error }, 'the MCP servers could not be read')
        return []
      }
    },
    close: () => sessions.close(),
  }
}

/** A server as it is at this moment: what models would be told of it, and what is wrong with it. */
export interface McpServerTest {
  tools: { name: string; title: string; readOnly: boolean; idempotent: boolean }[]
  problems: string[]
}

/** Never rejects: what goes wrong is what is asked for. */
export async function testMcpServer(server: McpServer, fetch: GuardedFetch): Promise<McpServerTest> {
  try {
    const { tools, problems: leftOut } = await listMcpTools(server, fetch)
    const problems = [...namesOfNone(server, tools), ...leftOut]
    const usable = tools.filter(({ name }) => isAllowed(server, name))
    return {
      tools: usable.map(({ name, definition, readOnly, idempotent }) => ({
        name: definition.name,
        title: name,
        readOnly,
        idempotent,
      })),
      problems: problems.slice(0, MAX_PROBLEMS).map((problem) => reasonOf(problem, server)),
    }
  } catch (error) {
    return { tools: [], problems: [adviceOn(error, server)] }
  }
}

/** Asks a server for its tools, in a session of its own. @throws what goes wrong with the server. */
async function listMcpTools(server: McpServer, fetch: GuardedFetch): Promise<ListedTools> {
  const signal = AbortSignal.timeout(Math.min(server.timeoutMs, LIST_MS))
  const connection = await connectMcp(server, { fetch, maxBytes: LIST_BYTES, signal })
  try {
    return await listTools(connection, server, createRedactor(server.headers), signal)
  } finally {
    void connection.close()
  }
}

/** A name that is misspelt neither allows nor denies anything. */
function* namesOfNone(server: McpServer, tools: readonly ListedTool[]): Generator<string> {
  const listed = new Set(tools.map(({ name }) => name))
  for (const list of ['deny', 'allow'] as const)
    for (const name of server[list])
      if (!listed.has(name))
        yield `${list} names ${JSON.stringify(name)}, and none of its usable tools is called that`
}

const isAllowed = ({ allow, deny }: McpServer, name: string): boolean =>
  (allow.length === 0 || allow.includes(name)) && !deny.includes(name)

/** Tells what a server was reached with, without telling it. */
function fingerprintOf({ id, url, headers }: McpServer): string {
  const hash = createHash('sha256').update(url)
  for (const [name, value] of Object.entries(headers)) hash.update(`\n${name}: ${value.reveal()}`)
  return `${id} ${hash.digest('base64url')}`
}

interface CallPlace {
  server: McpServer
  owner: ToolOwner
  sessions: McpSessions
  fetch: GuardedFetch
}

function toTool(tool: ListedTool, { server, owner, sessions, fetch }: CallPlace): Tool {
  const key = {
    name: `${server.id} ${owner.userId} ${owner.chatId}`,
    fingerprint: fingerprintOf(server),
  }
  const connect = (signal: AbortSignal): Promise<McpConnection> =>
    connectMcp(server, {
      fetch,
      maxBytes: CALL_BYTES,
      signal: AbortSignal.any([signal, AbortSignal.timeout(Math.min(server.timeoutMs, LIST_MS))]),
    })
  return {
    definition: tool.definition,
    idempotent: tool.idempotent,
    readOnly: tool.readOnly,
    needsApproval: () => false,
    // The rest the server checks itself: its schema is not ours to run, with patterns that may take for ever.
    check: (input) =>
      typeof input === 'object' && input !== null && !Array.isArray(input) ? null : 'expected an object',
    timeoutMs: server.timeoutMs,
    execute: async (input, { signal }) => {
      let mayBeDone = false
      const call = async (connection: McpConnection): Promise<CallResult> => {
        try {
          return await connection.callTool(tool.name, input, signal)
        } catch (error) {
          // Judged here: a new session that does not begin says nothing of a call that the old one has refused.
          mayBeDone = mayHaveDone(error, server)
          throw error
        }
      }
      const result = await sessions.use(key, signal, call, connect).catch((error: unknown) => {
        signal.throwIfAborted()
        throw toFailure(error, mayBeDone, server)
      })
      try {
        return toToolOutcome(result, createRedactor(server.headers))
      } catch (error) {
        throw new Error(
          `the MCP server ${server.name} answered, but its answer cannot be told: ${reasonOf(error, server)}`,
          { cause: error },
        )
      }
    },
  }
}

/** C2 what may have happened is never told as if it had not. */
function toFailure(error: unknown, mayBeDone: boolean, server: McpServer): Error {
  const outcome = mayBeDone
    ? `it is unknown whether the MCP server ${server.name} did it`
    : `the MCP server ${server.name} did not do it`
  return new Error(`${outcome}: ${reasonOf(error, server)}`, { cause: error })
}
