import type { Logger } from '../telemetry/logger.ts'
import type { Tool, ToolSource } from './contract.ts'
import { withDefaultTimeout } from './define-tool.ts'

export interface ToolSourceOptions {
  /** The tools of this deployment, the same for everybody. */
  tools: readonly Tool[]
  /** Where further ones come from. */
  mcp: ToolSource
  /** How long a call of a tool may take that does not say so itself, in ms. */
  timeoutMs: number
  logger: Logger
  /** How many tools a turn is given at most. Providers take 128, and the turn loop adds its own. */
  maxTools?: number
}

const MAX_TOOLS = 110

/**
 * The tools of turns: static ones first, then those of MCP servers.
 *
 * T1 No two tools of a turn have the same name: of two, the later one is left out.
 *
 * @throws {Error} where two static tools have the same name, or there are more of them than a turn is given.
 */
export function createToolSource({
  tools,
  mcp,
  timeoutMs,
  logger,
  maxTools = MAX_TOOLS,
}: ToolSourceOptions): ToolSource {
  demandUnique(tools)
  if (tools.length > maxTools)
    throw new Error(`there are ${tools.length} tools, expected at most ${maxTools}`)
  const own = tools.map((tool) => withDefaultTimeout(tool, timeoutMs))
  const leaveOut = (name: string, why: string): void =>
    logger.warn({ tool: name }, `a tool of an MCP server was left out: ${why}`)
  return {
    toolsFor: async (owner, signal) => {
      const found = new Map(own.map((tool) => [tool.definition.name, tool]))
      for (const tool of await mcp.toolsFor(owner, signal)) {
        const { name } = tool.definition
        if (found.has(name)) leaveOut(name, 'its name is taken')
        else if (found.size >= maxTools) leaveOut(name, `a turn is given ${maxTools} tools at most`)
        else found.set(name, tool)
      }
      return [...found.values()]
    },
  }
}

/** A source that has nothing to give. */
export const noTools: ToolSource = { toolsFor: async () => [] }

function demandUnique(tools: readonly Tool[]): void {
  const seen = new Set<string>()
  for (const { definition } of tools) {
    if (seen.has(definition.name)) throw new Error(`there are two tools named ${definition.name}`)
    seen.add(definition.name)
  }
}
