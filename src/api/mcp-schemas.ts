import { z } from 'zod'
import { Secret } from '../protocol/secret.ts'
import { toCanonicalName } from '../tools/index.ts'
import { baseUrl, id, line } from './schemas.ts'

/** What the routes of MCP servers take, and what they answer. */

/** Those that the protocol itself sends, and those that are of one connection. */
const RESERVED =
  /^(accept|connection|content-.*|host|keep-alive|last-event-id|mcp-.*|proxy-.*|te|trailer|transfer-encoding|upgrade|expect)$/

const headerName = z
  .string()
  .max(100)
  .regex(/^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/, 'expected the name of a header')
  .refine(
    (name) => !RESERVED.test(toCanonicalName(name)),
    'expected a header that the protocol does not send itself',
  )

const isOnce = (names: readonly string[]): boolean =>
  new Set(names.map(toCanonicalName)).size === names.length

const headerValue = z
  .string()
  .max(4096)
  .regex(/^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/, 'expected printable ASCII')
  .transform((value) => new Secret(value))

const headers = z
  .record(headerName, headerValue)
  .refine((given) => Object.keys(given).length <= 20, 'expected at most 20 headers')
  .refine((given) => isOnce(Object.keys(given)), 'expected each name once, whatever its case')
  .transform((given) =>
    Object.fromEntries(Object.entries(given).map(([name, value]) => [name.toLowerCase(), value])),
  )
  .meta({ description: 'Sent with every request to the server. They go in and never come out.' })

const toolNames = z.array(line(200)).max(200)

const serverName = z
  .string()
  .max(32)
  .regex(/^[a-z0-9]+(-[a-z0-9]+)*$/, 'expected lower-case letters and digits, separated by single hyphens')

const allow = toolNames.meta({
  description: 'The tools that may be used, as the server names them; empty for all.',
})
const deny = toolNames.meta({ description: 'The tools that may not be used, as the server names them.' })
const timeoutMs = z
  .number()
  .int()
  .min(100)
  .max(600_000)
  .meta({ description: 'How long a call of one of its tools may take, in ms.' })

export const createMcpServerBody = z.strictObject({
  name: serverName,
  url: baseUrl,
  enabled: z.boolean().default(true),
  headers: headers.default({}),
  allow: allow.default([]),
  deny: deny.default([]),
  timeoutMs: timeoutMs.default(30_000),
})

export const updateMcpServerBody = z
  .strictObject({ url: baseUrl, enabled: z.boolean(), headers, allow, deny, timeoutMs })
  .partial()

export const userHeadersParams = z.object({ name: serverName })
export const userHeadersBody = z.strictObject({
  headers: headers.refine((given) => Object.keys(given).length > 0, 'expected a header'),
})

const hints = z.array(z.object({ name: z.string(), hint: z.string() }))

export const mcpServerAnswer = z
  .object({
    id,
    name: z.string(),
    url: z.string(),
    enabled: z.boolean(),
    headers: hints,
    allow: z.array(z.string()),
    deny: z.array(z.string()),
    timeoutMs: z.number(),
    createdAt: z.iso.datetime(),
  })
  .meta({ id: 'McpServer' })

export const userMcpServerAnswer = z
  .object({ name: z.string(), headers: hints })
  .meta({ id: 'UserMcpServer' })

export const mcpTestAnswer = z
  .object({
    tools: z.array(
      z.object({ name: z.string(), title: z.string(), readOnly: z.boolean(), idempotent: z.boolean() }),
    ),
    problems: z.array(z.string()),
  })
  .meta({ id: 'McpServerTest', description: 'What the server answers now, and what is wrong with it.' })
