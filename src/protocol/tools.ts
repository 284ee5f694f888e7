/** A tool as a model is told of it. */
export interface FunctionTool {
  kind: 'function'
  /** `^[a-zA-Z0-9_-]{1,64}$`: what all providers take. */
  name: string
  description: string
  /** JSON Schema of an object. */
  inputSchema: Record<string, unknown>
}

/** The provider's own tool for using a computer. The actions come as calls of the tool named `computer`. */
export interface ComputerTool {
  kind: 'computer'
  name: typeof COMPUTER_TOOL
  /** In pixels. */
  width: number
  height: number
}

export type ToolDefinition = FunctionTool | ComputerTool

export const COMPUTER_TOOL = 'computer'

/** What a name of a tool may be made of. */
export const TOOL_NAME = /^[a-zA-Z0-9_-]{1,64}$/

/** What an agent that another one spawned is for. */
export const SUBAGENT_TYPES = ['general', 'explore', 'computer_use'] as const
export type SubagentType = (typeof SUBAGENT_TYPES)[number]

/** The tools that come with Turnmill; `TURNMILL_BUILTIN_TOOLS` chooses among them. */
export const BUILTIN_TOOLS = ['current_time', 'calculator', 'web_fetch'] as const
export type BuiltinTool = (typeof BUILTIN_TOOLS)[number]
