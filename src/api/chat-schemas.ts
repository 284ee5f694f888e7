import { z } from 'zod'
import type { ContentPart } from '../files/index.ts'
import { REASONING_EFFORTS, toStorableJson, toStorableText } from '../protocol/messages.ts'
import { TOOL_NAME } from '../protocol/tools.ts'
import { toToolSchema, type JsonSchema } from '../tools/index.ts'
import { id, line, page } from './schemas.ts'

/** What the routes of chats take. */

/** Text that Postgres can hold and that says something. */
const text = z.string().regex(/\S/, 'expected text that is not blank').transform(toStorableText)

/** Images of one message. */
const MAX_IMAGES = 20

const MAX_PARTS = 100
const COUNT_OF_PARTS = `expected 1 to ${MAX_PARTS} parts`

const contentPart = z.union(
  [
    z.strictObject({ type: z.literal('text'), text }),
    z.strictObject({
      type: z.literal('image'),
      image: z.string().meta({ description: '`data:image/png;base64,…`; counts into the size of the body.' }),
    }),
    z.strictObject({
      type: z.literal('image'),
      fileId: id.meta({ description: 'A file of yours, as `POST /v1/files` named it.' }),
    }),
  ],
  'expected {"type": "text", "text": "…"} with text that is not blank, or {"type": "image"} with a data URL as image, or a fileId',
)

/** What is wrong with the kind of content that was sent: a text, or a list. */
const describeContent: z.core.$ZodErrorMap<z.core.$ZodIssueInvalidUnion> = ({ input, errors }) => {
  const found = typeof input === 'string' ? errors[0] : Array.isArray(input) ? errors[1] : undefined
  const [first] = found ?? []
  if (first === undefined) return 'expected a text, or a list of parts'
  return [...first.path.map(String), first.message].join(': ')
}

const content = z
  .union(
    [
      text.transform((value): ContentPart[] => [{ type: 'text', text: value }]),
      z
        .array(contentPart)
        .min(1, COUNT_OF_PARTS)
        .max(MAX_PARTS, COUNT_OF_PARTS)
        .refine(
          (parts) => parts.filter((part) => part.type === 'image').length <= MAX_IMAGES,
          `expected ${MAX_IMAGES} images at most`,
        ),
    ],
    { error: describeContent },
  )
  .meta({
    description: `A string, or an array of parts: texts, and up to ${MAX_IMAGES} images (PNG, JPEG, GIF or WebP).`,
  })

const message = {
  content,
  modelConfigId: id.nullish(),
  reasoningEffort: z.enum(REASONING_EFFORTS).nullish(),
}

/** Schemas are shown to models: they have to be what every provider takes, and not too much of it. */
const MAX_SCHEMA_CHARACTERS = 32_768

/** One schema that a provider refuses fails every turn of its chat, so it is refused with the chat. */
function toUsableSchema(schema: JsonSchema): JsonSchema | string {
  try {
    // What is nested without end cannot be written either.
    if (JSON.stringify(toStorableJson(schema)).length > MAX_SCHEMA_CHARACTERS)
      return `is too long, expected at most ${MAX_SCHEMA_CHARACTERS} characters of JSON`
  } catch (error) {
    return `cannot be told to a model: ${(error as Error).message}`
  }
  return toToolSchema(schema)
}

const clientTool = z
  .strictObject({
    name: z.string().regex(TOOL_NAME, 'expected 1 to 64 letters, digits, _ or -'),
    description: z.string().max(10_000).transform(toStorableText).default(''),
    inputSchema: z.record(z.string(), z.unknown()).prefault({ type: 'object' }),
  })
  .transform(({ inputSchema, ...tool }, context) => {
    const usable = toUsableSchema(inputSchema)
    if (typeof usable !== 'string') return { ...tool, inputSchema: usable }
    const message = `the schema of the tool ${JSON.stringify(tool.name)} ${usable}`
    context.addIssue({ code: 'custom', path: ['inputSchema'], message })
    return z.NEVER
  })

const clientTools = z
  .array(clientTool)
  .max(64)
  .refine(
    (tools) => new Set(tools.map(({ name }) => name)).size === tools.length,
    'expected names that differ',
  )
  .meta({ description: 'Tools that the client answers itself, by `POST …/tool-results`.' })

export const createChatBody = z.strictObject({
  ...message,
  title: line(200).nullish(),
  labels: z.array(line(64)).max(20).optional(),
  systemPrompt: z.string().max(200_000).transform(toStorableText).nullish(),
  clientTools: clientTools.optional(),
})

export const sendMessageBody = z.strictObject({
  ...message,
  whenBusy: z.enum(['queue', 'interrupt', 'reject']).default('queue'),
})

export const editMessageBody = z.strictObject(message)

export const changeQueuedBody = z
  .strictObject({ content, position: z.number().int().min(0).max(10_000) })
  .partial()
  .refine((body) => body.content !== undefined || body.position !== undefined, 'expected content or position')

export const queuedParams = z.object({ id, queuedId: z.string().regex(/^\d{1,18}$/) })

/** Where a watcher left off: the id of the last event it has. */
export const streamQuery = z.object({ after: z.string().max(200).optional() })
export const streamHeaders = z.object({ 'last-event-id': z.string().max(200).optional() })

export const messageParams = z.object({ id, messageId: z.string().regex(/^\d{1,18}$/) })

export const changeChatBody = z
  .strictObject({
    title: line(200).nullable(),
    labels: z.array(line(64)).max(20),
    archived: z.boolean(),
    modelConfigId: id.nullable(),
  })
  .partial()
  .refine(
    (body) => Object.values(body).some((value) => value !== undefined),
    'expected title, labels, archived or modelConfigId',
  )

/** Any JSON that can be kept and shown to a model. */
const anyJson = z.unknown().transform((value, context) => {
  try {
    return toStorableJson(value)
  } catch (error) {
    context.addIssue({ code: 'custom', message: (error as Error).message })
    return z.NEVER
  }
})

export const toolResultsBody = z.strictObject({
  results: z
    .array(
      z.strictObject({
        toolCallId: z.string().min(1).max(1000),
        output: anyJson.optional(),
        isError: z.boolean().optional(),
        approved: z.boolean().optional(),
      }),
    )
    .min(1)
    // All that a step has asked for is answered together, and a model may ask for many.
    .max(10_000),
})

const bigintCursor = z.string().regex(/^\d{1,18}$/)
export const chatsQuery = page.extend({
  after: id.optional(),
  status: z
    .enum(['idle', 'failed', 'pending', 'running', 'interrupting', 'requires_action', 'waiting'])
    .optional(),
  label: line(64).optional(),
  text: line(200)
    .optional()
    .meta({ description: 'Found in the title or in what was said, whatever its case.' }),
  archived: z.enum(['true', 'false']).default('false'),
})
export const messagesQuery = page.extend({ after: bigintCursor.optional() })
export const turnsQuery = page.extend({
  after: z
    .string()
    .regex(/^\d{1,9}$/)
    .optional(),
})
