import type { z } from 'zod'
import { TOOL_NAME } from '../protocol/tools.ts'
import type { Tool, ToolContext, ToolImage, ToolOutcome } from './contract.ts'
import { readInputSchema, type JsonSchema } from './input-schema.ts'

/** How long a call may take where a tool does not say, in ms. `TURNMILL_TOOL_TIMEOUT_MS` is put in its place. */
export const DEFAULT_TOOL_TIMEOUT_MS = 60_000

const MAX_TIMEOUT_MS = 86_400_000

/** What `inputSchema` may be: a schema of zod 4, or a JSON Schema of an object. */
export type ToolSchema = z.core.$ZodType | JsonSchema

/** What `execute` is given: with a zod schema its output, with a JSON Schema an object that fits it. */
export type ToolInput<S extends ToolSchema> = S extends z.core.$ZodType
  ? z.output<S>
  : Record<string, unknown>

/** A tool as it is written down. */
export interface ToolSpec<S extends ToolSchema> {
  /** `^[a-zA-Z0-9_-]{1,64}$`; unique among the tools of a deployment. */
  name: string
  /** For the model: what the tool does, and when to use it. */
  description: string
  inputSchema: S
  /**
   * Does the work. Answers with anything that JSON can say, or with `toolOutcome(…)`. What it throws, the model is told
   * the message of. Heeds `context.signal`: when that aborts, nobody waits any longer.
   */
  execute(input: ToolInput<S>, context: ToolContext): unknown
  /** Whether a call whose outcome was lost in a crash may be made again. By default what `readOnly` says. */
  idempotent?: boolean
  /** Whether it changes nothing outside: such tools are given to subagents that only explore. */
  readOnly?: boolean
  /** Whether a call waits for the user's approval. */
  needsApproval?: boolean | ((input: ToolInput<S>) => boolean)
  /** How long a call may take, in ms. */
  timeoutMs?: number
}

/** Marks what `toolOutcome` made, in any copy of this package. */
const OUTCOME = Symbol.for('turnmill.tool-outcome')

/** Marks a tool that does not say how long it may take. */
const DEFAULT_TIMEOUT = Symbol.for('turnmill.tool-default-timeout')

export interface OutcomeFields {
  output: unknown
  /** What the model is shown beside the output: PNG, JPEG, GIF or WebP. */
  images?: readonly ToolImage[]
  /** Tells the model that the call failed, and that `output` says why. */
  isError?: boolean
}

/** What a tool answers where an output alone does not say it. */
export const toolOutcome = ({ output, images = [], isError = false }: OutcomeFields): ToolOutcome =>
  Object.assign({ output, images, isError }, { [OUTCOME]: true })

/** What a tool answers that does not do what it was asked for. */
export const refusal = (output: string): ToolOutcome => toolOutcome({ output, isError: true })

/** Only `toolOutcome` leaves the mark, so that the rest of the shape is known. */
const isOutcome = (answer: unknown): answer is ToolOutcome =>
  typeof answer === 'object' && answer !== null && OUTCOME in answer

/** Whatever `execute` answered, as an outcome. */
const toOutcome = (answer: unknown): ToolOutcome =>
  isOutcome(answer) ? answer : { output: answer, isError: false, images: [] }

/**
 * A tool out of what is written down of it.
 *
 *     defineTool({
 *       name: 'weather',
 *       description: 'The weather in a town, now.',
 *       inputSchema: z.object({ town: z.string() }),
 *       readOnly: true,
 *       execute: ({ town }, { signal }) => fetchWeather(town, signal),
 *     })
 *
 * @throws {TypeError} naming the tool and what is wrong with its definition.
 */
export function defineTool<const S extends ToolSchema>(spec: ToolSpec<S>): Tool {
  demandSpec(spec)
  const schema = readSchemaOf(spec)
  const { name, description, readOnly = false, idempotent = readOnly, needsApproval = false } = spec
  const parse = (input: unknown): ToolInput<S> => schema.parse(input) as ToolInput<S>
  const check = (input: unknown): string | null => checkSafely(schema.check, input)
  const tool: Tool = {
    definition: { kind: 'function', name, description, inputSchema: schema.json },
    idempotent,
    readOnly,
    needsApproval: (input) =>
      typeof needsApproval === 'function'
        ? check(input) === null && asks(() => needsApproval(parse(input)))
        : needsApproval,
    check,
    timeoutMs: spec.timeoutMs ?? DEFAULT_TOOL_TIMEOUT_MS,
    execute: async (input, context) => toOutcome(await spec.execute(parse(input), context)),
  }
  return spec.timeoutMs === undefined ? Object.assign(tool, { [DEFAULT_TIMEOUT]: true }) : tool
}

/** The same tool, within this time where it does not name one of its own. */
export const withDefaultTimeout = (tool: Tool, timeoutMs: number): Tool =>
  DEFAULT_TIMEOUT in tool ? { ...tool, timeoutMs } : tool

/** A schema may run code of its author's. */
function checkSafely(check: (input: unknown) => string | null, input: unknown): string | null {
  try {
    return check(input)
  } catch (error) {
    return `it could not be checked: ${(error as Error).message}`
  }
}

/** Where it cannot be said whether a call needs an approval, it does. */
function asks(needsApproval: () => boolean): boolean {
  try {
    return needsApproval()
  } catch {
    return true
  }
}

function readSchemaOf({ name, inputSchema }: ToolSpec<ToolSchema>) {
  try {
    return readInputSchema(inputSchema)
  } catch (error) {
    throw new TypeError(`tool ${name}: ${(error as Error).message}`, { cause: error })
  }
}

/** Specs come from modules that no compiler may have seen. */
function demandSpec(spec: unknown): void {
  if (typeof spec !== 'object' || spec === null)
    throw new TypeError('defineTool was given no object, expected a tool')
  const { name, description, execute, timeoutMs, needsApproval, ...flags } = spec as Record<string, unknown>
  if (typeof name !== 'string' || !TOOL_NAME.test(name))
    throw new TypeError(`a tool is named ${JSON.stringify(name)}, expected ${TOOL_NAME}`)
  const demand = (holds: boolean, field: string, expected: string): void => {
    if (!holds) throw new TypeError(`tool ${name}: ${field} is not ${expected}`)
  }
  demand(typeof description === 'string' && description.trim() !== '', 'description', 'a text')
  demand(typeof execute === 'function', 'execute', 'a function')
  for (const flag of ['idempotent', 'readOnly'])
    demand(['boolean', 'undefined'].includes(typeof flags[flag]), flag, 'true or false')
  demand(
    ['boolean', 'function', 'undefined'].includes(typeof needsApproval),
    'needsApproval',
    'true, false or a function',
  )
  demand(
    timeoutMs === undefined ||
      (Number.isInteger(timeoutMs) && Number(timeoutMs) > 0 && Number(timeoutMs) <= MAX_TIMEOUT_MS),
    'timeoutMs',
    `a whole number from 1 to ${MAX_TIMEOUT_MS}`,
  )
}
