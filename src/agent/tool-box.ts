import type { Claim } from '../chats/index.ts'
import type { FunctionTool, ToolDefinition } from '../protocol/tools.ts'
import type { Tool } from '../tools/index.ts'

/** A tool of a turn, and who answers its calls. */
export type TurnTool =
  /** Ours or an MCP server's: whatever it throws is a result. */
  | { kind: 'server'; tool: Tool }
  /** It changes chats under this claim: where the turn is lost, so is the call. */
  | { kind: 'turn'; tool: Tool }
  /** Its calls end when subagents do; meanwhile the turn waits without a slot. */
  | { kind: 'wait'; tool: Tool }
  /** Declared by the client. */
  | { kind: 'client'; definition: FunctionTool }

export interface ToolBox {
  definitions: readonly ToolDefinition[]
  find(name: string): TurnTool | undefined
}

/** What is in a turn's box: its own tools, and those of the worker. */
export interface ToolBoxContents {
  server: readonly Tool[]
  /** For an agent that uses a computer, and for it alone. */
  computer: readonly Tool[]
  turn: readonly TurnTool[]
}

/** What providers take; the worker's come last, and are the ones left out. */
const MAX_TOOLS = 128

/**
 * Puts together what the model of a turn may ask for. Where two have one name, what the client declares comes first,
 * then the turn's own.
 *
 * An `explore` subagent is given only what changes nothing outside; a `computer_use` one that, and its computer.
 */
export function fillToolBox(claim: Claim, { server, computer, turn }: ToolBoxContents): ToolBox {
  const mayOnlyLook = claim.subagentType === 'explore' || claim.subagentType === 'computer_use'
  const chosen = [
    ...(claim.subagentType === 'computer_use' ? computer : []),
    ...(mayOnlyLook ? server.filter((tool) => tool.readOnly) : server),
  ]
  const byName = new Map<string, TurnTool>()
  const offered: TurnTool[] = [
    ...claim.clientTools.map((definition) => ({ kind: 'client' as const, definition })),
    ...turn,
    ...chosen.map((tool) => ({ kind: 'server' as const, tool })),
  ]
  for (const tool of offered) {
    const { name } = definitionOf(tool)
    if (!byName.has(name) && byName.size < MAX_TOOLS) byName.set(name, tool)
  }
  return {
    definitions: [...byName.values()].map(definitionOf),
    find: (name) => byName.get(name),
  }
}

const definitionOf = (tool: TurnTool): ToolDefinition =>
  tool.kind === 'client' ? tool.definition : tool.tool.definition
