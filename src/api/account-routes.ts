import { z } from 'zod'
import * as keys from '../keys/index.ts'
import { demandScope, type Principal, type Scope } from '../keys/index.ts'
import type { Secret } from '../protocol/secret.ts'
import { isAdmin, principalOf } from './authentication.ts'
import type { ApiContext, ApiServer } from './context.ts'
import { effectsOf } from './effects.ts'
import * as answers from './answers.ts'
import * as schemas from './schemas.ts'
import { withoutUndefined } from './without-undefined.ts'

const tags = ['accounts']
const anyKey = { scope: 'any' } as const
const admin = { scope: 'admin' } as const

/** Users, and the API keys they call with. */
export function registerAccountRoutes(app: ApiServer, { pepper }: ApiContext): void {
  app.get('/v1/me', {
    config: anyKey,
    schema: {
      tags,
      summary: 'Who you are',
      response: {
        200: z.object({
          apiKeyId: z.uuid(),
          userId: z.uuid(),
          userName: z.string(),
          role: z.string(),
          scopes: z.array(z.string()),
        }),
      },
    },
    handler: async (request) => ({ ...principalOf(request), scopes: [...principalOf(request).scopes] }),
  })

  registerUsers(app)
  registerApiKeys(app, pepper)
}

function registerUsers(app: ApiServer): void {
  app.post('/v1/users', {
    config: admin,
    schema: {
      tags,
      summary: 'Create a user',
      body: schemas.createUserBody,
      response: { 201: answers.userAnswer },
    },
    handler: async (request, reply) => {
      const { email = null, ...user } = request.body
      return reply.code(201).send(await keys.createUser(effectsOf(request).db, { ...user, email }))
    },
  })

  app.get('/v1/users', {
    config: admin,
    schema: {
      tags,
      summary: 'List the users',
      response: { 200: z.object({ items: z.array(answers.userAnswer) }) },
    },
    handler: async (request) => ({ items: await keys.listUsers(effectsOf(request).db) }),
  })

  app.get('/v1/users/:id', {
    config: admin,
    schema: {
      tags,
      summary: 'Read a user',
      params: schemas.idParams,
      response: { 200: answers.userAnswer },
    },
    handler: (request) => keys.readUser(effectsOf(request).db, request.params.id),
  })

  app.patch('/v1/users/:id', {
    config: admin,
    schema: {
      tags,
      summary:
        'Change a user; who is suspended calls nothing, and who is no admin any more has no key of the scope admin',
      params: schemas.idParams,
      body: schemas.updateUserBody,
      response: { 200: answers.userAnswer },
    },
    handler: (request) =>
      keys.updateUser(effectsOf(request).db, request.params.id, withoutUndefined(request.body)),
  })

  app.delete('/v1/users/:id', {
    config: admin,
    schema: {
      tags,
      summary: 'Delete a user with their keys and credentials; their chats stay, for nobody to read',
      params: schemas.idParams,
      response: { 204: z.null() },
    },
    handler: async (request, reply) => {
      await keys.deleteUser(effectsOf(request).db, request.params.id)
      return reply.code(204).send(null)
    },
  })
}

function registerApiKeys(app: ApiServer, pepper: Secret): void {
  app.post('/v1/api-keys', {
    config: anyKey,
    schema: {
      tags,
      summary: 'Make an API key; its token is shown this once',
      body: schemas.createApiKeyBody,
      response: { 201: z.object({ apiKey: answers.apiKeyAnswer, token: z.string() }) },
    },
    handler: async (request, reply) => {
      const principal = principalOf(request)
      const { name, scopes, userId = principal.userId, expiresAt } = request.body
      const { db } = effectsOf(request)
      demandGrant(principal, { userId, scopes })
      const key = {
        userId,
        name,
        scopes,
        expiresAt: expiresAt === null || expiresAt === undefined ? null : new Date(expiresAt),
      }
      const { apiKey, token } = await keys.createApiKey(db, pepper, key)
      return reply.code(201).send({ apiKey, token: token.reveal() })
    },
  })

  app.get('/v1/api-keys', {
    config: anyKey,
    schema: {
      tags,
      summary: 'List your API keys; all of them for an admin',
      response: { 200: z.object({ items: z.array(answers.apiKeyAnswer) }) },
    },
    handler: async (request) => {
      const principal = principalOf(request)
      return {
        items: await keys.listApiKeys(effectsOf(request).db, isAdmin(principal) ? null : principal.userId),
      }
    },
  })

  app.delete('/v1/api-keys/:id', {
    config: anyKey,
    schema: { tags, summary: 'Revoke an API key', params: schemas.idParams, response: { 204: z.null() } },
    handler: async (request, reply) => {
      const principal = principalOf(request)
      await keys.revokeApiKey(
        effectsOf(request).db,
        request.params.id,
        isAdmin(principal) ? null : principal.userId,
      )
      return reply.code(204).send(null)
    },
  })
}

/** Nobody gives away more than they have; keys for others are an admin's business. */
function demandGrant(
  principal: Principal,
  { userId, scopes }: { userId: string; scopes: readonly Scope[] },
): void {
  if (userId !== principal.userId) demandScope(principal, 'admin')
  else for (const scope of scopes) demandScope(principal, scope)
}
