import { z } from 'zod'
import { toStorableText } from '../../protocol/messages.ts'
import type { FunctionTool } from '../../protocol/tools.ts'
import { toToolSchema } from '../input-schema.ts'
import type { McpConnection } from './connection.ts'
import type { McpServer } from './load-servers.ts'
import { redactSchema, type Redact } from './redact.ts'
import { mcpToolName } from './tool-name.ts'

/** A tool as a server lists it, fit for models. */
export interface ListedTool {
  /** As the server calls it. */
  name: string
  definition: FunctionTool
  idempotent: boolean
  readOnly: boolean
}

export interface ListedTools {
  tools: ListedTool[]
  /** Why others were left out. */
  problems: string[]
}

const MAX_TOOLS = 128
/** How much of a list is looked at, good or bad. */
const MAX_LISTED = 500
const MAX_PAGES = 10
const MAX_SCHEMA_BYTES = 64 * 1024
const MAX_DESCRIPTION = 4096

const hint = z.boolean().optional().catch(undefined)
const listedTool = z.looseObject({
  name: z.string().min(1).max(200),
  title: z.string().optional().catch(undefined),
  description: z.string().optional().catch(undefined),
  inputSchema: z.record(z.string(), z.unknown()),
  annotations: z
    .looseObject({ readOnlyHint: hint, idempotentHint: hint, destructiveHint: hint })
    .optional()
    .catch(undefined),
})

/** Every tool that a server has for us, within bounds. */
export async function listTools(
  connection: McpConnection,
  server: Pick<McpServer, 'name'>,
  redact: Redact,
  signal: AbortSignal,
): Promise<ListedTools> {
  const tools = new Map<string, ListedTool>()
  const problems: string[] = []
  let listed = 0
  for await (const raw of listedTools(connection, signal)) {
    const excess = excessOf(tools.size, listed++)
    // What concerns all the rest is told first, since not all problems are.
    if (excess !== null) return { tools: [...tools.values()], problems: [excess, ...problems] }
    const tool = readTool(raw, server.name, redact)
    if (typeof tool === 'string') problems.push(tool)
    else if (tools.has(tool.definition.name))
      problems.push(`it lists two tools named ${tool.definition.name}`)
    else tools.set(tool.definition.name, tool)
  }
  return { tools: [...tools.values()], problems }
}

function excessOf(tools: number, listed: number): string | null {
  if (tools === MAX_TOOLS) return `it lists more than ${MAX_TOOLS} tools`
  return listed === MAX_LISTED ? `it lists more than ${MAX_LISTED} things, and the rest is not read` : null
}

async function* listedTools(connection: McpConnection, signal: AbortSignal): AsyncGenerator {
  let cursor: string | undefined
  for (let pages = 0; pages < MAX_PAGES; pages++) {
    const page = await connection.listTools(cursor, signal)
    yield* page.tools
    if (page.nextCursor === undefined || page.nextCursor === cursor) return
    cursor = page.nextCursor
  }
}

/** A tool as models are told of it, or why they are not. */
function readTool(raw: unknown, server: string, redact: Redact): ListedTool | string {
  const { data: tool } = listedTool.safeParse(raw)
  if (tool === undefined) return 'it lists something that is no tool'
  const { name, title, description = title ?? '', annotations } = tool
  if (redact(name) !== name) return 'it names a tool after a header that it was sent'
  const about = `its tool ${JSON.stringify(name)}`
  // Settings are kept as text that Postgres can hold, so that none could allow or deny it.
  if (toStorableText(name) !== name) return `${about} is named with NUL or half a character`
  if (sizeOf(tool.inputSchema) > MAX_SCHEMA_BYTES)
    return `${about} has a schema of more than ${MAX_SCHEMA_BYTES} bytes`
  const schema = redactSchema(tool.inputSchema, redact)
  if (schema === null) return `${about} has a schema with a key named after a header that the server was sent`
  const inputSchema = toToolSchema(schema)
  if (typeof inputSchema === 'string') return `${about}: its schema ${inputSchema}`
  const readOnly = annotations?.readOnlyHint === true && annotations.destructiveHint !== true
  return {
    name,
    definition: {
      kind: 'function',
      name: mcpToolName(server, name),
      description: toStorableText(redact(description).slice(0, MAX_DESCRIPTION)) || name,
      inputSchema,
    },
    idempotent: readOnly || annotations?.idempotentHint === true,
    readOnly,
  }
}

/** What cannot be said in JSON is too large. */
function sizeOf(json: unknown): number {
  try {
    return Buffer.byteLength(JSON.stringify(json))
  } catch {
    return Infinity
  }
}
