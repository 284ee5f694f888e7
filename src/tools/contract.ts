import type { ImageType } from '../protocol/messages.ts'
import type { ToolDefinition } from '../protocol/tools.ts'

/** Whose call it is, and until when it is wanted. */
export interface ToolContext {
  /** Aborts when the turn is stopped or lost, or the call's time is up. */
  signal: AbortSignal
  chatId: string
  turnId: string
  step: number
  toolCallId: string
  /** The owner of the chat. */
  userId: string
  /** The initiator of the turn. */
  apiKeyId: string | null
}

/** An image that a tool made. */
export interface ToolImage {
  mediaType: ImageType
  bytes: Uint8Array
}

/** What a tool answers. */
export interface ToolOutcome {
  /** Any JSON; with `isError` what went wrong, for the model to read. */
  output: unknown
  isError: boolean
  images: readonly ToolImage[]
}

/** A tool as the turn loop uses it. Made by `defineTool`, or out of what an MCP server lists. */
export interface Tool {
  definition: ToolDefinition
  /** A call whose outcome was lost is made again; of any other the model is told that its outcome is unknown. */
  idempotent: boolean
  /** Changes nothing outside: what an `explore` subagent may use. */
  readOnly: boolean
  /** Whether a call waits for the user's approval. */
  needsApproval(input: unknown): boolean
  /** What is wrong with an input, naming the field; `null` where nothing is. */
  check(input: unknown): string | null
  /** How long a call may take, in ms. */
  timeoutMs: number
  /**
   * What calls of a step share where they must not overlap: those of all tools that name the same thing run one after the
   * other, in the order in which the model asked. All others run at once.
   */
  sequence?: string
  /** Called with an input that `check` has passed. May throw, hang, or answer with anything: the runner sees to it. */
  execute(input: unknown, context: ToolContext): Promise<ToolOutcome>
}

/** Whose tools are asked for. */
export interface ToolOwner {
  chatId: string
  userId: string
}

/** Gives the tools of a turn. */
export interface ToolSource {
  /**
   * A source that fails gives none, and says so in the log.
   *
   * @throws the signal's reason once it aborts; `database_unavailable`: a turn that went on without its tools would
   *   answer open calls as those of tools that do not exist.
   */
  toolsFor(owner: ToolOwner, signal: AbortSignal): Promise<readonly Tool[]>
}
