import { z } from 'zod'
import * as models from '../models/index.ts'
import { principalOf } from './authentication.ts'
import type { ApiContext, ApiServer } from './context.ts'
import { effectsOf } from './effects.ts'
import * as answers from './answers.ts'
import * as schemas from './schemas.ts'
import { withoutUndefined } from './without-undefined.ts'

const admin = { scope: 'admin' } as const
const tags = ['models']

/** Providers and model configs, and the caller's own provider keys. Secrets go in and never come out. */
export function registerModelRoutes(app: ApiServer, { config, encryption }: ApiContext): void {
  const destinations = { allowPrivate: config.allowPrivateProviders ?? false }
  app.post('/v1/providers', {
    config: admin,
    schema: {
      tags,
      summary: 'Create a provider',
      body: schemas.createProviderBody,
      response: { 201: answers.providerAnswer },
    },
    handler: async (request, reply) => {
      await models.checkDestination(request.body.baseUrl, destinations)
      return reply
        .code(201)
        .send(await models.createProvider(effectsOf(request).db, encryption, request.body))
    },
  })

  app.get('/v1/providers', {
    config: admin,
    schema: {
      tags,
      summary: 'List the providers',
      response: { 200: z.object({ items: z.array(answers.providerAnswer) }) },
    },
    handler: async (request) => ({ items: await models.listProviders(effectsOf(request).db) }),
  })

  app.patch('/v1/providers/:id', {
    config: admin,
    schema: {
      tags,
      summary: 'Change a provider',
      params: schemas.idParams,
      body: schemas.updateProviderBody,
      response: { 200: answers.providerAnswer },
    },
    handler: async (request) => {
      const { baseUrl } = request.body
      if (baseUrl !== undefined) await models.checkDestination(baseUrl, destinations)
      return models.updateProvider(effectsOf(request).db, request.params.id, withoutUndefined(request.body))
    },
  })

  app.delete('/v1/providers/:id', {
    config: admin,
    schema: { tags, summary: 'Delete a provider', params: schemas.idParams, response: { 204: z.null() } },
    handler: async (request, reply) => {
      await models.deleteProvider(effectsOf(request).db, request.params.id)
      return reply.code(204).send(null)
    },
  })

  app.get('/v1/providers/:id/keys', {
    config: admin,
    schema: {
      tags,
      summary: 'List the credentials of a provider, in the order of failover',
      params: schemas.idParams,
      response: { 200: z.object({ items: z.array(answers.providerKeyAnswer) }) },
    },
    handler: async (request) => ({
      items: await models.listProviderKeys(effectsOf(request).db, request.params.id),
    }),
  })

  app.post('/v1/providers/:id/keys', {
    config: admin,
    schema: {
      tags,
      summary: 'Add a credential behind those that are there',
      params: schemas.idParams,
      body: schemas.providerKeyBody,
      response: { 201: answers.providerKeyAnswer },
    },
    handler: async (request, reply) => {
      const { db } = effectsOf(request)
      const added = await models.addProviderKey(db, encryption, request.params.id, request.body.key)
      return reply.code(201).send(added)
    },
  })

  app.delete('/v1/providers/:id/keys/:keyId', {
    config: admin,
    schema: {
      tags,
      summary: 'Delete a credential',
      params: schemas.providerKeyParams,
      response: { 204: z.null() },
    },
    handler: async (request, reply) => {
      const { id, keyId } = request.params
      await models.deleteProviderKey(effectsOf(request).db, id, keyId)
      return reply.code(204).send(null)
    },
  })

  app.post('/v1/model-configs', {
    config: admin,
    schema: {
      tags,
      summary: 'Create a model config',
      body: schemas.createModelConfigBody,
      response: { 201: answers.modelConfigAnswer },
    },
    handler: async (request, reply) => {
      const { displayName, options, ...config } = request.body
      const created = await models.createModelConfig(effectsOf(request).db, {
        ...config,
        displayName: displayName ?? config.model,
        options: withoutUndefined(options),
      })
      return reply.code(201).send(created)
    },
  })

  app.get('/v1/model-configs', {
    config: admin,
    schema: {
      tags,
      summary: 'List the model configs',
      response: { 200: z.object({ items: z.array(answers.modelConfigAnswer) }) },
    },
    handler: async (request) => ({ items: await models.listModelConfigs(effectsOf(request).db) }),
  })

  app.patch('/v1/model-configs/:id', {
    config: admin,
    schema: {
      tags,
      summary: 'Change a model config',
      params: schemas.idParams,
      body: schemas.updateModelConfigBody,
      response: { 200: answers.modelConfigAnswer },
    },
    handler: async (request) => {
      const { options, ...change } = request.body
      return models.updateModelConfig(effectsOf(request).db, request.params.id, {
        ...withoutUndefined(change),
        ...(options === undefined ? {} : { options: withoutUndefined(options) }),
      })
    },
  })

  app.put('/v1/me/provider-keys/:provider', {
    config: { scope: 'chats:write' },
    schema: {
      tags,
      summary: 'Store your own key for a provider (BYOK)',
      params: schemas.userProviderKeyParams,
      body: schemas.userProviderKeyBody,
      response: { 200: z.object({ provider: z.string(), hint: z.string() }) },
    },
    handler: async (request) => {
      const owner = { userId: principalOf(request).userId, providerName: request.params.provider }
      return models.putUserProviderKey(effectsOf(request).db, encryption, owner, request.body.key)
    },
  })

  app.delete('/v1/me/provider-keys/:provider', {
    config: { scope: 'chats:write' },
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
