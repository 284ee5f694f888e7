import { query, statement, type Database } from '../../db/index.ts'
import { TurnmillError } from '../../protocol/errors.ts'
import type { Logger } from '../../telemetry/logger.ts'
import {
  decryptHeaders,
  toCanonicalName,
  type HeaderEncryption,
  type HeaderPlace,
  type HeaderValues,
} from './servers.ts'

/** A server as it is called on behalf of one user. */
export interface McpServer {
  id: string
  name: string
  url: string
  headers: HeaderValues
  allow: readonly string[]
  deny: readonly string[]
  timeoutMs: number
}

/** The servers that this user's chats may use now. */
export type LoadMcpServers = (userId: string) => Promise<McpServer[]>

interface ServerRow extends Omit<McpServer, 'headers'> {
  headers: string | null
}

interface UserHeadersRow {
  id: string
  serverId: string
  encrypted: string
}

const enabledServers = statement(
  'tools/enabled-mcp-servers',
  `select id, name, url, headers, allow, deny, timeout_ms as "timeoutMs" from mcp_servers where enabled order by name`,
)

/** $1 user. */
const headersOfUser = statement(
  'tools/mcp-headers-of-user',
  `select id, server_id as "serverId", encrypted from mcp_user_headers where user_id = $1`,
)

export interface McpServerLoaderOptions {
  db: Database
  encryption: HeaderEncryption
  logger: Logger
  /** How old the list of servers may be, in ms: where there are none, turns ask the database for nothing. */
  freshMs?: number
}

/** A user's own header stands in for the server's of the same canonical name. @throws {Error} where one does not decrypt. */
function mergeHeaders(
  encryption: HeaderEncryption,
  server: Pick<ServerRow, 'id' | 'headers'>,
  users: Pick<UserHeadersRow, 'id' | 'encrypted'> | undefined,
): HeaderValues {
  const decrypt = (place: HeaderPlace, encrypted: string | null): HeaderValues =>
    decryptHeaders(encryption, place, encrypted)
  const common = decrypt({ table: 'mcp_servers', column: 'headers', rowId: server.id }, server.headers)
  if (users === undefined) return common
  const own = decrypt({ table: 'mcp_user_headers', column: 'encrypted', rowId: users.id }, users.encrypted)
  const replaced = new Set(Object.keys(own).map(toCanonicalName))
  const kept = Object.entries(common).filter(([name]) => !replaced.has(toCanonicalName(name)))
  return { ...Object.fromEntries(kept), ...own }
}

/** One server as it is called on behalf of a user, enabled or not. @throws {TurnmillError} `not_found`. */
export async function getUsersMcpServer(
  db: Database,
  encryption: HeaderEncryption,
  { id, userId }: { id: string; userId: string },
): Promise<McpServer> {
  const row = await db.prisma.mcpServer.findUnique({
    where: { id },
    include: { userHeaders: { where: { userId } } },
  })
  if (row === null) throw new TurnmillError('not_found', `MCP server ${id} does not exist`)
  return { ...row, headers: mergeHeaders(encryption, row, row.userHeaders[0]) }
}

/** A server whose headers do not decrypt is left out. */
export function createMcpServerLoader({
  db,
  encryption,
  logger,
  freshMs = 5000,
}: McpServerLoaderOptions): LoadMcpServers {
  let known: { rows: ServerRow[]; until: number } = { rows: [], until: 0 }
  const readServers = async (): Promise<ServerRow[]> => {
    if (Date.now() >= known.until)
      known = { rows: await query<ServerRow>(db, enabledServers()), until: Date.now() + freshMs }
    return known.rows
  }
  return async (userId) => {
    const rows = await readServers()
    if (rows.length === 0) return []
    const own = new Map(
      (await query<UserHeadersRow>(db, headersOfUser(userId))).map((row) => [row.serverId, row]),
    )
    return rows.flatMap((row) => {
      const users = own.get(row.id)
      try {
        return [{ ...row, headers: mergeHeaders(encryption, row, users) }]
      } catch (error) {
        logger.warn({ error, server: row.name }, 'an MCP server was left out: its headers do not decrypt')
        return []
      }
    })
  }
}
