import { z } from 'zod'
import { BUDGET_PERIODS, BUDGET_SUBJECTS, USAGE_GROUPS } from '../gateway/index.ts'
import { exceedsEffort, findBadHeaders, type ExtraHeaders } from '../models/index.ts'
import { DEFAULT_SCOPES, SCOPES } from '../keys/index.ts'
import type { ContentPart } from '../files/index.ts'
import { REASONING_EFFORTS, toStorableJson, toStorableText } from '../protocol/messages.ts'
import { PROVIDER_TYPES, PURPOSES } from '../protocol/routes.ts'
import { TOOL_NAME } from '../protocol/tools.ts'
import { Secret } from '../protocol/secret.ts'

/** What routes take. What they answer stands in answers.ts. */

export const id = z.uuid().toLowerCase()

/** Text that Postgres can hold and that says something. */
const text = z.string().regex(/\S/, 'expected text that is not blank').transform(toStorableText)

export const line = (maximum: number) => z.string().min(1).max(maximum).transform(toStorableText)

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

/** The bytes of a request or an answer. */
export const bytes = z
  .custom<Buffer>((value) => Buffer.isBuffer(value), 'expected the bytes of a file')
  .meta({ type: 'string', format: 'binary' })

const message = {
  content,
  modelConfigId: id.nullish(),
  reasoningEffort: z.enum(REASONING_EFFORTS).nullish(),
}

/** Other headers pass as they are. */
export const idempotencyHeaders = z.looseObject({
  'idempotency-key': z
    .string()
    .regex(/^[\x20-\x7e]{1,255}$/, 'expected 1 to 255 characters of printable ASCII')
    .optional()
    .meta({
      description:
        'Makes it safe to send the request again: within 24 hours the same key with the same request is given the first answer, ' +
        'with `idempotency-replayed: true`, and nothing happens twice.',
    }),
})

/** A schema is kept as it is, and shown to models: it has to be JSON that can be kept, and not too much of it. */
const MAX_SCHEMA_CHARACTERS = 32_768

const toolSchema = z
  .record(z.string(), z.unknown())
  .refine((schema) => schema['type'] === 'object', 'expected a JSON Schema of type object')
  .transform((schema, context) => {
    const problem = (message: string) => {
      context.addIssue({ code: 'custom', message })
      return z.NEVER
    }
    if (JSON.stringify(schema).length > MAX_SCHEMA_CHARACTERS)
      return problem(`expected at most ${MAX_SCHEMA_CHARACTERS} characters of JSON`)
    try {
      return toStorableJson(schema) as Record<string, unknown>
    } catch (error) {
      return problem((error as Error).message)
    }
  })

const clientTool = z.strictObject({
  name: z.string().regex(TOOL_NAME, 'expected 1 to 64 letters, digits, _ or -'),
  description: z.string().max(10_000).transform(toStorableText).default(''),
  inputSchema: toolSchema.prefault({ type: 'object' }),
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

export const chatParams = z.object({ id })
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
    .max(100),
})

export const debugBody = z.strictObject({ minutes: z.number().int().min(0).max(1440) })
export const debugRunParams = z.object({ id, runId: id })

const page = z.object({ limit: z.coerce.number().int().min(1).max(200).default(50) })
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
export const debugRunsQuery = page.extend({ after: id.optional() })
export const messagesQuery = page.extend({ after: bigintCursor.optional() })
export const turnsQuery = page.extend({
  after: z
    .string()
    .regex(/^\d{1,9}$/)
    .optional(),
})

const secret = z
  .string()
  .min(1)
  .max(4096)
  .regex(/^[\x21-\x7e]+$/, 'expected printable ASCII without spaces')
  .transform((value) => new Secret(value))

/** Nothing but scheme, host, port and path: a credential in a URL would be stored in plain. */
const isPlainUrl = (value: string): boolean =>
  /^https?:\/\/[^\s@?#\\\u0000-\u001f]+$/i.test(value) && URL.canParse(value)

export const baseUrl = z
  .string()
  .max(2000)
  .refine(isPlainUrl, 'expected an http or https URL without credentials, query and fragment')

/** By their names in lower case, as they are sent. */
const extraHeaders = z
  .record(z.string().max(64), z.string().max(1000))
  .superRefine((headers, context) => {
    for (const message of findBadHeaders(headers)) context.addIssue({ code: 'custom', message })
  })
  .transform((headers): ExtraHeaders =>
    Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value])),
  )
  .meta({ description: 'Sent to the provider with every call. No credentials: those are `keys`.' })

export const createProviderBody = z.strictObject({
  name: z
    .string()
    .max(63)
    .regex(/^[a-z0-9]+(-[a-z0-9]+)*$/, 'expected lower-case letters and digits, separated by single hyphens'),
  type: z.enum(PROVIDER_TYPES),
  baseUrl,
  enabled: z.boolean().default(true),
  allowByok: z.boolean().default(false),
  attribution: z.boolean().default(false),
  extraHeaders: extraHeaders.default({}),
  keys: z.array(secret).max(20).default([]),
})

export const updateProviderBody = z
  .strictObject({
    baseUrl,
    enabled: z.boolean(),
    allowByok: z.boolean(),
    attribution: z.boolean(),
    extraHeaders,
  })
  .partial()

