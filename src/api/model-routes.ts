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

/** Model configs for admins, and what of them a caller can use. */
export function registerModelRoutes(app: ApiServer, { config }: ApiContext): void {
  registerModelConfigs(app)

  // Where routes go through the gateway, the workers have one.
  const mode = { gatewayRouting: config.gatewayRouting, gatewayPresent: config.gatewayRouting }
  app.get('/v1/models', {
    config: { scope: 'any' },
    schema: {
      tags,
      summary: 'List the models, what you can use of them, and why not the rest',
      response: { 200: z.object({ items: z.array(answers.modelAnswer) }) },
    },
    handler: async (request) => ({
      items: await models.listAvailableModels(effectsOf(request).db, mode, principalOf(request)),
    }),
  })
}

function registerModelConfigs(app: ApiServer): void {
  app.post('/v1/model-configs', {
    config: admin,
    schema: {
      tags,
      summary: 'Create a model config; the first enabled one is the default',
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

  app.get('/v1/model-configs/:id', {
    config: admin,
    schema: {
      tags,
      summary: 'Read a model config',
      params: schemas.idParams,
      response: { 200: answers.modelConfigAnswer },
    },
    handler: async (request) => models.readModelConfig(effectsOf(request).db, request.params.id),
  })

  app.patch('/v1/model-configs/:id', {
    config: admin,
    schema: {
      tags,
      summary: 'Change a model config; a new default takes the place of the old one',
      params: schemas.idParams,
      body: schemas.updateModelConfigBody,
      response: { 200: answers.modelConfigAnswer },
    },
    handler: async (request) => {
      const { options, prices, ...change } = request.body
      return models.updateModelConfig(effectsOf(request).db, request.params.id, {
        ...withoutUndefined(change),
        ...(options === undefined ? {} : { options: withoutUndefined(options) }),
        ...(prices === undefined ? {} : { prices: withoutUndefined(prices) }),
      })
    },
  })

  app.delete('/v1/model-configs/:id', {
    config: admin,
    schema: {
      tags,
      summary: 'Delete a model config; who has chosen it falls to the next choice',
      params: schemas.idParams,
      response: { 204: z.null() },
    },
    handler: async (request, reply) => {
      await models.deleteModelConfig(effectsOf(request).db, request.params.id)
      return reply.code(204).send(null)
    },
  })
}
