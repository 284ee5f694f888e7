import { z } from 'zod'
import type { ApiContext, ApiServer } from './context.ts'

const open = { scope: 'public' } as const
const tags = ['system']

const state = z.enum(['up', 'down'])

/** How long a dependency may take to say that it is there, in ms. */
const CHECK_LIMIT_MS = 1000

/**
 * Whether the process lives, and whether it takes requests. It takes them without the queue, too: what is said then, the
 * reconciler repeats.
 */
export function registerSystemRoutes(app: ApiServer, { checks, metrics }: ApiContext): void {
  app.get('/healthz', {
    config: open,
    schema: { tags, summary: 'The process lives', response: { 200: z.object({ status: z.literal('ok') }) } },
    handler: async () => ({ status: 'ok' as const }),
  })

  app.get('/readyz', {
    config: open,
    schema: {
      tags,
      summary: 'Requests are taken: Postgres answers. Whether the queue does is told beside it',
      response: { 200: z.record(z.string(), state), 503: z.record(z.string(), state) },
    },
    handler: async (_request, reply) => {
      const states = await Promise.all(
        Object.entries(checks).map(async ([name, check]) => [name, await probe(check)] as const),
      )
      const answer = Object.fromEntries(states)
      return reply.code(answer['postgres'] === 'up' ? 200 : 503).send(answer)
    },
  })

  app.get('/metrics', {
    config: open,
    schema: { tags, summary: 'What the process counts, for Prometheus', produces: ['text/plain'] },
    handler: async (_request, reply) => {
      const { contentType, text } = await metrics.render()
      return reply.type(contentType).serializer(String).send(text)
    },
  })

  app.get('/openapi.json', {
    config: open,
    schema: { hide: true },
    handler: async () => app.swagger(),
  })
}

async function probe(check: () => Promise<void>): Promise<'up' | 'down'> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<'down'>((resolve) => (timer = setTimeout(() => resolve('down'), CHECK_LIMIT_MS)))
  try {
    return await Promise.race([check().then(() => 'up' as const), late])
  } catch {
    return 'down'
  } finally {
    clearTimeout(timer)
  }
}
