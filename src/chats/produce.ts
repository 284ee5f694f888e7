import { batch, withTransaction, type Database, type Statement, type Transaction } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import type { MessagePart, ReasoningEffort } from '../protocol/messages.ts'
import type { FunctionTool } from '../protocol/tools.ts'
import type { ChatView, MessageView, QueuedMessageView, TurnView } from '../protocol/views.ts'
import { toAdmittedTurns, type PoolSlots } from './admission.ts'
import * as effectSql from './effect-statements.ts'
import { carryOut, type Committed, type RowsOf } from './effects.ts'
import { fallbackTitle } from './fallback-title.ts'
import { lockDescendants, type Descendant } from './families.ts'
import { lockOwnChat, type LockedChat } from './lock.ts'
import { decideMove, type ChatMove } from './moves.ts'
import * as sql from './produce-statements.ts'
import { statesBefore } from './states.ts'
import { toChatView, toMessageView, toQueuedMessageView, toTurnView, type JsonRow } from './views.ts'

export interface ProducerLimits {
  /** Queued messages per chat. */
  queueLimit: number
  /** Pending turns per user. */
  pendingTurns: number
  slots: PoolSlots
}

/** Who acts: the owner the chat is looked up for, and the API key that goes onto the turn. */
export interface Initiator {
  userId: string
  /** `null` only for what a turn without a key sends on. */
  apiKeyId: string | null
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
  /** Tools that the client answers itself. */
  clientTools: readonly Omit<FunctionTool, 'kind'>[]
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

export type Sent = Started | { queuedMessage: QueuedMessageView }

interface StartedRow {
  message: JsonRow
  turn: JsonRow
}

const toStarted = (row: StartedRow): Started => ({
  message: toMessageView(row.message),
  turn: toTurnView(row.turn),
})

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
    input.reasoningEffort, input.title, input.labels, input.systemPrompt, fallbackTitle(input.parts),
    JSON.stringify(input.clientTools),
  ) // prettier-ignore
  const admit = effectSql.admit(userId, 'root', limits.slots.root)
  const [created = [], admitted = []] = await batch(db, [insert, admit])
  const row = created[0] as (StartedRow & { chat: JsonRow }) | undefined
  if (row === undefined) throw tooManyPending(limits)
  return {
    result: { chat: toChatView(row.chat), ...toStarted(row) },
    admitted: toAdmittedTurns(admitted),
    stopped: [],
    changed: [],
    parentId: null,
  }
}

const COMMAND_OF = { queue: 'send', interrupt: 'send, interrupting', reject: 'send, rejecting' } as const

/** Commits a message: with a turn of its own where the chat is free, onto the chat's queue where it is busy. */
export const sendMessage = (
  db: Database,
  limits: ProducerLimits,
  initiator: Initiator,
  input: SendInput,
): Promise<Committed<Sent>> => withTransaction(db, (tx) => sendWithin(tx, limits, initiator, input))

/** As `sendMessage`, at the end of a transaction that has begun: it is committed with it. */
export async function sendWithin(
  tx: Transaction,
  limits: ProducerLimits,
  initiator: Initiator,
  input: SendInput,
): Promise<Committed<Sent>> {
  const chat = await lockOwnChat(tx, input.chatId, initiator.userId)
  const move = decideMove(COMMAND_OF[input.whenBusy], chat)
  // Refused before anything is done, so that a refusal changes nothing.
  if (move.does.includes('append') && chat.queued >= limits.queueLimit) throw queueFull(chat, limits)
  const scope = { tx, chat, move, limits, initiator }
  return move.does.includes('start') ? startTurn(scope, input) : appendMessage(scope, input)
}

