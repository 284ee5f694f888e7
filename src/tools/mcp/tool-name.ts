import { createHash } from 'node:crypto'

const MAX_LENGTH = 64
const HASH_LENGTH = 8

/**
 * What models are told a server's tool is called. A name that has to be changed to be one ends in a hash of what it was,
 * so that two tools never come to have the same. Names of servers hold no underscore, so no server can pass for another.
 */
export function mcpToolName(server: string, tool: string): string {
  const name = `mcp__${server}__${tool.replaceAll(/[^a-zA-Z0-9_-]/g, '_')}`
  if (name.length <= MAX_LENGTH && name.endsWith(`__${tool}`)) return name
  const hash = createHash('sha256').update(`${server}\n${tool}`).digest('hex').slice(0, HASH_LENGTH)
  return `${name.slice(0, MAX_LENGTH - HASH_LENGTH - 1)}_${hash}`
}
