import { z } from 'zod'
import { isErrorCode, type ErrorCode } from '../protocol/errors.ts'
import { IMAGE_TYPES, REASONING_EFFORTS } from '../protocol/messages.ts'
import { PROVIDER_TYPES, PURPOSES } from '../protocol/routes.ts'
import { AUXILIARY_PURPOSES, RUN_STATES, TURN_STATES } from '../protocol/views.ts'
import { BUDGET_PERIODS, BUDGET_SUBJECTS, USAGE_GROUPS } from '../gateway/index.ts'
import { id, modelOptions } from './schemas.ts'

/** What routes answer, for the reference: answers are built from typed views. */

const time = z.iso.datetime()
const nullable = <T extends z.ZodType>(schema: T) => schema.nullable()

const errorCode = z.custom<ErrorCode>(isErrorCode).meta({ type: 'string' })
const storedError = z
  .object({ code: errorCode, message: z.string(), recovery: z.enum(['retry', 'stop']) })
  .meta({ id: 'StoredError' })

const usage = z
  .object({
    inputTokens: z.number(),
    outputTokens: z.number(),
    cacheReadTokens: z.number(),
    cacheWriteTokens: z.number(),
    reasoningTokens: z.number(),
    estimated: z.boolean(),
  })
  .meta({ id: 'Usage' })

const imagePart = z.object({
  type: z.literal('image'),
  fileId: id,
  mediaType: z.enum(IMAGE_TYPES),
})

const messagePart = z
  .discriminatedUnion('type', [
    imagePart,
    z.object({ type: z.literal('text'), text: z.string() }),
    z.object({
      type: z.literal('reasoning'),
      text: z.string(),
      providerData: z.record(z.string(), z.unknown()).optional(),
    }),
    z.object({
      type: z.literal('tool-call'),
      toolCallId: z.string(),
      toolName: z.string(),
      input: z.unknown(),
      inputError: z.string().optional(),
      providerData: z.record(z.string(), z.unknown()).optional(),
    }),
    z.object({
      type: z.literal('tool-result'),
      toolCallId: z.string(),
      toolName: z.string(),
      output: z.unknown(),
      isError: z.boolean(),
      images: z.array(imagePart).optional(),
    }),
  ])
  .meta({ id: 'MessagePart' })

export const chatAnswer = z
  .object({
    id,
    title: nullable(z.string()),
    titleError: nullable(storedError),
    status: z.enum(['idle', 'failed', 'pending', 'running', 'interrupting', 'requires_action', 'waiting']),
    statusLabel: nullable(z.string()),
    activeTurnId: nullable(id),
    lastTurnId: nullable(id),
    modelConfigId: nullable(id),
    labels: z.array(z.string()),
    parentId: nullable(id),
    systemPrompt: nullable(z.string()),
    lastError: nullable(storedError),
    archivedAt: nullable(time),
    snapshotVersion: z.number(),
    historyVersion: z.number(),
    queueVersion: z.number(),
    createdAt: time,
    updatedAt: time,
  })
  .meta({ id: 'Chat' })

export const auxiliaryRunAnswer = z
  .object({
    id,
    chatId: id,
    purpose: z.enum(AUXILIARY_PURPOSES),
    state: z.enum(RUN_STATES),
    apiKeyId: nullable(id),
    createdAt: time,
  })
  .meta({ id: 'AuxiliaryRun' })

export const messageAnswer = z
  .object({
    id: z.string(),
    chatId: id,
    turnId: nullable(id),
    step: z.number(),
    role: z.enum(['user', 'assistant', 'tool', 'system']),
    parts: z.array(messagePart),
    boundary: nullable(z.enum(['clear', 'compaction'])),
    compressed: z.boolean(),
    revision: z.number(),
    apiKeyId: nullable(id),
    modelConfigId: nullable(id),
    finishReason: nullable(z.string()),
    usage: nullable(usage),
    costMicros: nullable(z.number()),
    createdAt: time,
  })
  .meta({ id: 'Message' })

