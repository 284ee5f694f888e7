import { z } from 'zod'
import * as gateway from '../gateway/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import * as answers from './answers.ts'
import type { ApiContext, ApiServer } from './context.ts'
import { effectsOf } from './effects.ts'
import * as schemas from './schemas.ts'

const admin = { scope: 'admin' } as const
const tags = ['budgets']

/** Hard limits of what model calls may cost, for admins. */
export function registerBudgetRoutes(app: ApiServer, { config }: Pick<ApiContext, 'config'>): void {
  app.post('/v1/budgets', {
    config: admin,
    schema: {
      tags,
      summary: 'Limit what the calls of a key, a user or the deployment may cost',
      body: schemas.createBudgetBody,
      response: { 201: answers.budgetAnswer },
    },
    handler: async (request, reply) => {
      if (!config.gatewayRouting) throw needsGateway()
      const { subjectId = null, ...budget } = request.body
      return reply.code(201).send(await gateway.createBudget(effectsOf(request).db, { ...budget, subjectId }))
    },
  })

  app.get('/v1/budgets', {
    config: admin,
    schema: {
      tags,
      summary: 'List the budgets, with what is spent and reserved in the present period',
      response: { 200: z.object({ items: z.array(answers.budgetAnswer) }) },
    },
    handler: async (request) => ({ items: await gateway.listBudgets(effectsOf(request).db) }),
  })

  app.get('/v1/budgets/:id', {
    config: admin,
    schema: {
      tags,
      summary: 'Read a budget',
      params: schemas.idParams,
      response: { 200: answers.budgetAnswer },
    },
    handler: async (request) => gateway.readBudget(effectsOf(request).db, request.params.id),
  })

  app.patch('/v1/budgets/:id', {
    config: admin,
    schema: {
      tags,
      summary: 'Change the limit of a budget',
      params: schemas.idParams,
      body: schemas.changeBudgetBody,
      response: { 200: answers.budgetAnswer },
    },
    handler: async (request) =>
      gateway.changeBudget(effectsOf(request).db, request.params.id, request.body.limitMicros),
  })

  app.delete('/v1/budgets/:id', {
    config: admin,
    schema: { tags, summary: 'Delete a budget', params: schemas.idParams, response: { 204: z.null() } },
    handler: async (request, reply) => {
      await gateway.deleteBudget(effectsOf(request).db, request.params.id)
      return reply.code(204).send(null)
    },
  })
}

/** With a budget that nothing holds no process would start again. */
const needsGateway = (): TurnmillError =>
  new TurnmillError(
    'conflict',
    'direct routing cannot hold a budget: set TURNMILL_CHAT_AI_GATEWAY_ROUTING_ENABLED=true first',
  )
