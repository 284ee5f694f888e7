import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { MAX_BODY_BYTES, refuse } from '../gateway/index.ts'
import { isTurnmillError, TurnmillError } from '../protocol/errors.ts'
import type { Caller, GatewayRequest, GatewayResponse } from '../protocol/routes.ts'
import { principalOf } from './authentication.ts'
import type { ApiContext, ApiServer } from './context.ts'
import type { LiveCalls } from './live-calls.ts'
import { toProblem } from './problems.ts'
import { registerScope } from './scope.ts'

const PREFIX = '/v1/gateway'

/**
 * The gateway for clients outside: the SDKs of OpenAI and Anthropic, coding agents. They call
 * `/v1/gateway/{provider}/…` as they would call the provider, with a Turnmill key of scope `gateway:use`.
 */
export function registerGatewayRoutes(
  app: ApiServer,
  { gateway, logger }: Pick<ApiContext, 'gateway' | 'logger'>,
  calls: LiveCalls,
): void {
  /** What a call failed with is the provider's, or the way's to it: the log says what. */
  const callGateway = async (
    request: GatewayRequest,
    caller: Caller,
    requestId: string,
  ): Promise<GatewayResponse> => {
    try {
      return await gateway(request, caller)
    } catch (error) {
      if (isTurnmillError(error)) throw error
      if (request.signal?.aborted !== true)
        logger.warn({ error, requestId }, 'a call of the gateway broke off')
      throw unreachable(error)
    }
  }
  // In a scope of its own: a body is passed on as it came, and a refusal has the provider's shape.
  registerScope(app, { name: 'gateway', prefix: PREFIX }, async (scope) => {
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
    scope.setErrorHandler((error: FastifyError | TurnmillError, request, reply) => {
      const problem = toProblem(error)
      if (problem.code === 'internal')
        logger.error({ error, requestId: request.id }, 'unexpected error in the gateway')
      return sendRefusal(request, reply, problem)
    })
    scope.setNotFoundHandler((request, reply) => {
      const what = `there is no ${request.method} ${pathOf(request)}`
      return sendRefusal(request, reply, new TurnmillError('not_found', what))
    })
    scope.route({
      method: ['GET', 'POST'],
      url: '/*',
      bodyLimit: MAX_BODY_BYTES,
      exposeHeadRoute: false,
      config: { scope: 'gateway:use', gateway: true },
      schema: { hide: true },
      handler: async (request, reply) => {
        const { apiKeyId } = principalOf(request)
        const call = calls.add(apiKeyId)
        onClose(reply, call.remove)
        const caller = { kind: 'key', apiKeyId, client: request.headers['user-agent'] ?? null } as const
        const signal = AbortSignal.any([call.signal, closeOf(reply)])
        return send(reply, await callGateway(toGatewayRequest(request, signal), caller, request.id))
      },
    })
  })
}

/** Whether a request meant the gateway, though no route may have been found for it. */
export const isOfGateway = (request: FastifyRequest): boolean => pathOf(request).startsWith(`${PREFIX}/`)

/** In the shape of the provider that the request meant; who it is is not looked up for a stranger. */
export const sendRefusal = (
  request: FastifyRequest,
  reply: FastifyReply,
  error: TurnmillError,
): FastifyReply =>
  send(reply, refuse(error, { path: pathOf(request), headerNames: Object.keys(request.headers), type: null }))

/** A target may be a whole URL (RFC 9112, section 3.2.2), and need not be a good one. */
const targetOf = ({ url }: FastifyRequest): string => url.replace(/^https?:\/\/[^/?]*/i, '')

const pathOf = (request: FastifyRequest): string => targetOf(request).replace(/\?.*$/s, '')

const unreachable = (cause: unknown): TurnmillError =>
  new TurnmillError('provider_unreachable', 'the provider could not be reached, or the connection broke', {
    cause,
  })

/** Aborts when the client has left before its answer was complete. */
function closeOf(reply: FastifyReply): AbortSignal {
  const gone = new AbortController()
  onClose(reply, () => {
    if (!reply.raw.writableFinished) gone.abort()
  })
  return gone.signal
}

/** A client may have left while it was authenticated, and nothing is told of that any more. */
function onClose({ raw }: FastifyReply, work: () => void): void {
  if (raw.destroyed) work()
  else raw.once('close', work)
}

function toGatewayRequest(request: FastifyRequest, signal: AbortSignal): GatewayRequest {
  const headers = new Headers()
  for (const [name, value] of Object.entries(request.headers))
    if (value !== undefined) headers.set(name, Array.isArray(value) ? value.join(', ') : value)
  return {
    method: request.method,
    target: targetOf(request),
    headers,
    body: Buffer.isBuffer(request.body) ? request.body : null,
    signal,
  }
}

const send = (reply: FastifyReply, { status, headers, body }: GatewayResponse): FastifyReply =>
  reply.code(status).headers(Object.fromEntries(headers)).send(body)
