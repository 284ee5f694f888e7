import { z } from 'zod'
import * as models from '../models/index.ts'
import type { ApiContext, ApiServer } from './context.ts'
import { effectsOf } from './effects.ts'
import * as answers from './answers.ts'
import * as schemas from './schemas.ts'
import { withoutUndefined } from './without-undefined.ts'

const admin = { scope: 'admin' } as const
const tags = ['providers']

/** Providers and their central credentials, for admins. Secrets go in and never come out. */
export function registerProviderRoutes(app: ApiServer, context: ApiContext): void {
  registerProviders(app, context)
  registerProviderKeys(app, context)
}

function registerProviders(app: ApiServer, { config, encryption }: ApiContext): void {
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

  app.get('/v1/providers/:id', {
    config: admin,
    schema: {
      tags,
      summary: 'Read a provider',
      params: schemas.idParams,
      response: { 200: answers.providerAnswer },
    },
    handler: async (request) => models.readProvider(effectsOf(request).db, request.params.id),
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
}

function registerProviderKeys(app: ApiServer, { encryption }: ApiContext): void {
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

  app.put('/v1/providers/:id/keys/order', {
    config: admin,
    schema: {
      tags,
      summary: 'Put the credentials into an order of failover',
      params: schemas.idParams,
      body: schemas.providerKeyOrderBody,
      response: { 200: z.object({ items: z.array(answers.providerKeyAnswer) }) },
    },
    handler: async (request) => {
      const { db } = effectsOf(request)
      return { items: await models.orderProviderKeys(db, request.params.id, request.body.keyIds) }
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
}
