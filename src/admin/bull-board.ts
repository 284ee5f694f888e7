import { createBullBoard } from '@bull-board/api'
import { FastifyAdapter } from '@bull-board/fastify'
import type { FastifyInstance, FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify'
import { TurnmillError } from '../protocol/errors.ts'
import { AUXILIARY_QUEUE, TURNS_QUEUE, type JobQueue, type QueueBackend } from '../queue/index.ts'
import { guardBoard } from './board-guard.ts'
import { adaptPage, BOARD_HEADERS } from './board-page.ts'
import { BoardQueue } from './board-queue.ts'

export const BULL_BOARD_PATH = '/admin/queues'

/** The title is the only thing of ours that the page shows. */
const UI = { boardTitle: 'Turnmill', hideDocsLink: true }

/**
 * Bull Board for admins, to be registered under a prefix: it shows IDs and codes, and retries failed jobs.
 * Every path below the prefix, a file's and one that does not exist too, needs an admin's key.
 */
export function bullBoard(backend: QueueBackend): FastifyPluginAsync {
  return async (app) => {
    const queues = [TURNS_QUEUE, AUXILIARY_QUEUE].map((name) => backend.queue<object>(name))
    // Connection errors also come as events, and an event without a listener would end the process.
    for (const queue of queues) queue.on('error', () => undefined)
    app.addHook('onClose', async () => {
      await Promise.all(queues.map((queue) => queue.close()))
    })

    // What the API's authenticator asks of every route there is, the board's own included.
    app.addHook('onRoute', (route) => {
      route.config = { ...route.config, scope: 'admin', basic: true }
    })
    app.addHook('onRequest', async (request) => guardBoard(request, app.prefix))
    app.addHook('onSend', async (request, reply, payload) => secure(request, reply, payload))
    // A path of the board's own that no route takes is a route too, so that it asks for the key.
    app.all('/*', { schema: { hide: true } }, (request) => {
      throw new TurnmillError('not_found', `there is no ${request.url.split('?')[0] ?? ''}`)
    })
    await registerBoard(app, queues)
  }
}

async function registerBoard(app: FastifyInstance, queues: readonly JobQueue<object>[]): Promise<void> {
  const server = new FastifyAdapter()
  const shown = queues.map((queue) => new BoardQueue(queue))
  createBullBoard({ queues: shown, serverAdapter: server, options: { uiConfig: UI } })
  server.setBasePath(app.prefix)
  // Errors are the application's to answer: as problems, and without the text of unexpected ones.
  server.setErrorHandler((error) => {
    throw error
  })
  await app.register(server.registerPlugin())
}

/** The files are the same for everybody and may be kept by the browser; answers may not. */
function secure(request: FastifyRequest, reply: FastifyReply, payload: unknown): unknown {
  const isFile = request.routeOptions.url?.endsWith('/static/*') === true && reply.statusCode < 400
  void reply.headers({ ...BOARD_HEADERS, 'cache-control': isFile ? 'private, max-age=3600' : 'no-store' })
  const isPage = String(reply.getHeader('content-type')).startsWith('text/html')
  return isPage && typeof payload === 'string' ? adaptPage(payload) : payload
}