export const providerKeyBody = z.strictObject({ key: secret })
export const providerKeyOrderBody = z.strictObject({
  keyIds: z.array(id).max(1000).meta({ description: 'Each of its keys, once.' }),
})
export const providerKeyParams = z.object({ id, keyId: id })

const limitMicros = z
  .number()
  .int()
  .min(0)
  .max(Number.MAX_SAFE_INTEGER)
  .meta({ description: 'Micro-dollars.' })

export const createBudgetBody = z
  .strictObject({
    subject: z.enum(BUDGET_SUBJECTS),
    subjectId: id.nullish(),
    period: z.enum(BUDGET_PERIODS),
    limitMicros,
  })
  .refine(
    ({ subject, subjectId }) =>
      (subject === 'deployment') === (subjectId === undefined || subjectId === null),
    'expected subjectId for a key or a user, and none for the deployment',
  )

export const changeBudgetBody = z.strictObject({ limitMicros })

const tokens = z.number().int().min(1).max(2_000_000_000)
const price = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).nullable()
const unknownPrice = price.default(null)
const threshold = z.number().int().min(1).max(100).nullable().meta({
  description: 'Percent of the context window at which the history is compacted; null for the default.',
})

const effort = z.enum(REASONING_EFFORTS)

export const modelOptions = z
  .strictObject({
    temperature: z.number().min(0).max(2).optional(),
    reasoningEffort: effort.optional().meta({ description: 'Where the message asks for none.' }),
    maxReasoningEffort: effort.optional().meta({ description: 'The most that a message may ask for.' }),
    useResponsesApi: z.boolean().optional(),
    tools: z.boolean().optional().meta({ description: 'Whether the model takes tools at all.' }),
  })
  .refine(
    ({ reasoningEffort, maxReasoningEffort }) =>
      reasoningEffort === undefined ||
      maxReasoningEffort === undefined ||
      !exceedsEffort(reasoningEffort, maxReasoningEffort),
    'expected a reasoningEffort of maxReasoningEffort at most',
  )

export const createModelConfigBody = z.strictObject({
  providerId: id,
  model: line(200),
  displayName: line(200).optional(),
  enabled: z.boolean().default(true),
  isDefault: z.boolean().default(false).meta({ description: 'The first enabled one is the default anyway.' }),
  contextWindow: tokens.nullable().default(null),
  maxOutputTokens: tokens.nullable().default(null),
  compactionThreshold: threshold.default(null),
  options: modelOptions.default({}),
  prices: z
    .strictObject({
      input: unknownPrice,
      output: unknownPrice,
      cacheRead: unknownPrice,
      cacheWrite: unknownPrice,
    })
    .prefault({}),
})

export const updateModelConfigBody = z
  .strictObject({
    providerId: id,
    model: line(200),
    displayName: line(200),
    enabled: z.boolean(),
    isDefault: z.boolean(),
    contextWindow: tokens.nullable(),
    maxOutputTokens: tokens.nullable(),
    compactionThreshold: threshold,
    options: modelOptions.meta({ description: 'Replaced as a whole.' }),
    prices: z.strictObject({ input: price, output: price, cacheRead: price, cacheWrite: price }).partial(),
  })
  .partial()

export const overrideParams = z.object({ purpose: z.enum(PURPOSES) })
export const overrideBody = z.strictObject({ modelConfigId: id })

export const userProviderKeyParams = z.object({ provider: z.string().regex(/^[a-z0-9-]{1,63}$/) })
export const userProviderKeyBody = z.strictObject({ key: secret })

export const createUserBody = z.strictObject({
  name: line(200),
  email: z.email().max(320).nullish(),
  role: z.enum(['admin', 'member']).default('member'),
})

export const updateUserBody = z
  .strictObject({
    name: line(200),
    email: z.email().max(320).nullable(),
    role: z.enum(['admin', 'member']),
    status: z.enum(['active', 'suspended']),
  })
  .partial()

export const createApiKeyBody = z.strictObject({
  name: line(200),
  userId: id.optional(),
  scopes: z
    .array(z.enum(SCOPES))
    .min(1)
    .default([...DEFAULT_SCOPES]),
  expiresAt: z.iso
    .datetime({ offset: true })
    .refine(
      (value) => Date.parse(value) > 0 && Date.parse(value) < Date.UTC(9999, 0),
      'expected a date before the year 9999',
    )
    .nullish(),
})

export const idParams = z.object({ id })

const moment = z.iso
  .datetime({ offset: true })
  .refine(
    (value) => Date.parse(value) >= 0 && Date.parse(value) < Date.UTC(9999, 0),
    'expected a date from 1970 on',
  )

export const usageQuery = z.object({
  from: moment
    .optional()
    .meta({ description: 'The first moment; 30 days before `to` where it is left out.' }),
  to: moment.optional().meta({ description: 'The first moment after it; now where it is left out.' }),
  groupBy: z.enum(USAGE_GROUPS).optional().meta({ description: 'Days are those of UTC.' }),
  userId: id.optional(),
  apiKeyId: id.optional(),
  chatId: id.optional(),
})
