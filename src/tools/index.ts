export { createBuiltinTools, type BuiltinToolOptions, type GuardedFetch } from './builtin/index.ts'
export type { Tool, ToolContext, ToolImage, ToolOutcome, ToolOwner, ToolSource } from './contract.ts'
export {
  defineTool,
  refusal,
  toolOutcome,
  type OutcomeFields,
  type ToolInput,
  type ToolSchema,
  type ToolSpec,
} from './define-tool.ts'
export { toToolSchema, type JsonSchema } from './input-schema.ts'
export { loadToolModule } from './load-module.ts'
export {
  createMcpServerLoader,
  getUsersMcpServer,
  type LoadMcpServers,
  type McpServer,
} from './mcp/load-servers.ts'
export {
  createMcpTools,
  testMcpServer,
  type McpServerTest,
  type McpTools,
  type McpToolsOptions,
} from './mcp/mcp-tools.ts'
export * from './mcp/servers.ts'
export { runTool } from './run-tool.ts'
export { failure, settleOutcome, type OutcomeLimits } from './settle-outcome.ts'
export { createToolSource, noTools, type ToolSourceOptions } from './tool-source.ts'