const retryState = z
  .object({ step: z.number(), attempts: z.number(), error: storedError, retryAt: time })
  .meta({ id: 'RetryState', description: 'The last attempt that failed, and when the next one begins.' })

export const turnAnswer = z
  .object({
    id,
    chatId: id,
    number: z.number(),
    trigger: z.enum(['create', 'send', 'edit', 'promote', 'subagent', 'compact', 'retry']),
    state: z.enum(TURN_STATES),
    epoch: z.number(),
    apiKeyId: nullable(id),
    userMessageId: nullable(z.string()),
    modelConfigId: nullable(id),
    error: nullable(storedError),
    retry: nullable(retryState),
    usage: nullable(usage),
    costMicros: nullable(z.number()),
    revision: z.number(),
    createdAt: time,
    claimedAt: nullable(time),
    firstPartAt: nullable(time),
    finishedAt: nullable(time),
  })
  .meta({ id: 'Turn' })

export const queuedMessageAnswer = z
  .object({
    id: z.string(),
    chatId: id,
    parts: z.array(messagePart),
    apiKeyId: nullable(id),
    modelConfigId: nullable(id),
    reasoningEffort: nullable(z.enum(REASONING_EFFORTS)),
    createdAt: time,
  })
  .meta({ id: 'QueuedMessage' })

export const fileAnswer = z
  .object({ id, mediaType: z.enum(IMAGE_TYPES), size: z.number(), createdAt: time })
  .meta({ id: 'File' })

const debugRun = {
  id,
  chatId: id,
  turnId: nullable(id),
  step: nullable(z.number()),
  attempt: nullable(z.number()),
  purpose: z.string(),
  modelConfigId: nullable(id),
  method: z.string(),
  path: z.string(),
  status: nullable(z.number()),
  createdAt: time,
  finishedAt: nullable(time),
  expiresAt: time,
}

export const debugRunSummaryAnswer = z.object(debugRun).meta({ id: 'DebugRunSummary' })

const headers = z.record(z.string(), z.string())

export const debugRunAnswer = z
  .object({
    ...debugRun,
    request: z.object({
      method: z.string(),
      path: z.string(),
      headers,
      body: z.unknown().meta({ description: 'JSON; its text where it is none, or too long.' }),
    }),
    response: nullable(
      z.object({
        status: nullable(z.number()),
        headers,
        body: z.string(),
        ending: z.enum(['complete', 'broken', 'left']),
        error: z.string().optional(),
      }),
    ),
  })
  .meta({ id: 'DebugRun', description: 'A recorded model call, without secrets.' })

export const pageOf = <T extends z.ZodType>(item: T) =>
  z.object({
    items: z.array(item),
    next: nullable(z.string()).meta({ description: 'Goes into the next request as `after`.' }),
  })

export const startedAnswer = z.object({ message: messageAnswer, turn: turnAnswer })

export const providerAnswer = z
  .object({
    id,
    name: z.string(),
    type: z.enum(PROVIDER_TYPES),
    baseUrl: z.string(),
    enabled: z.boolean(),
    allowByok: z.boolean(),
    attribution: z.boolean(),
    extraHeaders: z.record(z.string(), z.string()),
    keys: z.array(z.object({ id, position: z.number(), hint: z.string() })),
    createdAt: time,
  })
  .meta({ id: 'Provider' })

const priceAnswer = nullable(z.number())
const prices = z
  .object({ input: priceAnswer, output: priceAnswer, cacheRead: priceAnswer, cacheWrite: priceAnswer })
  .meta({ id: 'Prices', description: 'Micro-dollars per million tokens; null where they are not known.' })

export const modelConfigAnswer = z
  .object({
    id,
    providerId: nullable(id),
    model: z.string(),
    displayName: z.string(),
    enabled: z.boolean(),
    isDefault: z.boolean(),
    contextWindow: nullable(z.number()),
    maxOutputTokens: nullable(z.number()),
    compactionThreshold: nullable(z.number()),
    options: modelOptions,
    prices,
    createdAt: time,
  })
  .meta({ id: 'ModelConfig' })

