import { newId } from '../../src/protocol/ids.ts'
import type { Tool, ToolContext, ToolOutcome } from '../../src/tools/index.ts'
import { runTool } from '../../src/tools/index.ts'

/** A call's place, made up. */
export const toolContext = (signal = new AbortController().signal): ToolContext => ({
  signal,
  chatId: newId(),
  turnId: newId(),
  step: 0,
  toolCallId: 'call-1',
  userId: newId(),
  apiKeyId: newId(),
})

export const LIMITS = { outputBytes: 256 * 1024 }

/** Calls a tool as the turn loop does. */
export const run = (
  tool: Tool | undefined,
  input: unknown = {},
  signal?: AbortSignal,
): Promise<ToolOutcome> => {
  if (tool === undefined) throw new Error('there is no such tool')
  return runTool(tool, input, toolContext(signal), LIMITS)
}

/** A picture of one pixel. */
export const PNG = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
  'base64',
)
