import { isUniqueViolation, query, statement, type Database } from '../../db/index.ts'
import { TurnmillError } from '../../protocol/errors.ts'
import { newId } from '../../protocol/ids.ts'
import { maskSecret, Secret } from '../../protocol/secret.ts'

/** Names in lower case, and their values. */
export type HeaderValues = Readonly<Record<string, Secret>>

/** The name of a header as those servers compare it that make no difference between `_` and `-`. */
export const toCanonicalName = (name: string): string => name.toLowerCase().replaceAll('_', '-')

/** Where headers are stored, encrypted for their place. */
export type HeaderPlace = { rowId: string } & (
  { table: 'mcp_servers'; column: 'headers' } | { table: 'mcp_user_headers'; column: 'encrypted' }
)

export interface HeaderEncryption {
  encrypt(place: HeaderPlace, plain: Secret): string
  /** @throws {Error} where it does not decrypt. */
  decrypt(place: HeaderPlace, encrypted: string): Secret
}

/** A header as it is shown: enough to tell two values apart. */
export interface HeaderHint {
  name: string
  hint: string
}

/** A server as an admin sees it. */
export interface McpServerView {
  id: string
  name: string
  url: string
  enabled: boolean
  headers: HeaderHint[]
  /** Names of the tools that may be used, as the server calls them; empty for all. */
  allow: string[]
  /** Names of the tools that may not. */
  deny: string[]
  timeoutMs: number
  createdAt: string
}

/** A server as a user sees it: the headers are their own. */
export interface UserMcpServerView {
  name: string
  headers: HeaderHint[]
}

export interface NewMcpServer {
  name: string
  url: string
  enabled: boolean
  headers: HeaderValues
  allow: readonly string[]
  deny: readonly string[]
  timeoutMs: number
}

const serverPlace = (rowId: string): HeaderPlace => ({ table: 'mcp_servers', column: 'headers', rowId })
const userPlace = (rowId: string): HeaderPlace => ({ table: 'mcp_user_headers', column: 'encrypted', rowId })

function encryptHeaders(encryption: HeaderEncryption, place: HeaderPlace, headers: HeaderValues): string {
  const plain = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, value.reveal()]))
  return encryption.encrypt(place, new Secret(JSON.stringify(plain)))
}

/** @throws {Error} where they do not decrypt. */
export function decryptHeaders(
  encryption: HeaderEncryption,
  place: HeaderPlace,
  encrypted: string | null,
): HeaderValues {
  if (encrypted === null) return {}
  const plain = JSON.parse(encryption.decrypt(place, encrypted).reveal()) as Record<string, string>
  return Object.fromEntries(Object.entries(plain).map(([name, value]) => [name, new Secret(value)]))
}

const hintsOf = (headers: HeaderValues): HeaderHint[] =>
  Object.entries(headers).map(([name, value]) => ({ name, hint: maskSecret(value.reveal()) }))

const storeHeaders = (encryption: HeaderEncryption, id: string, headers: HeaderValues): string | null =>
  Object.keys(headers).length === 0 ? null : encryptHeaders(encryption, serverPlace(id), headers)

const findServers = (db: Database) => db.prisma.mcpServer.findMany({ orderBy: { name: 'asc' } })

type ServerRow = Awaited<ReturnType<typeof findServers>>[number]

function toView(encryption: HeaderEncryption, row: ServerRow): McpServerView {
  const { id, name, url, enabled, allow, deny, timeoutMs } = row
  const headers = hintsOf(decryptHeaders(encryption, serverPlace(id), row.headers))
  return { id, name, url, enabled, headers, allow, deny, timeoutMs, createdAt: row.createdAt.toISOString() }
}

const missing = (id: string): TurnmillError =>
  new TurnmillError('not_found', `MCP server ${id} does not exist`)

/** @throws {TurnmillError} `conflict` where the name is taken. */
export async function createMcpServer(
  db: Database,
  encryption: HeaderEncryption,
  server: NewMcpServer,
): Promise<McpServerView> {
  const id = newId()
  const { allow, deny, headers, ...columns } = server
  try {
    const row = await db.prisma.mcpServer.create({
      data: {
        id,
        ...columns,
        allow: [...allow],
        deny: [...deny],
        headers: storeHeaders(encryption, id, headers),
      },
    })
    return toView(encryption, row)
  } catch (error) {
    if (isUniqueViolation(error))
      throw new TurnmillError('conflict', `an MCP server named ${server.name} exists already`)
    throw error
  }
}