export const modelOverrideAnswer = z
  .object({ purpose: z.enum(PURPOSES), modelConfigId: id, createdAt: time })
  .meta({ id: 'ModelOverride' })

const effort = nullable(z.enum(REASONING_EFFORTS))

export const modelAnswer = z
  .object({
    id,
    model: z.string(),
    displayName: z.string(),
    provider: nullable(z.object({ name: z.string(), type: z.enum(PROVIDER_TYPES) })),
    isDefault: z.boolean(),
    contextWindow: nullable(z.number()),
    maxOutputTokens: nullable(z.number()),
    reasoning: z.object({ default: effort, max: effort }),
    prices,
    usable: z.boolean().meta({ description: 'Whether a call of yours may be made with it.' }),
    reason: nullable(errorCode).meta({ description: 'What such a call would fail with.' }),
    credential: nullable(z.enum(['byok', 'central'])).meta({
      description: 'Whose credential it would be made with.',
    }),
  })
  .meta({ id: 'Model' })

export const userProviderKeyAnswer = z
  .object({ provider: z.string(), hint: z.string() })
  .meta({ id: 'UserProviderKey' })

export const apiKeyAnswer = z
  .object({
    id,
    userId: id,
    name: z.string(),
    scopes: z.array(z.string()),
    expiresAt: nullable(time),
    revokedAt: nullable(time),
    lastUsedAt: nullable(time),
    createdAt: time,
  })
  .meta({ id: 'ApiKey' })

export const userAnswer = z
  .object({
    id,
    name: z.string(),
    email: nullable(z.string()),
    role: z.string(),
    status: z.string(),
    createdAt: time,
  })
  .meta({ id: 'User' })

export const problem = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.number(),
    code: z.string(),
    detail: z.string(),
    requestId: z.string(),
  })
  .meta({ id: 'Problem', description: 'RFC 9457. `code` is listed in docs/errors.md.' })

export const providerKeyAnswer = z
  .object({ id, position: z.number(), hint: z.string() })
  .meta({ id: 'ProviderKey' })

export const budgetAnswer = z
  .object({
    id,
    subject: z.enum(BUDGET_SUBJECTS),
    subjectId: nullable(id),
    period: z.enum(BUDGET_PERIODS),
    limitMicros: z.number(),
    spentMicros: z.number(),
    reservedMicros: z.number(),
  })
  .meta({ id: 'Budget' })

const sums = {
  inputTokens: z.number(),
  outputTokens: z.number(),
  cacheReadTokens: z.number(),
  cacheWriteTokens: z.number(),
  reasoningTokens: z.number(),
  costMicros: z.number().meta({ description: 'Micro-dollars, of what has a price.' }),
  estimated: z.number().meta({ description: 'How many of them hold a count of our own.' }),
  unpriced: z
    .number()
    .meta({ description: 'How many of them have no price, and are missing in costMicros.' }),
}

const callSums = z
  .object({
    calls: z.number(),
    failed: z.number().meta({
      description: 'Refused by the provider, or broken off; not what its caller left, as an interrupt does.',
    }),
    underWay: z.number(),
    ...sums,
  })
  .meta({ id: 'CallSums', description: 'Model calls through the gateway, summed.' })

export const usageAnswer = z
  .object({
    from: time,
    to: time,
    groupBy: nullable(z.enum(USAGE_GROUPS)),
    total: callSums,
    items: z.array(callSums.extend({ group: z.string() })).meta({
      description:
        'The dearest first; days in their order. `group` is an ID, a name, `provider/model`, a purpose or a day.',
    }),
    more: z.boolean().meta({ description: 'Whether there are more groups than are shown.' }),
  })
  .meta({ id: 'UsageReport' })

export const chatUsageAnswer = z
  .object({
    turns: z
      .object({ turns: z.number(), ...sums })
      .meta({ description: 'What the turns of the chat say, kept as long as the chat is.' }),
    calls: callSums,
    purposes: z.array(callSums.extend({ purpose: z.string() })).meta({
      description: 'What the gateway has recorded and not yet forgotten.',
    }),
  })
  .meta({ id: 'ChatUsage' })
