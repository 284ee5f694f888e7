import { z } from 'zod'
import { createFile, deleteFile, MAX_FILE_BYTES, readFile } from '../files/index.ts'
import { IMAGE_TYPES } from '../protocol/messages.ts'
import { principalOf } from './authentication.ts'
import type { ApiContext, ApiServer } from './context.ts'
import { effectsOf } from './effects.ts'
import { registerScope } from './scope.ts'
import * as answers from './answers.ts'
import * as schemas from './schemas.ts'

const tags = ['files']
const read = { scope: 'chats:read' } as const
const write = { scope: 'chats:write' } as const

/** Nothing in a file is carried out by whoever opens it, and nobody but its owner keeps it. */
const AS_IT_IS = {
  'content-disposition': 'inline',
  'content-security-policy': "sandbox; default-src 'none'",
  'x-content-type-options': 'nosniff',
  'cache-control': 'private',
}

/** The images that messages name. A file belongs to whoever sent it, and to nobody else, admins among them. */
export function registerFileRoutes(app: ApiServer, { config }: Pick<ApiContext, 'config'>): void {
  registerUpload(app, config.filesPerUserBytes)

  app.get('/v1/files/:id', {
    config: read,
    schema: {
      tags,
      summary: 'Read a file',
      params: schemas.idParams,
      response: {
        200: { content: Object.fromEntries(IMAGE_TYPES.map((type) => [type, { schema: schemas.bytes }])) },
      },
    },
    handler: async (request, reply) => {
      const { db } = effectsOf(request)
      const { mediaType, bytes } = await readFile(db, principalOf(request).userId, request.params.id)
      return reply.headers(AS_IT_IS).type(mediaType).send(bytes)
    },
  })

  app.delete('/v1/files/:id', {
    config: write,
    schema: {
      tags,
      summary: 'Delete a file; messages that name it stay, without it',
      params: schemas.idParams,
      response: { 204: z.null() },
    },
    handler: async (request, reply) => {
      await deleteFile(effectsOf(request).db, principalOf(request).userId, request.params.id)
      return reply.code(204).send(null)
    },
  })
}

/** In a scope of its own: the body is the file, whatever kind of image it is said to be. */
function registerUpload(app: ApiServer, limitBytes: number): void {
  registerScope(app, { name: 'uploads' }, async (scope) => {
    scope.removeAllContentTypeParsers()
    for (const type of [/^image\//, 'application/octet-stream'])
      scope.addContentTypeParser(type, { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
    scope.post('/v1/files', {
      bodyLimit: MAX_FILE_BYTES,
      config: write,
      schema: {
        tags,
        summary: 'Keep an image for messages to name; one that none names is forgotten after a day',
        description:
          'The body is the file itself, up to 10 MB. What kind of image it is, its bytes say; the content type is not looked at.',
        consumes: [...IMAGE_TYPES, 'application/octet-stream'],
        body: schemas.bytes,
        response: { 201: answers.fileAnswer },
      },
      handler: async (request, reply) => {
        const owner = { userId: principalOf(request).userId, chatId: null, limitBytes }
        return reply.code(201).send(await createFile(effectsOf(request).db, owner, request.body))
      },
    })
  })
}
