export type { Tool, ToolContext, ToolImage, ToolOutcome, ToolOwner, ToolSource } from './contract.ts'
export { defineTool, toolOutcome } from './define-tool.ts'
export { runTool } from './run-tool.ts'
