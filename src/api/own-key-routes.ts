import { z } from 'zod'
import * as models from '../models/index.ts'
import { principalOf } from './authentication.ts'
import type { ApiContext, ApiServer } from './context.ts'
import { effectsOf } from './effects.ts'
import * as answers from './answers.ts'
import * as schemas from './schemas.ts'

const read = { scope: 'chats:read' } as const
const write = { scope: 'chats:write' } as const
const tags = ['me']

/** The caller's own provider keys (BYOK). They go in and never come out. */
export function registerOwnKeyRoutes(app: ApiServer, { encryption }: ApiContext): void {
  app.get('/v1/me/provider-keys', {
    config: read,
    schema: {
      tags,
      summary: 'List your own keys for providers, as hints',
      response: { 200: z.object({ items: z.array(answers.userProviderKeyAnswer) }) },
    },
    handler: async (request) => ({
      items: await models.listUserProviderKeys(effectsOf(request).db, principalOf(request).userId),
    }),
  })

  app.put('/v1/me/provider-keys/:provider', {
    config: write,
    schema: {
      tags,
      summary: 'Store your own key for a provider (BYOK)',
      params: schemas.userProviderKeyParams,
      body: schemas.userProviderKeyBody,
      response: { 200: answers.userProviderKeyAnswer },
    },
    handler: async (request) => {
      const owner = { userId: principalOf(request).userId, providerName: request.params.provider }
      return models.putUserProviderKey(effectsOf(request).db, encryption, owner, request.body.key)
    },
  })

  app.delete('/v1/me/provider-keys/:provider', {
    config: write,
    schema: {
      tags,
      summary: 'Delete your own key for a provider',
      params: schemas.userProviderKeyParams,
      response: { 204: z.null() },
    },
    handler: async (request, reply) => {
      await models.deleteUserProviderKey(
        effectsOf(request).db,
        principalOf(request).userId,
        request.params.provider,
      )
      return reply.code(204).send(null)
    },
  })
}
