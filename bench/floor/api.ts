/** The floor's API: one route that commits a message with its turn, and adds the job. */
import Fastify from 'fastify'
import { v7 as newId } from 'uuid'
import { openPool, openQueue, say } from './ground.ts'
import { findKey, insertTurn } from './statements.ts'

const pool = openPool()
const queue = await openQueue()
const app = Fastify()

const body = { type: 'object', required: ['content'], properties: { content: { type: 'string' } } }

app.post<{ Body: { content: string } }>('/turns', { schema: { body } }, async (request, reply) => {
  const token = request.headers.authorization?.slice('Bearer '.length)
  const [key] = (await pool.query<{ id: string; user_id: string }>(findKey(token))).rows
  if (key === undefined) return reply.code(401).send({ error: 'unauthenticated' })
  const chatId = newId()
  const turnId = newId()
  const parts = JSON.stringify([{ type: 'text', text: request.body.content }])
  await pool.query(insertTurn(chatId, key.user_id, turnId, key.id, parts))
  await queue.add('turn', { turnId }, { jobId: `turn-${turnId}` })
  return reply.code(201).send({ chatId, turnId })
})

await app.listen({ host: '127.0.0.1', port: 0 })
say('listening', { addresses: app.addresses() })
process.on('SIGTERM', () => process.exit(0))
