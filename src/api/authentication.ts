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
  }
}

/** Before the body is read: who calls, and may they. A route that says nothing is for admins. */
export function createAuthenticator(db: Database, pepper: Secret) {
  return async (request: FastifyRequest): Promise<void> => {
    const scope = request.routeOptions.config.scope ?? 'admin'
    if (scope === 'public' || request.is404) return
    request.principal = await authenticate(db, pepper, bearerToken(request))
    if (scope !== 'any') demandScope(request.principal, scope)
  }
}

const bearerToken = (request: FastifyRequest): string | null =>
  /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1] ?? null

/** Who sent an authenticated request. */
export function principalOf(request: FastifyRequest): Principal {
  if (request.principal === null) throw new TurnmillError('unauthenticated', 'the route needs an API key')
  return request.principal
}