export const listMcpServers = async (db: Database, encryption: HeaderEncryption): Promise<McpServerView[]> =>
  (await findServers(db)).map((row) => toView(encryption, row))

/** @throws {TurnmillError} `not_found`. */
export async function getMcpServer(
  db: Database,
  encryption: HeaderEncryption,
  id: string,
): Promise<McpServerView> {
  const row = await db.prisma.mcpServer.findUnique({ where: { id } })
  if (row === null) throw missing(id)
  return toView(encryption, row)
}

export type McpServerChange = Partial<Omit<NewMcpServer, 'name'>>

/** Headers are replaced as a whole. @throws {TurnmillError} `not_found`. */
export async function updateMcpServer(
  db: Database,
  encryption: HeaderEncryption,
  id: string,
  change: McpServerChange,
): Promise<McpServerView> {
  const { allow, deny, headers, ...columns } = change
  const { count } = await db.prisma.mcpServer.updateMany({
    where: { id },
    data: {
      ...columns,
      ...(allow === undefined ? {} : { allow: [...allow] }),
      ...(deny === undefined ? {} : { deny: [...deny] }),
      ...(headers === undefined ? {} : { headers: storeHeaders(encryption, id, headers) }),
    },
  })
  if (count === 0) throw missing(id)
  return getMcpServer(db, encryption, id)
}

/** What users have stored for it goes with it. @throws {TurnmillError} `not_found`. */
export async function deleteMcpServer(db: Database, id: string): Promise<void> {
  const { count } = await db.prisma.mcpServer.deleteMany({ where: { id } })
  if (count === 0) throw missing(id)
}

/** The servers that a user's chats may use, with the headers that are the user's own. */
export async function listUserMcpServers(
  db: Database,
  encryption: HeaderEncryption,
  userId: string,
): Promise<UserMcpServerView[]> {
  const rows = await db.prisma.mcpServer.findMany({
    where: { enabled: true },
    orderBy: { name: 'asc' },
    include: { userHeaders: { where: { userId } } },
  })
  return rows.map(({ name, userHeaders }) => ({
    name,
    headers: userHeaders.flatMap(({ id, encrypted }) =>
      hintsOf(decryptHeaders(encryption, userPlace(id), encrypted)),
    ),
  }))
}

/** $1 row, $2 user, $3 server, $4 ciphertext, which is bound to the row's id: a row that is there takes the new one. */
const putHeaders = statement(
  'tools/put-mcp-headers',
  `insert into mcp_user_headers (id, user_id, server_id, encrypted) values ($1, $2, $3, $4)
  on conflict (user_id, server_id) do update set id = excluded.id, encrypted = excluded.encrypted`,
)

/** Stores a user's own headers for a server, in place of earlier ones. @throws {TurnmillError} `not_found`. */
export async function putUserMcpHeaders(
  db: Database,
  encryption: HeaderEncryption,
  owner: { userId: string; serverName: string },
  headers: HeaderValues,
): Promise<UserMcpServerView> {
  const server = await db.prisma.mcpServer.findUnique({ where: { name: owner.serverName, enabled: true } })
  if (server === null)
    throw new TurnmillError('not_found', `there is no MCP server named ${owner.serverName}`)
  const id = newId()
  const encrypted = encryptHeaders(encryption, userPlace(id), headers)
  await query(db, putHeaders(id, owner.userId, server.id, encrypted))
  return { name: server.name, headers: hintsOf(headers) }
}

/** @throws {TurnmillError} `not_found` where there are none. */
export async function deleteUserMcpHeaders(
  db: Database,
  { userId, serverName }: { userId: string; serverName: string },
): Promise<void> {
  const { count } = await db.prisma.mcpUserHeaders.deleteMany({
    where: { userId, server: { name: serverName } },
  })
  if (count === 0)
    throw new TurnmillError(
      'not_found',
      `there are no headers of yours for an MCP server named ${serverName}`,
    )
}
