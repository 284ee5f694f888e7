import { TurnmillError } from '../protocol/errors.ts'
import { parseEventId, watchChat, type Cursor } from '../streams/index.ts'
import { principalOf } from './authentication.ts'
import type { ApiContext, ApiServer } from './context.ts'
import { sendEventStream } from './event-stream.ts'
import * as schemas from './chat-schemas.ts'
import { idParams } from './schemas.ts'

/** The event stream of a chat. */
export function registerStreamRoute(
  app: ApiServer,
  { chats, config, logger, parts, stopping, watching }: ApiContext,
): void {
  /** @throws {TurnmillError} `invalid_request` for a cursor that this chat has not given yet. */
  async function demandReached(
    { snapshotVersion, position }: Cursor,
    chatId: string,
    version: number,
  ): Promise<void> {
    const [last] = position.turn === 0 ? [] : (await chats.turns(chatId, { limit: 1, after: null })).items
    if (snapshotVersion > version || position.turn > (last?.number ?? 0))
      throw new TurnmillError(
        'invalid_request',
        `the cursor is ahead of chat ${chatId}: it is of another one`,
      )
  }

  app.get('/v1/chats/:id/stream', {
    config: { scope: 'chats:read' },
    schema: {
      tags: ['chats'],
      summary:
        'Watch a chat (server-sent events: message, part, status, queue, action_required, retry, reset, turn)',
      params: idParams,
      querystring: schemas.streamQuery,
      headers: schemas.streamHeaders,
    },
    handler: async (request, reply) => {
      const chatId = request.params.id
      const { userId, apiKeyId } = principalOf(request)
      // A browser that reconnects sends the header, and the address it began with.
      const after = readCursor(request.headers['last-event-id'] ?? request.query.after)
      const { snapshotVersion } = await chats.get(chatId, userId)
      if (after !== null) await demandReached(after, chatId, snapshotVersion)
      const watched = {
        chatId,
        apiKeyId,
        after,
        log: parts,
        registry: watching,
        readChanges: (since: number) => chats.changes(chatId, userId, since),
        isRewritten: (since: number) => chats.isRewritten(chatId, since),
      }
      await sendEventStream(reply, (signal) => watchChat({ ...watched, signal }), {
        heartbeatMs: config.streamHeartbeatMs,
        signal: stopping,
        onError: (error) => logger.warn({ error, chatId }, 'an event stream broke off'),
      })
    },
  })
}

/** @throws {TurnmillError} `invalid_request` for what is no event's id. */
function readCursor(id: string | undefined): Cursor | null {
  if (id === undefined || id === '') return null
  const cursor = parseEventId(id)
  if (cursor === null)
    throw new TurnmillError(
      'invalid_request',
      `the cursor is ${JSON.stringify(id)}, expected the id of an event of this chat`,
    )
  return cursor
}
