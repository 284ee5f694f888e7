import { batch, withTransaction, type Database, type Statement, type Transaction } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import type { MessagePart, ReasoningEffort } from '../protocol/messages.ts'
import { toAdmittedTurns, type AdmittedTurn } from './admission.ts'
import { interruptLocked } from './interrupt.ts'
import { lockOwnChat, type LockedChat } from './lock.ts'
import * as sql from './produce-statements.ts'
import { isBusy, statesBefore } from './states.ts'
import type { ChatView, MessageView, QueuedMessageView, TurnView } from '../protocol/views.ts'
import { toChatView, toMessageView, toQueuedMessageView, toTurnView, type JsonRow } from './views.ts'

export interface ProducerLimits {
  /** Queued messages per chat. */
  queueLimit: number
  /** Running turns per user, root pool. */
  runningRootTurns: number
  /** Pending turns per user. */
  pendingTurns: number
}

/** Who acts: the owner the chat is looked up for, and the API key that goes onto the turn. */
export interface Initiator {
  userId: string
  apiKeyId: string
}

export interface MessageInput {
  parts: MessagePart[]
  modelConfigId: string | null
  reasoningEffort: ReasoningEffort | null
}

export interface CreateInput extends MessageInput {
  title: string | null
  labels: string[]
  systemPrompt: string | null
}

export interface SendInput extends MessageInput {
  chatId: string
  /** What to do where a turn runs: wait in the queue, stop it and wait, or be refused. */
  whenBusy: 'queue' | 'interrupt' | 'reject'
}

export interface EditInput extends MessageInput {
  chatId: string
  messageId: string
}

export interface Started {
  message: MessageView
  turn: TurnView
}

/** A committed change, and the turns that now have a slot and wait for their job. */
export interface Committed<T> {
  result: T
  admitted: AdmittedTurn[]
  /** The turn whose worker is to stop. */
  stopTurnId?: string | null
}

/** Commits a chat, its first message and its turn. One round trip. */
export async function createChat(
  db: Database,
  limits: ProducerLimits,
  initiator: Initiator,
  input: CreateInput,
): Promise<Committed<Started & { chat: ChatView }>> {
  const { userId, apiKeyId } = initiator
  const insert = sql.insertChat(
    newId(), newId(), userId, limits.pendingTurns, apiKeyId, JSON.stringify(input.parts), input.modelConfigId,
    input.reasoningEffort, input.title, input.labels, input.systemPrompt,
  ) // prettier-ignore
  const [created = [], admitted = []] = await batch(db, [insert, admitRoot(userId, limits)])
  const row = created[0] as { chat: JsonRow; message: JsonRow; turn: JsonRow } | undefined
  if (row === undefined) throw tooManyPending(limits)
  return {
    result: { chat: toChatView(row.chat), ...toStarted(row) },
    admitted: toAdmittedTurns(admitted),
  }
}

/** Commits a message: with a turn of its own where the chat is free, onto the chat's queue where it is busy. */
export function sendMessage(
  db: Database,
  limits: ProducerLimits,
  initiator: Initiator,
  input: SendInput,
): Promise<Committed<Started | { queuedMessage: QueuedMessageView }>> {
  return withTransaction<Committed<Started | { queuedMessage: QueuedMessageView }>>(db, async (tx) => {
    const chat = await lockOwnChat(tx, input.chatId, initiator.userId)
    // A failed chat keeps its queue, and what is sent then goes behind it; an idle one has none (I7).
    const queued = chat.status === 'failed' ? await countQueued(tx, input.chatId) : 0
    const scope = { tx, limits, initiator }
    if (!isBusy(chat.status) && queued === 0) return startTurn(scope, input)
    // Refused before the promotion, so that a refusal changes nothing.
    if (queued >= limits.queueLimit) throw queueFull(input.chatId, limits)
    if (input.whenBusy === 'reject')
      throw new TurnmillError(
        'chat_busy',
        `chat ${input.chatId} is ${chat.status}, expected idle with an empty queue`,
      )
    if (input.whenBusy === 'interrupt' && isBusy(chat.status)) return interruptFor(scope, chat, input)
    return enqueueMessage(scope, input, chat.status === 'failed')
  })
}

/** Replaces a user message: the running turn and the queue are superseded, and all from the message on is removed. */
export function editMessage(
  db: Database,
  limits: ProducerLimits,
  initiator: Initiator,
  input: EditInput,
): Promise<Committed<Started>> {
  return withTransaction(db, async (tx) => {
    await lockOwnChat(tx, input.chatId, initiator.userId)
    await demandEditable(tx, input.chatId, input.messageId)
    await Promise.all([
      tx.query(sql.supersedeTurn(input.chatId, statesBefore('supersede'))),
      tx.query(sql.supersedeQueue(input.chatId)),
      tx.query(sql.deleteMessagesFrom(input.chatId, input.messageId)),
    ])
    const [row] = await tx.query<StartedRow>(insertTurn(limits, initiator, input, 'edit'))
    if (row === undefined) throw tooManyPending(limits)
    const [admitted = []] = await tx.commitWith([admitRoot(initiator.userId, limits)])
    return { result: toStarted(row), admitted: toAdmittedTurns(admitted) }
  })
}

