import { z } from 'zod'
import { isUniqueViolation, type Database } from '../db/index.ts'
import {
  createApiKey,
  demandScope,
  listApiKeys,
  revokeApiKey,
  type Principal,
  type Scope,
} from '../keys/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import { isAdmin, principalOf } from './authentication.ts'
import type { ApiContext, ApiServer } from './context.ts'
import { effectsOf } from './effects.ts'
import * as answers from './answers.ts'
import * as schemas from './schemas.ts'

const tags = ['accounts']
const anyKey = { scope: 'any' } as const

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

  app.post('/v1/users', {
    config: { scope: 'admin' },
    schema: {
      tags,
      summary: 'Create a user',
      body: schemas.createUserBody,
      response: { 201: answers.userAnswer },
    },
    handler: async (request, reply) => {
      const { name, email, role } = request.body
      try {
        const data = { id: newId(), name, email: email ?? null, role }
        const user = await effectsOf(request).db.prisma.user.create({ data })
        return await reply.code(201).send({ ...user, createdAt: user.createdAt.toISOString() })
      } catch (error) {
        if (isUniqueViolation(error))
          throw new TurnmillError('conflict', `a user with the email ${email ?? ''} exists already`)
        throw error
      }
    },
  })

  app.get('/v1/users', {
    config: { scope: 'admin' },
    schema: {
      tags,
      summary: 'List the users',
      response: { 200: z.object({ items: z.array(answers.userAnswer) }) },
    },
    handler: async (request) => {
      const users = await effectsOf(request).db.prisma.user.findMany({ orderBy: { id: 'desc' }, take: 1000 })
      return { items: users.map((user) => ({ ...user, createdAt: user.createdAt.toISOString() })) }
    },
  })

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
      await demandGrant(db, principal, { userId, scopes })
      const key = {
        userId,
        name,
        scopes,
        expiresAt: expiresAt === null || expiresAt === undefined ? null : new Date(expiresAt),
      }
      const { apiKey, token } = await createApiKey(db, pepper, key)
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
      return { items: await listApiKeys(effectsOf(request).db, isAdmin(principal) ? null : principal.userId) }
    },
  })

  app.delete('/v1/api-keys/:id', {
    config: anyKey,
    schema: { tags, summary: 'Revoke an API key', params: schemas.idParams, response: { 204: z.null() } },
    handler: async (request, reply) => {
      const principal = principalOf(request)
      await revokeApiKey(
        effectsOf(request).db,
        request.params.id,
        isAdmin(principal) ? null : principal.userId,
      )
      return reply.code(204).send(null)
    },
  })
}

/** Nobody gives away more than they have; keys for others are an admin's business. */
async function demandGrant(
  db: Database,
  principal: Principal,
  { userId, scopes }: { userId: string; scopes: readonly Scope[] },
): Promise<void> {
  if (userId !== principal.userId) demandScope(principal, 'admin')
  else for (const scope of scopes) demandScope(principal, scope)
  const user = await db.prisma.user.count({ where: { id: userId } })
  if (user === 0) throw new TurnmillError('not_found', `user ${userId} does not exist`)
}
