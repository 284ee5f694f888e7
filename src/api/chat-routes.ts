import type { FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { Initiator, MessageInput, PageRequest } from '../chats/index.ts'
import { storeContent, type ContentPart } from '../files/index.ts'
import { demandModelConfig } from '../models/index.ts'
import type { MessagePart, ReasoningEffort } from '../protocol/messages.ts'
import { principalOf } from './authentication.ts'
import type { ApiContext, ApiServer } from './context.ts'
import { effectsOf } from './effects.ts'
import * as answers from './answers.ts'
import * as schemas from './chat-schemas.ts'
import { idParams } from './schemas.ts'
import { withoutUndefined } from './without-undefined.ts'

const initiatorOf = (request: FastifyRequest): Initiator => {
  const { userId, apiKeyId } = principalOf(request)
  return { userId, apiKeyId }
}

interface MessageBody {
  content: ContentPart[]
  modelConfigId?: string | null | undefined
  reasoningEffort?: ReasoningEffort | null | undefined
}

const toPageRequest = ({ limit, after }: { limit: number; after?: string | undefined }): PageRequest => ({
  limit,
  after: after ?? null,
})

const read = { scope: 'chats:read' } as const
const write = { scope: 'chats:write' } as const
const makeTurn = { ...write, makesTurn: true } as const
const tags = ['chats']

/** Chats, their messages and their queue. */
export function registerChatRoutes(app: ApiServer, { chats, config }: ApiContext): void {
  const store = (request: FastifyRequest, content: readonly ContentPart[]): Promise<MessagePart[]> => {
    const owner = { userId: principalOf(request).userId, limitBytes: config.filesPerUserBytes }
    return storeContent(effectsOf(request).db, owner, content)
  }
  const toMessageInput = async (request: FastifyRequest, body: MessageBody): Promise<MessageInput> => {
    await demandModelConfig(effectsOf(request).db, body.modelConfigId ?? null)
    return {
      parts: await store(request, body.content),
      modelConfigId: body.modelConfigId ?? null,
      reasoningEffort: body.reasoningEffort ?? null,
    }
  }

  app.post('/v1/chats', {
    config: makeTurn,
    schema: {
      tags,
      summary: 'Create a chat with its first message',
      body: schemas.createChatBody,
      response: { 201: answers.startedAnswer.extend({ chat: answers.chatAnswer }) },
    },
    handler: async (request, reply) => {
      const { title, labels, systemPrompt, clientTools, ...message } = request.body
      const input = {
        ...(await toMessageInput(request, message)),
        title: title ?? null,
        labels: labels ?? [],
        systemPrompt: systemPrompt ?? null,
        clientTools: clientTools ?? [],
      }
      return reply.code(201).send(await effectsOf(request).chats.create(initiatorOf(request), input))
    },
  })

  app.get('/v1/chats', {
    config: read,
    schema: {
      tags,
      summary: 'List your chats, newest first',
      querystring: schemas.chatsQuery,
      response: { 200: answers.pageOf(answers.chatAnswer) },
    },
    handler: async (request) => {
      const { status, label, text, archived } = request.query
      const chosen = { status: status ?? null, label: label ?? null, text: text ?? null }
      return chats.list(principalOf(request).userId, {
        ...toPageRequest(request.query),
        ...chosen,
        archived: archived === 'true',
      })
    },
  })

  app.get('/v1/chats/:id', {
    config: read,
    schema: {
      tags,
      summary: 'Read a chat',
      params: idParams,
      response: { 200: answers.chatAnswer },
    },
    handler: async (request) => chats.get(request.params.id, principalOf(request).userId),
  })

  app.patch('/v1/chats/:id', {
    config: write,
    schema: {
      tags,
      summary: 'Change title, labels or model, or archive the chat with its subagents',
      params: idParams,
      body: schemas.changeChatBody,
      response: { 200: answers.chatAnswer },
    },
    handler: async (request) => {
      await demandModelConfig(effectsOf(request).db, request.body.modelConfigId ?? null)
      return effectsOf(request).chats.change(
        initiatorOf(request),
        request.params.id,
        withoutUndefined(request.body),
      )
    },
  })

  app.delete('/v1/chats/:id', {
    config: write,
    schema: {
      tags,
      summary: 'Delete the chat with its subagents; what runs is stopped',
      params: idParams,
      response: { 204: z.null() },
    },
    handler: async (request, reply) => {
      await effectsOf(request).chats.delete(initiatorOf(request), request.params.id)
      return reply.code(204).send(null)
    },
  })

  app.post('/v1/chats/:id/messages', {
    config: makeTurn,
    schema: {
      tags,
      summary: 'Send a message; a busy chat queues it',
      params: idParams,
      body: schemas.sendMessageBody,
      response: {
        202: z.union([answers.startedAnswer, z.object({ queuedMessage: answers.queuedMessageAnswer })]),
      },
    },
    handler: async (request, reply) => {
      const { whenBusy, ...message } = request.body
      const input = { ...(await toMessageInput(request, message)), chatId: request.params.id, whenBusy }
      return reply.code(202).send(await effectsOf(request).chats.send(initiatorOf(request), input))
    },
  })

  app.get('/v1/chats/:id/messages', {
    config: read,
    schema: {
      tags,
      summary: 'List the committed messages, oldest first',
      params: idParams,
      querystring: schemas.messagesQuery,
      response: { 200: answers.pageOf(answers.messageAnswer) },
    },
    handler: async (request) => {
      await chats.get(request.params.id, principalOf(request).userId)
      return chats.messages(request.params.id, toPageRequest(request.query))
    },
  })

  app.patch('/v1/chats/:id/messages/:messageId', {
    config: makeTurn,
    schema: {
      tags,
      summary: 'Edit a user message: everything after it is removed and the turn runs anew',
      params: schemas.messageParams,
      body: schemas.editMessageBody,
      response: { 202: answers.startedAnswer },
    },
    handler: async (request, reply) => {
      const { id: chatId, messageId } = request.params
      const input = { ...(await toMessageInput(request, request.body)), chatId, messageId }
      return reply.code(202).send(await effectsOf(request).chats.edit(initiatorOf(request), input))
    },
  })

  app.post('/v1/chats/:id/interrupt', {
    config: write,
    schema: {
      tags,
      summary: 'Stop what the chat is doing; what there is of the answer is kept, and the queue goes on',
      params: idParams,
      response: { 202: answers.chatAnswer },
    },
    handler: async (request, reply) =>
      reply.code(202).send(await effectsOf(request).chats.interrupt(initiatorOf(request), request.params.id)),
  })

  app.get('/v1/chats/:id/queue', {
    config: read,
    schema: {
      tags,
      summary: 'List the queued messages, next first',
      params: idParams,
      response: { 200: z.object({ items: z.array(answers.queuedMessageAnswer) }) },
    },
    handler: async (request) => {
      await chats.get(request.params.id, principalOf(request).userId)
      return { items: await chats.queue(request.params.id) }
    },
  })

  app.patch('/v1/chats/:id/queue/:queuedId', {
    config: write,
    schema: {
      tags,
      summary: 'Edit a queued message, or move it (position 0 is next)',
      params: schemas.queuedParams,
      body: schemas.changeQueuedBody,
      response: { 200: answers.queuedMessageAnswer },
    },
    handler: async (request) => {
      const { id: chatId, queuedId: queuedMessageId } = request.params
      const { content, position } = request.body
      const parts = content === undefined ? null : await store(request, content)
      const change = { chatId, queuedMessageId, parts, position: position ?? null }
      return effectsOf(request).chats.changeQueued(initiatorOf(request), change)
    },
  })

  app.delete('/v1/chats/:id/queue/:queuedId', {
    config: write,
    schema: {
      tags,
      summary: 'Take a message out of the queue',
      params: schemas.queuedParams,
      response: { 204: z.null() },
    },
    handler: async (request, reply) => {
      const { id: chatId, queuedId: queuedMessageId } = request.params
      await effectsOf(request).chats.deleteQueued(initiatorOf(request), { chatId, queuedMessageId })
      return reply.code(204).send(null)
    },
  })

  app.post('/v1/chats/:id/queue/:queuedId/promote', {
    config: write,
    schema: {
      tags,
      summary: 'Run a queued message next; what runs is stopped',
      params: schemas.queuedParams,
      response: { 202: answers.chatAnswer },
    },
    handler: async (request, reply) => {
      const { id: chatId, queuedId: queuedMessageId } = request.params
      return reply
        .code(202)
        .send(await effectsOf(request).chats.promoteQueued(initiatorOf(request), { chatId, queuedMessageId }))
    },
  })

  app.post('/v1/chats/:id/retry', {
    config: makeTurn,
    schema: {
      tags,
      summary: 'Run the failed turn again, under your key',
      params: idParams,
      response: { 202: z.object({ turn: answers.turnAnswer }) },
    },
    handler: async (request, reply) =>
      reply
        .code(202)
        .send({ turn: await effectsOf(request).chats.retry(initiatorOf(request), request.params.id) }),
  })

  app.post('/v1/chats/:id/compact', {
    config: makeTurn,
    schema: {
      tags,
      summary: 'Sum the history up, in a turn of its own and under your key',
      params: idParams,
      response: { 202: z.object({ turn: answers.turnAnswer }) },
    },
    handler: async (request, reply) => {
      const turn = await effectsOf(request).chats.compactHistory(initiatorOf(request), request.params.id)
      return reply.code(202).send({ turn })
    },
  })

  app.post('/v1/chats/:id/clear', {
    config: write,
    schema: {
      tags,
      summary: 'Begin the model’s context anew; what was said stays readable',
      params: idParams,
      response: { 200: answers.chatAnswer },
    },
    handler: async (request) => effectsOf(request).chats.clear(initiatorOf(request), request.params.id),
  })

  app.post('/v1/chats/:id/title', {
    config: write,
    schema: {
      tags,
      summary: 'Have a model name the chat anew, under your key; the chat changes once it has',
      params: idParams,
      response: { 202: z.object({ run: answers.auxiliaryRunAnswer }) },
    },
    handler: async (request, reply) => {
      const run = await effectsOf(request).chats.requestTitle(initiatorOf(request), request.params.id)
      return reply.code(202).send({ run })
    },
  })

  app.post('/v1/chats/:id/tool-results', {
    config: write,
    schema: {
      tags,
      summary: 'Answer all tool calls that wait for the client; the turn goes on',
      params: idParams,
      body: schemas.toolResultsBody,
      response: { 202: z.object({ turn: answers.turnAnswer }) },
    },
    handler: async (request, reply) => {
      const { id: chatId } = request.params
      const turn = await effectsOf(request).chats.submitToolResults(
        initiatorOf(request),
        chatId,
        request.body.results,
      )
      return reply.code(202).send({ turn })
    },
  })

  app.get('/v1/chats/:id/turns', {
    config: read,
    schema: {
      tags,
      summary: 'List the turns, newest first',
      params: idParams,
      querystring: schemas.turnsQuery,
      response: { 200: answers.pageOf(answers.turnAnswer) },
    },
    handler: async (request) => {
      await chats.get(request.params.id, principalOf(request).userId)
      return chats.turns(request.params.id, toPageRequest(request.query))
    },
  })
}