/** Replaces a user message: the running turn and the queue are superseded, and all from the message on is removed. */
export function editMessage(
  db: Database,
  limits: ProducerLimits,
  initiator: Initiator,
  input: EditInput,
): Promise<Committed<Started>> {
  return withTransaction(db, async (tx) => {
    const chat = await lockOwnChat(tx, input.chatId, initiator.userId)
    const move = decideMove('edit', chat)
    await demandEditable(tx, input.chatId, input.messageId)
    const descendants = await lockSpawnedFrom(tx, chat, input.messageId)
    const { rows, ...aftermath } = await carryOut({
      tx,
      chat,
      move,
      slots: limits.slots,
      own: {
        supersede: [
          effectSql.supersedeTurn(chat.id, statesBefore('supersede')),
          effectSql.supersedeQueues([chat.id]),
          effectSql.deleteMessagesFrom(chat.id, input.messageId),
          effectSql.showCompressed(chat.id, input.messageId),
          sql.renameByFallback(chat.id, input.messageId, fallbackTitle(input.parts)),
        ],
        start: [insertTurn({ chat, limits, initiator }, input, 'edit')],
      },
      descendants,
      check: (found) => void startedRow(found, limits),
    })
    return { result: toStarted(startedRow(rows, limits)), ...aftermath }
  })
}

/** The subagents that go with the messages that an edit removes. */
async function lockSpawnedFrom(tx: Transaction, chat: LockedChat, messageId: string): Promise<Descendant[]> {
  if (!chat.hasChildren) return []
  const turns = await tx.query<{ id: string }>(sql.turnsFrom(chat.id, messageId))
  return lockDescendants(
    tx,
    chat.id,
    turns.map(({ id }) => id),
  )
}

interface ProduceScope {
  tx: Transaction
  chat: LockedChat
  move: ChatMove
  limits: ProducerLimits
  initiator: Initiator
}

async function startTurn(scope: ProduceScope, input: SendInput): Promise<Committed<Started>> {
  const { tx, chat, move, limits } = scope
  const { rows, ...aftermath } = await carryOut({
    tx,
    chat,
    move,
    slots: limits.slots,
    own: { start: [insertTurn(scope, input, 'send')] },
    // Alone it writes all or nothing; with other effects it is looked at before they are committed.
    ...(move.does.length > 1 && { check: (found: RowsOf) => void startedRow(found, limits) }),
  })
  return { result: toStarted(startedRow(rows, limits)), ...aftermath }
}

async function appendMessage(
  { tx, chat, move, limits, initiator }: ProduceScope,
  input: SendInput,
): Promise<Committed<Sent>> {
  const append = sql.appendQueued(
    chat.id, limits.queueLimit, JSON.stringify(input.parts), initiator.apiKeyId, initiator.userId,
    input.modelConfigId, input.reasoningEffort,
  ) // prettier-ignore
  const { rows, ...aftermath } = await carryOut({
    tx,
    chat,
    move,
    slots: limits.slots,
    own: { append: [append] },
  })
  const [row] = rows<{ queued: JsonRow }>(append.name)
  if (row === undefined) throw queueFull(chat, limits)
  return { result: { queuedMessage: toQueuedMessageView(row.queued) }, ...aftermath }
}

const insertTurn = (
  { chat, limits, initiator }: Pick<ProduceScope, 'chat' | 'limits' | 'initiator'>,
  input: MessageInput,
  trigger: 'send' | 'edit',
): Statement =>
  sql.insertMessageAndTurn(
    chat.id, newId(), chat.userId, limits.pendingTurns, initiator.apiKeyId, JSON.stringify(input.parts),
    input.modelConfigId, input.reasoningEffort, trigger, chat.pool,
  ) // prettier-ignore

function startedRow(rows: RowsOf, limits: ProducerLimits): StartedRow {
  const [row] = rows<StartedRow>('chats/insert-message-and-turn')
  if (row === undefined) throw tooManyPending(limits)
  return row
}

export function tooManyPending(limits: ProducerLimits): TurnmillError {
  const message = `${limits.pendingTurns} turns of this user are pending, expected fewer; wait until some have run`
  return new TurnmillError('too_many_pending_turns', message, { retryAfterMs: 5000 })
}

const queueFull = (chat: LockedChat, limits: ProducerLimits): TurnmillError =>
  new TurnmillError(
    'queue_full',
    `chat ${chat.id} holds ${limits.queueLimit} queued messages, expected fewer`,
  )

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
