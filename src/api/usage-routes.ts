import { readChatUsage, readUsage } from '../gateway/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { isAdmin, principalOf } from './authentication.ts'
import type { ApiContext, ApiServer } from './context.ts'
import { effectsOf } from './effects.ts'
import * as answers from './answers.ts'
import * as schemas from './schemas.ts'

const tags = ['usage']

const DAY_MS = 86_400_000

/** What is summed where nothing is said, and at most. */
const DEFAULT_DAYS = 30
const MAX_DAYS = 366

/** What model calls used and cost. */
export function registerUsageRoutes(app: ApiServer, { chats }: ApiContext): void {
  app.get('/v1/usage', {
    config: { scope: 'any' },
    schema: {
      tags,
      summary: 'Sum what your calls through the gateway used and cost; everybody’s for an admin',
      querystring: schemas.usageQuery,
      response: { 200: answers.usageAnswer },
    },
    handler: async (request) => {
      const { from, to, groupBy = null, userId = null, apiKeyId = null, chatId = null } = request.query
      const principal = principalOf(request)
      const period = toPeriod(from, to)
      const sums = await readUsage(effectsOf(request).db, {
        ...period,
        groupBy,
        apiKeyId,
        chatId,
        userId: isAdmin(principal) ? userId : principal.userId,
      })
      return { from: period.from.toISOString(), to: period.to.toISOString(), groupBy, ...sums }
    },
  })

  app.get('/v1/chats/:id/usage', {
    config: { scope: 'chats:read' },
    schema: {
      tags: ['chats'],
      summary: 'Sum what the chat used and cost: its turns, and its calls by purpose',
      params: schemas.idParams,
      response: { 200: answers.chatUsageAnswer },
    },
    handler: async (request) => {
      const { id } = await chats.get(request.params.id, principalOf(request).userId)
      return readChatUsage(effectsOf(request).db, id)
    },
  })
}

/** @throws {TurnmillError} `invalid_request` where it ends before it begins, or is too long. */
function toPeriod(from: string | undefined, to: string | undefined): { from: Date; to: Date } {
  const end = to === undefined ? new Date() : new Date(to)
  const start = from === undefined ? new Date(end.getTime() - DEFAULT_DAYS * DAY_MS) : new Date(from)
  const days = (end.getTime() - start.getTime()) / DAY_MS
  if (days <= 0 || days > MAX_DAYS)
    throw new TurnmillError(
      'invalid_request',
      `from ${start.toISOString()} to ${end.toISOString()} is no period of 1 ms to ${MAX_DAYS} days`,
    )
  return { from: start, to: end }
}
