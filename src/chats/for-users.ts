import type { Bound } from './bound.ts'
import { debugChat } from './debug.ts'
import { interruptChat } from './interrupt.ts'
import * as manage from './manage.ts'
import * as produce from './produce.ts'
import * as queue from './queue.ts'
import * as read from './read.ts'
import { compactChat, retryChat } from './retry.ts'
import * as titles from './titles.ts'
import * as toolResults from './tool-results.ts'
import * as watch from './watch.ts'

/** What users do with their chats, and see of them. */
export function bindForUsers({ db, slots, limits, publish, publishing, onRuns, onChanged }: Bound) {
  return {
    async create(initiator: produce.Initiator, input: produce.CreateInput) {
      const { result, ...aftermath } = await produce.createChat(db, limits, initiator, input)
      await publish(result.chat.id, aftermath)
      return result
    },
    send: (initiator: produce.Initiator, input: produce.SendInput) =>
      publishing(input.chatId, produce.sendMessage(db, limits, initiator, input)),
    edit: (initiator: produce.Initiator, input: produce.EditInput) =>
      publishing(input.chatId, produce.editMessage(db, limits, initiator, input)),
    retry: (initiator: produce.Initiator, chatId: string) =>
      publishing(chatId, retryChat(db, { ...initiator, slots }, chatId)),
    /** Sums the history up in a turn of its own. */
    compactHistory: (initiator: produce.Initiator, chatId: string) =>
      publishing(chatId, compactChat(db, { ...initiator, limits }, chatId)),
    clear: (initiator: produce.Initiator, chatId: string) =>
      publishing(chatId, manage.clearChat(db, slots, initiator, chatId)),
    async interrupt(initiator: produce.Initiator, chatId: string) {
      await publishing(chatId, interruptChat(db, slots, { chatId, userId: initiator.userId }))
      return read.readChat(db, chatId, initiator.userId)
    },
    submitToolResults: (
      initiator: produce.Initiator,
      chatId: string,
      answers: readonly toolResults.ToolAnswer[],
    ) =>
      publishing(
        chatId,
        toolResults.submitToolResults(db, slots, { chatId, userId: initiator.userId }, answers),
      ),
    async requestTitle(initiator: produce.Initiator, chatId: string) {
      const { run, runs } = await titles.requestTitle(db, initiator, chatId)
      await onRuns(runs)
      return run
    },
    async change(initiator: produce.Initiator, chatId: string, change: manage.ChatChange) {
      const { result, changed } = await manage.changeChat(db, { chatId, userId: initiator.userId }, change)
      for (const id of [chatId, ...changed]) onChanged(id)
      return result
    },
    /** Gives until when the chat's model calls are recorded. */
    async debug(initiator: produce.Initiator, chatId: string, minutes: number): Promise<string | null> {
      const until = await debugChat(db, { chatId, userId: initiator.userId }, minutes)
      onChanged(chatId)
      return until
    },
    delete: (initiator: produce.Initiator, chatId: string) =>
      publishing(chatId, manage.deleteChat(db, slots, { chatId, userId: initiator.userId })),

    async changeQueued(initiator: produce.Initiator, change: queue.QueuedChange) {
      const changed = await queue.changeQueued(db, initiator, change)
      onChanged(change.chatId)
      return changed
    },
    async deleteQueued(initiator: produce.Initiator, target: queue.QueuedTarget) {
      await queue.deleteQueued(db, initiator.userId, target)
      onChanged(target.chatId)
    },
    async promoteQueued(initiator: produce.Initiator, target: queue.QueuedTarget) {
      const promoter = { userId: initiator.userId, slots }
      await publishing(target.chatId, queue.promoteQueued(db, promoter, target))
      return read.readChat(db, target.chatId, initiator.userId)
    },

    get: (chatId: string, userId: string) => read.readChat(db, chatId, userId),
    list: (userId: string, page: read.ChatsRequest) => read.listChats(db, userId, page),
    messages: (chatId: string, page: read.PageRequest) => read.listMessages(db, chatId, page),
    turns: (chatId: string, page: read.PageRequest) => read.listTurns(db, chatId, page),
    queue: (chatId: string) => read.listQueue(db, chatId),
    changes: (chatId: string, userId: string | null, since: number) =>
      watch.readChanges(db, chatId, userId, since),
    isRewritten: (chatId: string, since: number) => watch.isRewritten(db, chatId, since),
    versions: (chatIds: readonly string[]) => watch.readVersions(db, chatIds),
  }
}
