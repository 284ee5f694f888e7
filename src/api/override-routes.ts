import type { FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { Scope } from '../keys/index.ts'
import * as models from '../models/index.ts'
import { principalOf } from './authentication.ts'
import type { ApiServer } from './context.ts'
import { effectsOf } from './effects.ts'
import * as answers from './answers.ts'
import * as schemas from './schemas.ts'

/** One set of overrides: whose it is, and who may read and change it. */
interface OverrideRoutes {
  url: string
  tag: string
  whose: string
  read: Scope
  write: Scope
  ownerOf(request: FastifyRequest): models.OverrideOwner
}

/** Which model serves which purpose: for the deployment, and before it for each user. */
export function registerOverrideRoutes(app: ApiServer): void {
  registerOverrides(app, {
    url: '/v1/model-overrides',
    tag: 'models',
    whose: 'the deployment’s',
    read: 'admin',
    write: 'admin',
    ownerOf: () => null,
  })
  registerOverrides(app, {
    url: '/v1/me/model-overrides',
    tag: 'me',
    whose: 'your',
    read: 'chats:read',
    write: 'chats:write',
    ownerOf: (request) => principalOf(request).userId,
  })
}

function registerOverrides(app: ApiServer, { url, tag, whose, read, write, ownerOf }: OverrideRoutes): void {
  const tags = [tag]
  app.get(url, {
    config: { scope: read },
    schema: {
      tags,
      summary: `List ${whose} choices of a model for a purpose`,
      response: { 200: z.object({ items: z.array(answers.modelOverrideAnswer) }) },
    },
    handler: async (request) => ({
      items: await models.listModelOverrides(effectsOf(request).db, ownerOf(request)),
    }),
  })

  app.put(`${url}/:purpose`, {
    config: { scope: write },
    schema: {
      tags,
      summary: `Set ${whose} model for a purpose`,
      params: schemas.overrideParams,
      body: schemas.overrideBody,
      response: { 200: answers.modelOverrideAnswer },
    },
    handler: async (request) => {
      const { purpose } = request.params
      const { modelConfigId } = request.body
      return models.putModelOverride(effectsOf(request).db, ownerOf(request), purpose, modelConfigId)
    },
  })

  app.delete(`${url}/:purpose`, {
    config: { scope: write },
    schema: {
      tags,
      summary: `Take ${whose} model for a purpose away`,
      params: schemas.overrideParams,
      response: { 204: z.null() },
    },
    handler: async (request, reply) => {
      await models.deleteModelOverride(effectsOf(request).db, ownerOf(request), request.params.purpose)
      return reply.code(204).send(null)
    },
  })
}
