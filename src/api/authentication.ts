import type { FastifyRequest } from 'fastify'
import type { Database } from '../db/index.ts'
import { authenticate, demandScope, type Principal, type Scope } from '../keys/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import type { Secret } from '../protocol/secret.ts'

declare module 'fastify' {
  interface FastifyRequest {
    principal: Principal | null
  }
  interface FastifyContextConfig {
    /** What the caller's key must be allowed to do; `public` needs no key. */
    scope?: Scope | 'public' | 'any'
    /** Whether the key may also come as the password of Basic authentication: that is what a browser asks for. */
    basic?: boolean
  }
}

/** Before the body is read: who calls, and may they. A route that says nothing is for admins. */
export function createAuthenticator(db: Database, pepper: Secret) {
  return async (request: FastifyRequest): Promise<void> => {
    const { scope = 'admin', basic = false } = request.routeOptions.config
    if (scope === 'public' || request.is404) return
    const token = bearerToken(request) ?? (basic ? basicPassword(request) : null)
    request.principal = await authenticate(db, pepper, token)
    if (scope !== 'any') demandScope(request.principal, scope)
  }
}

const bearerToken = (request: FastifyRequest): string | null =>
  /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1] ?? null

/** Of any user: the key says who calls. Source: RFC 7617, where the first colon ends the user's name. */
function basicPassword(request: FastifyRequest): string | null {
  const credentials = /^Basic +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1] ?? ''
  return /^[^:]*:(.+)$/.exec(Buffer.from(credentials, 'base64').toString())?.[1] ?? null
}

/** Who sent an authenticated request. */
export function principalOf(request: FastifyRequest): Principal {
  if (request.principal === null) throw new TurnmillError('unauthenticated', 'the route needs an API key')
  return request.principal
}
