import { randomUUID } from 'node:crypto'
import swagger from '@fastify/swagger'
import Fastify from 'fastify'
import { jsonSchemaTransform, jsonSchemaTransformObject, validatorCompiler } from 'fastify-type-provider-zod'
import { BULL_BOARD_PATH, bullBoard } from './admin/index.ts'
import { registerAccountRoutes } from './api/account-routes.ts'
import { registerAuthentication } from './api/authentication.ts'
import { registerChatRoutes } from './api/chat-routes.ts'
import { registerStreamRoute } from './api/stream-route.ts'
import { registerBudgetRoutes } from './api/budget-routes.ts'
import type { ApiContext, ApiServer } from './api/context.ts'
import { registerDebugRoutes } from './api/debug-routes.ts'
import { drainConnections } from './api/drain.ts'
import { registerFileRoutes } from './api/file-routes.ts'
import { isOfGateway, registerGatewayRoutes, sendRefusal } from './api/gateway-routes.ts'
import { registerIdempotency } from './api/idempotency.ts'
import { createLiveCalls } from './api/live-calls.ts'
import { createLoadGuard } from './api/load.ts'
import { registerMcpRoutes } from './api/mcp-routes.ts'
import { registerModelRoutes } from './api/model-routes.ts'
import { registerOverrideRoutes } from './api/override-routes.ts'
import { registerOwnKeyRoutes } from './api/own-key-routes.ts'
import { registerProviderRoutes } from './api/provider-routes.ts'
import { registerUsageRoutes } from './api/usage-routes.ts'
import { createErrorHandler, sendProblem, toProblem, whyNotTaken } from './api/problems.ts'
import * as answers from './api/answers.ts'
import { registerSystemRoutes } from './api/system-routes.ts'
import { query, statement } from './db/index.ts'
import { findUsableKeys } from './keys/index.ts'
import { TurnmillError } from './protocol/errors.ts'
import type { Services } from './services.ts'
import { createWatchRegistry } from './streams/index.ts'

/** Every route may also answer with a problem. */
const withProblems = (response: unknown): object => ({
  ...(response as object | undefined),
  default: answers.problem,
})

const ping = statement('app/ping', 'select 1')

/** The HTTP application, complete and not listening. Closing it ends open streams; the services stay open. */
export async function createApp(services: Services): Promise<ApiServer> {
  const { chats, config, db, logger } = services
  const stopping = new AbortController()
  const watching = createWatchRegistry({
    readVersions: chats.versions,
    findUsableKeys: (apiKeyIds) => findUsableKeys(db, apiKeyIds),
    periodMs: config.watchPollMs,
    onError: (error) => logger.warn({ error }, 'watched chats were not looked at'),
  })
  const load = createLoadGuard({
    oldestWaitMs: chats.oldestWaitMs,
    limitMs: config.shedAfterMs,
    periodMs: config.watchPollMs,
    onError: (error) => logger.warn({ error }, 'the load was not looked at'),
  })
  const calls = createLiveCalls({
    findUsableKeys: (apiKeyIds) => findUsableKeys(db, apiKeyIds),
    periodMs: config.watchPollMs,
    onError: (error) => logger.warn({ error }, 'the keys of running calls were not looked at'),
  })
  const checks = {
    postgres: async () => {
      await query(db, ping())
    },
    queue: () => services.backend.ping(),
  }
  const context: ApiContext = { ...services, watching, stopping: stopping.signal, checks }

  const app: ApiServer = Fastify({
    bodyLimit: config.messageBodyBytes,
    genReqId: () => randomUUID(),
    // What is under way is answered; a connection without a request is closed.
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength: 200 },
    // Of a target that cannot be read, before any route is found.
    frameworkErrors: (error, request, reply) => {
      const refusing = isOfGateway(request) ? sendRefusal : sendProblem
      void refusing(request, reply, toProblem(error))
    },
  }).withTypeProvider()
  app.setValidatorCompiler(validatorCompiler)
  // Answers are built from typed views; the schemas of answers are for the reference.
  app.setSerializerCompiler(() => (data) => JSON.stringify(data))
  app.setErrorHandler(createErrorHandler(logger))
  app.setNotFoundHandler({}, (request, reply) =>
    sendProblem(
      request,
      reply,
      new TurnmillError('not_found', `there is no ${request.method} ${request.url.split('?')[0] ?? ''}`),
    ),
  )
  app.removeContentTypeParser('text/plain')
  // Many clients name a content type where they send nothing, as with DELETE.
  const parseJson = app.getDefaultJsonParser('error', 'error')
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body === '') done(null, undefined)
    else
      void parseJson(request, body as string, (error, value) => {
        done(error && whyNotTaken(body as string, error), value)
      })
  })
  registerAuthentication(app, db, services.pepper)
  app.addHook('onRequest', load.onRequest)
  registerIdempotency(app, services)
  app.addHook('onSend', async (request, reply) => {
    reply.header('x-request-id', request.id)
    if (stopping.signal.aborted) reply.header('connection', 'close')
  })
  app.addHook('onRoute', (route) => {
    if (route.schema?.hide !== true)
      route.schema = { ...route.schema, response: withProblems(route.schema?.response) }
  })
  app.addHook('onReady', async () => {
    watching.start()
    load.start()
    calls.start()
  })
  let onDrained = (): void => undefined
  app.addHook('preClose', async () => {
    watching.stop()
    load.stop()
    calls.stop()
    stopping.abort()
    onDrained = drainConnections(app.server)
  })
  app.addHook('onClose', async () => onDrained())
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'Turnmill', description: 'Chat turns from a job queue.', version: '0.1.0' },
      components: {
        securitySchemes: { key: { type: 'http', scheme: 'bearer', bearerFormat: 'tm_<id>_<secret>' } },
      },
      security: [{ key: [] }],
    },
    transform: jsonSchemaTransform,
    transformObject: jsonSchemaTransformObject,
  })
  registerSystemRoutes(app, context)
  registerAccountRoutes(app, context)
  registerProviderRoutes(app, context)
  registerModelRoutes(app, context)
  registerMcpRoutes(app, context)
  registerOverrideRoutes(app)
  registerOwnKeyRoutes(app, context)
  registerChatRoutes(app, context)
  registerFileRoutes(app, context)
  registerDebugRoutes(app, context)
  registerStreamRoute(app, context)
  registerGatewayRoutes(app, context, calls)
  registerBudgetRoutes(app, context)
  registerUsageRoutes(app, context)
  if (config.bullBoard) await app.register(bullBoard(services.backend), { prefix: BULL_BOARD_PATH })
  return app
}
