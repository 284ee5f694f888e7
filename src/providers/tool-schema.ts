import type { FunctionTool } from '../protocol/tools.ts'

/** The schema of a tool's arguments. OpenAI refuses an object without `properties`, Anthropic one without a type. */
export const schemaOf = ({
  inputSchema,
}: Pick<FunctionTool, 'inputSchema'>): Record<string, unknown> & { type: 'object' } => ({
  properties: {},
  ...inputSchema,
  type: 'object',
})
