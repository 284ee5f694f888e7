import type { FastifyRequest } from 'fastify'
import { TurnmillError } from '../protocol/errors.ts'

/** All that the board may be asked for, as routes below its path; what is not here is refused. */
const ALLOWED = new Set([
  'GET /',
  'GET /queue/:queueName',
  'GET /queue/:queueName/:jobId',
  'GET /job-schedulers',
  'GET /metrics-history',
  'GET /static/*',
  'GET /api/redis/stats',
  'GET /api/queues',
  'GET /api/job-schedulers',
  'GET /api/queues/:queueName/metrics',
  'GET /api/queues/:queueName/default-job-options',
  'GET /api/queues/:queueName/workers',
  'GET /api/queues/:queueName/rate-limit',
  'GET /api/queues/:queueName/job-data-schema',
  'GET /api/queues/:queueName/:jobId',
  'GET /api/queues/:queueName/:jobId/logs',
  'GET /api/queues/:queueName/:jobId/flow',
  'GET /*', // Nothing there: 404.
  'PUT /api/queues/:queueName/:jobId/retry',
])

/** @throws {TurnmillError} `forbidden` for all but looking and retrying, and for a retry that another site sent. */
export function guardBoard(request: FastifyRequest, prefix: string): void {
  const method = request.method === 'HEAD' ? 'GET' : request.method
  const route = request.routeOptions.url?.slice(prefix.length) ?? ''
  if (!ALLOWED.has(`${method} ${route === '' ? '/' : route}`))
    throw new TurnmillError('forbidden', 'Bull Board looks and retries, nothing else')
  if (method !== 'GET' && !isSameOrigin(request))
    throw new TurnmillError('forbidden', 'the request comes from another site')
}

/**
 * Whether a browser says that a page of ours sent the request, or no browser did. A browser adds Basic credentials by
 * itself, whichever page sends the request.
 *
 * Source: https://web.dev/articles/fetch-metadata; `Origin` where a browser sends no `Sec-Fetch-Site` (plain HTTP).
 */
function isSameOrigin({ headers, host }: FastifyRequest): boolean {
  const site = headers['sec-fetch-site']
  if (site !== undefined) return site === 'same-origin' || site === 'none'
  const { origin } = headers
  if (origin === undefined) return true
  return URL.canParse(origin) && new URL(origin).host === host
}
