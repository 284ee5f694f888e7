import { z } from 'zod'
import { BUDGET_PERIODS, BUDGET_SUBJECTS, USAGE_GROUPS } from '../gateway/index.ts'
import { exceedsEffort, findBadHeaders, type ExtraHeaders } from '../models/index.ts'
import { DEFAULT_SCOPES, SCOPES } from '../keys/index.ts'
import { REASONING_EFFORTS, toStorableText } from '../protocol/messages.ts'
import { PROVIDER_TYPES, PURPOSES } from '../protocol/routes.ts'
import { Secret } from '../protocol/secret.ts'

/** What routes take, but for those of chats and of MCP servers. What they answer stands in answers.ts. */

export const id = z.uuid().toLowerCase()

export const line = (maximum: number) => z.string().min(1).max(maximum).transform(toStorableText)

/** The bytes of a request or an answer. */
export const bytes = z
  .custom<Buffer>((value) => Buffer.isBuffer(value), 'expected the bytes of a file')
  .meta({ type: 'string', format: 'binary' })

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

export const debugBody = z.strictObject({ minutes: z.number().int().min(0).max(1440) })
export const debugRunParams = z.object({ id, runId: id })

export const page = z.object({ limit: z.coerce.number().int().min(1).max(200).default(50) })
export const debugRunsQuery = page.extend({ after: id.optional() })
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