interface StartedRow {
  message: JsonRow
  turn: JsonRow
}

const toStarted = (row: StartedRow): Started => ({
  message: toMessageView(row.message),
  turn: toTurnView(row.turn),
})

const admitRoot = (userId: string, limits: ProducerLimits): Statement =>
  sql.admit(userId, 'root', limits.runningRootTurns)

function tooManyPending(limits: ProducerLimits): TurnmillError {
  const message = `${limits.pendingTurns} turns of this user are pending, expected fewer; wait until some have run`
  return new TurnmillError('too_many_pending_turns', message, { retryAfterMs: 5000 })
}

const queueFull = (chatId: string, limits: ProducerLimits): TurnmillError =>
  new TurnmillError('queue_full', `chat ${chatId} holds ${limits.queueLimit} queued messages, expected fewer`)

async function countQueued(tx: Transaction, chatId: string): Promise<number> {
  const [row] = await tx.query<{ queued: number }>(sql.countQueued(chatId))
  return row?.queued ?? 0
}

const insertTurn = (
  limits: ProducerLimits,
  { userId, apiKeyId }: Initiator,
  input: MessageInput & { chatId: string },
  trigger: 'send' | 'edit',
): Statement =>
  sql.insertMessageAndTurn(
    input.chatId, newId(), userId, limits.pendingTurns, apiKeyId, JSON.stringify(input.parts), input.modelConfigId,
    input.reasoningEffort, trigger,
  ) // prettier-ignore

interface ProduceScope {
  tx: Transaction
  limits: ProducerLimits
  initiator: Initiator
}

async function startTurn(
  { tx, limits, initiator }: ProduceScope,
  input: SendInput,
): Promise<Committed<Started>> {
  const insert = insertTurn(limits, initiator, input, 'send')
  const [rows = [], admitted = []] = await tx.commitWith([insert, admitRoot(initiator.userId, limits)])
  const row = rows[0] as StartedRow | undefined
  if (row === undefined) throw tooManyPending(limits)
  return { result: toStarted(row), admitted: toAdmittedTurns(admitted) }
}

const appendQueued = ({ limits, initiator }: ProduceScope, input: SendInput): Statement =>
  sql.appendQueued(
    input.chatId, limits.queueLimit, JSON.stringify(input.parts), initiator.apiKeyId, initiator.userId,
    input.modelConfigId, input.reasoningEffort,
  ) // prettier-ignore

async function enqueueMessage(
  scope: ProduceScope,
  input: SendInput,
  promote: boolean,
): Promise<Committed<{ queuedMessage: QueuedMessageView }>> {
  const { tx, limits, initiator } = scope
  const promotion = promote
    ? [sql.promoteHead(input.chatId, newId()), admitRoot(initiator.userId, limits)]
    : []
  const [rows = [], , admitted = []] = await tx.commitWith([appendQueued(scope, input), ...promotion])
  const row = rows[0] as { queued: JsonRow } | undefined
  if (row === undefined) throw queueFull(input.chatId, limits)
  return { result: { queuedMessage: toQueuedMessageView(row.queued) }, admitted: toAdmittedTurns(admitted) }
}

/** Appends the message and stops what runs, so that the queue's head is next. */
async function interruptFor(
  scope: ProduceScope,
  chat: LockedChat,
  input: SendInput,
): Promise<Committed<{ queuedMessage: QueuedMessageView }>> {
  const { tx, limits, initiator } = scope
  const [row] = await tx.query<{ queued: JsonRow }>(appendQueued(scope, input))
  if (row === undefined) throw queueFull(input.chatId, limits)
  const request = { chatId: input.chatId, userId: initiator.userId, slots: limits.runningRootTurns }
  const interrupted = await interruptLocked(tx, chat, request)
  return { result: { queuedMessage: toQueuedMessageView(row.queued) }, ...interrupted }
}

async function demandEditable(tx: Transaction, chatId: string, messageId: string): Promise<void> {
  const [message] = await tx.query<{ role: string; deleted_at: Date | null }>(
    sql.readMessage(chatId, messageId),
  )
  if (message === undefined)
    throw new TurnmillError('not_found', `message ${messageId} does not exist in chat ${chatId}`)
  if (message.deleted_at !== null)
    throw new TurnmillError('message_not_editable', `message ${messageId} is no longer part of the history`)
  if (message.role !== 'user')
    throw new TurnmillError(
      'message_not_editable',
      `message ${messageId} is of role ${message.role}, expected user`,
    )
}
