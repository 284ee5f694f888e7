import type { FastifyRequest } from 'fastify'
import type { Database } from '../db/index.ts'
import {
  authenticate,
  demandScope,
  findKeyIn,
  rememberKeys,
  type Principal,
  type Scope,
} from '../keys/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import type { Secret } from '../protocol/secret.ts'
import type { ApiServer } from './context.ts'

declare module 'fastify' {
  interface FastifyRequest {
    principal: Principal | null
  }
  interface FastifyContextConfig {
    /** What the caller's key must be allowed to do; `public` needs no key. */
    scope?: Scope | 'public' | 'any'
    /** Whether the key may also come as the password of Basic authentication: that is what a browser asks for. */
    basic?: boolean
    /** A route of the gateway: the key comes as the SDKs of providers send theirs, and a refusal has their shape. */
    gateway?: boolean
  }
}

/**
 * How long the gateway's routes go by what a key was found to be, in ms. The gateway itself makes sure of the key in the
 * statement that writes the call down; what may be this old is its scopes.
 */
const GATEWAY_KEY_MS = 2000

/** How long a body may take before its sender is looked at once more, in ms: a revocation is effective within 5 s. */
const BODY_MS = 2000

/**
 * Before the body is read: who calls, and may they. A body may come slowly, for as long as its sender likes; what they were
 * allowed when it began says little once it is there. A route that says nothing is for admins.
 */
export function registerAuthentication(app: ApiServer, db: Database, pepper: Secret): void {
  const findKey = findKeyIn(db)
  const findGatewayKey = rememberKeys(findKey, GATEWAY_KEY_MS)
  const lookedAt = new WeakMap<FastifyRequest, number>()

  async function look(request: FastifyRequest): Promise<void> {
    const { scope = 'admin', gateway = false } = request.routeOptions.config
    if (scope === 'public' || request.is404) return
    const token = readToken(request)
    lookedAt.set(request, performance.now())
    request.principal = await authenticate(gateway ? findGatewayKey : findKey, pepper, token)
    if (scope !== 'any') demandScope(request.principal, scope)
  }

  app.decorateRequest('principal', null)
  app.addHook('onRequest', look)
  app.addHook('preValidation', async (request) => {
    const at = lookedAt.get(request)
    if (at !== undefined && performance.now() - at > BODY_MS) await look(request)
  })
}

/** The one place where a token is read from a request. */
function readToken(request: FastifyRequest): string | null {
  const { basic = false, gateway = false } = request.routeOptions.config
  if (gateway) return readGatewayToken(request)
  return bearerToken(request) ?? (basic ? basicPassword(request) : null)
}

/**
 * In either header of the providers' SDKs, or the same in both: of two keys nobody could say who calls, and a header that
 * cannot be read might hold another one.
 */
function readGatewayToken(request: FastifyRequest): string | null {
  const authorizations = new Set(headerValues(request, 'authorization'))
  const bearer = authorizations.size === 1 ? bearerToken(request) : null
  const { 'x-api-key': apiKey } = request.headers
  if (apiKey === undefined) return bearer
  if (typeof apiKey === 'string' && (authorizations.size === 0 || apiKey === bearer)) return apiKey
  throw new TurnmillError(
    'unauthenticated',
    'Authorization and x-api-key do not carry the same key, expected a key of Turnmill in one of them alone, or in both',
  )
}

/** All values of a header; of some that are sent twice Node itself keeps the first alone. */
const headerValues = ({ raw }: FastifyRequest, name: string): string[] =>
  raw.rawHeaders.filter((_, index, all) => index % 2 === 1 && all[index - 1]?.toLowerCase() === name)

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

/** Whether a request may see what belongs to others. */
export const isAdmin = ({ role, scopes }: Principal): boolean => role === 'admin' && scopes.includes('admin')
