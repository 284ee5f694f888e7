import { z } from 'zod'
import { listDebugRuns, readDebugRun } from '../models/index.ts'
import { principalOf } from './authentication.ts'
import type { ApiContext, ApiServer } from './context.ts'
import { effectsOf } from './effects.ts'
import * as answers from './answers.ts'
import * as schemas from './schemas.ts'

const tags = ['chats']

/** Recording the model calls of a chat, and reading what was recorded. */
export function registerDebugRoutes(app: ApiServer, { chats }: Pick<ApiContext, 'chats'>): void {
  app.put('/v1/chats/:id/debug', {
    config: { scope: 'chats:write' },
    schema: {
      tags,
      summary: 'Record the model calls of the chat and its subagents for some minutes; 0 stops it',
      params: schemas.idParams,
      body: schemas.debugBody,
      response: { 200: z.object({ debugUntil: z.iso.datetime().nullable() }) },
    },
    handler: async (request) => {
      const { userId, apiKeyId } = principalOf(request)
      const { id: chatId } = request.params
      const { minutes } = request.body
      return { debugUntil: await effectsOf(request).chats.debug({ userId, apiKeyId }, chatId, minutes) }
    },
  })

  app.get('/v1/chats/:id/debug-runs', {
    config: { scope: 'chats:read' },
    schema: {
      tags,
      summary: 'List the recorded model calls, newest first',
      params: schemas.idParams,
      querystring: schemas.debugRunsQuery,
      response: { 200: answers.pageOf(answers.debugRunSummaryAnswer) },
    },
    handler: async (request) => {
      await chats.get(request.params.id, principalOf(request).userId)
      const { limit, after = null } = request.query
      return listDebugRuns(effectsOf(request).db, request.params.id, { limit, after })
    },
  })

  app.get('/v1/chats/:id/debug-runs/:runId', {
    config: { scope: 'chats:read' },
    schema: {
      tags,
      summary: 'Read a recorded model call',
      params: schemas.debugRunParams,
      response: { 200: answers.debugRunAnswer },
    },
    handler: async (request) => {
      await chats.get(request.params.id, principalOf(request).userId)
      return readDebugRun(effectsOf(request).db, request.params.id, request.params.runId)
    },
  })
}
