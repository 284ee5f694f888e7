import type { FastifyRequest } from 'fastify'
import type { ChatsWithin } from '../chats/index.ts'
import type { Database } from '../db/index.ts'

declare module 'fastify' {
  interface FastifyRequest {
    effects: Effects | null
  }
}

/**
 * What a handler works on. With an `Idempotency-Key` it is the inside of the transaction that commits the key, so a
 * handler of POST or PATCH has no other way to the database: the context of the routes only reads.
 */
export interface Effects {
  db: Database
  chats: ChatsWithin['chats']
}

export function effectsOf(request: FastifyRequest): Effects {
  if (request.effects === null)
    throw new Error('the request has no effects yet, expected it to be in its handler')
  return request.effects
}
