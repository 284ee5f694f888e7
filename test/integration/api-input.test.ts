import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { SCOPES } from '../../src/keys/index.ts'
import { newId } from '../../src/protocol/ids.ts'
import { createClient } from '../support/client.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

interface LiveRoute {
  method: string
  url: string
  takesBody: boolean
}

let turnmill: Turnmill
let owner: TestUser
let chatId: string
let messageId: string

beforeAll(async () => {
  turnmill = await startTurnmill({ allowByok: true })
  owner = await turnmill.addUser()
  const { chat, message, turn } = await owner.client.create('mine')
  await owner.client.ended(chat.id, turn.id)
  chatId = chat.id
  messageId = message.id
})
afterAll(() => turnmill.stop())

/** The routes as the server describes itself, so that a new one cannot be forgotten here. */
async function liveRoutes(): Promise<LiveRoute[]> {
  const { body } = await owner.client.request<{ paths: Record<string, Record<string, unknown>> }>(
    'GET',
    '/openapi.json',
  )
  return Object.entries(body.paths).flatMap(([url, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({
      method: method.toUpperCase(),
      url,
      takesBody: typeof operation === 'object' && operation !== null && 'requestBody' in operation,
    })),
  )
}

const PUBLIC = new Set(['/healthz', '/readyz', '/metrics'])

const fill = (url: string, values: Record<string, string>): string =>
  url.replaceAll(/\{(\w+)\}/g, (_, name: string) => values[name] ?? newId())

/** Everything a refused request might have written. */
async function countRows(): Promise<Record<string, number>> {
  const { prisma } = turnmill.services.db
  const [chats, messages, turns, queued, keys, providers, models, overrides, users, files, mcpServers] =
    await Promise.all([
      prisma.chat.count(), prisma.message.count(), prisma.turn.count(), prisma.queuedMessage.count(),
      prisma.apiKey.count({ where: { revokedAt: null } }), prisma.provider.count(), prisma.modelConfig.count(), prisma.modelOverride.count(),
      prisma.user.count(), prisma.file.count(), prisma.mcpServer.count(),
    ]) // prettier-ignore
  return { chats, messages, turns, queued, keys, providers, models, overrides, users, files, mcpServers }
}

describe('a caller without a usable key (A1)', () => {
  const expired = async () =>
    (await turnmill.addKey(owner.userId, ['chats:read', 'chats:write'], new Date(Date.now() - 1000))).token
  const revoked = async () => {
    const key = await turnmill.addKey(owner.userId)
    await turnmill.admin.client.request('DELETE', `/v1/api-keys/${key.apiKeyId}`)
    return key.token
  }
  const wrongSecret = async () => owner.token.replace(/.{43}$/, 'A'.repeat(43))

  test('gets one answer on every route, whatever is wrong with the key, and nothing is written', async () => {
    const tokens = [
      '',
      'nonsense',
      'tm_x_y',
      `tm_${'0'.repeat(32)}_${'A'.repeat(43)}`,
      await expired(),
      await revoked(),
      await wrongSecret(),
    ]
    const before = await countRows()
    const bodies = new Set<string>()
    for (const { method, url } of await liveRoutes()) {
      if (PUBLIC.has(url)) continue
      for (const token of tokens) {
        const answer = await createClient(turnmill.address, token).request<Record<string, unknown>>(
          method,
          fill(url, { id: chatId, messageId, queuedId: '1' }),
        )
        expect({ url, token: token.slice(0, 5), status: answer.status }).toMatchObject({ status: 401 })
        bodies.add(JSON.stringify({ ...answer.body, requestId: undefined }))
      }
    }
    expect(bodies.size).toBe(1)
    expect(await countRows()).toEqual(before)
  })

  test.each(['/v1/me', '/v1/gateway/upstream/v1/models'])(
    'is not noted as a use of its key (GET %s)',
    async (url) => {
      const key = await turnmill.addKey(owner.userId, ['chats:read', 'gateway:use'])
      const lastUse = async () =>
        (await turnmill.services.db.prisma.apiKey.findUniqueOrThrow({ where: { id: key.apiKeyId } }))
          .lastUsedAt
      const guess = createClient(turnmill.address, key.token.replace(/.{43}$/, 'A'.repeat(43)))
      expect(await guess.request('GET', url)).toMatchObject({ status: 401 })
      expect(await lastUse()).toBeNull()
      await key.client.request('GET', url)
      expect(await lastUse()).not.toBeNull()
    },
  )
})

/** Bodies that would be taken, where a message's is not. */
const BODIES_OF: Record<string, object> = {
  'PATCH /v1/chats/{id}': { title: 'not mine' },
  'PUT /v1/chats/{id}/debug': { minutes: 5 },
  'POST /v1/chats/{id}/tool-results': { results: [{ toolCallId: 'x', output: 1 }] },
}

describe('another user (A2)', () => {
  test('gets 404 for every chat, message, queue, turn and stream that is not theirs, without effect', async () => {
    const stranger = await turnmill.addUser()
    const routes = (await liveRoutes()).filter(({ url }) => url.startsWith('/v1/chats/{id}'))
    expect(routes.length).toBeGreaterThan(5)
    const before = await countRows()
    for (const { method, url } of routes) {
      const body = method === 'GET' ? undefined : (BODIES_OF[`${method} ${url}`] ?? { content: 'not mine' })
      const answer = await stranger.client.request(
        method,
        fill(url, { id: chatId, messageId, queuedId: '1' }),
        body,
      )
      expect({ method, url, ...answer }).toMatchObject({ status: 404, body: { code: 'not_found' } })
    }
    expect(await countRows()).toEqual(before)
  })

  test('cannot revoke a key that is not theirs, nor make one for somebody else or with more than they have', async () => {
    const stranger = await turnmill.addUser()
    expect(await stranger.client.request('DELETE', `/v1/api-keys/${owner.apiKeyId}`)).toMatchObject({
      status: 404,
    })
    expect(await owner.client.request('GET', '/v1/me')).toMatchObject({ status: 200 })
    const forOwner = await stranger.client.request('POST', '/v1/api-keys', {
      name: 'x',
      userId: owner.userId,
    })
    expect(forOwner).toMatchObject({ status: 403, body: { code: 'forbidden' } })
    const admin = await stranger.client.request('POST', '/v1/api-keys', { name: 'x', scopes: ['admin'] })
    expect(admin).toMatchObject({ status: 403, body: { code: 'forbidden' } })
  })

  test('reaches no admin route', async () => {
    const urls = ['/v1/providers', '/v1/model-configs', '/v1/model-overrides', '/v1/budgets', '/v1/users', '/v1/mcp-servers'] // prettier-ignore
    for (const url of urls)
      expect(await owner.client.request('GET', url)).toMatchObject({
        status: 403,
        body: { code: 'forbidden' },
      })
  })

  test('is watched no longer by a key that was revoked', async () => {
    const key = await turnmill.addKey(owner.userId)
    const watch = key.client.watch(chatId)
    await watch.until((event) => event.type === 'queue')
    await owner.client.request('DELETE', `/v1/api-keys/${key.apiKeyId}`)
    await expect(watch.until(() => false)).rejects.toThrow('the stream ended')
  })

  test('with a key that may only read cannot write', async () => {
    const reader = await turnmill.addKey(owner.userId, ['chats:read'])
    expect(await reader.client.request('GET', `/v1/chats/${chatId}`)).toMatchObject({ status: 200 })
    expect(await reader.client.request('POST', '/v1/chats', { content: 'x' })).toMatchObject({ status: 403 })
  })
})

describe('a body that sets what is not the caller’s to set (A3)', () => {
  test.each([
    'apiKeyId',
    'ownerId',
    'userId',
    'status',
    'epoch',
    'baseUrl',
    'headers',
    'activeTurnId',
    'role',
  ])('%s is refused', async (field) => {
    const answer = await owner.client.request<{ detail: string }>('POST', '/v1/chats', {
      content: 'hi',
      [field]: newId(),
    })
    expect(answer).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
    expect(answer.body.detail).toContain(field)
  })
})

describe('every route with a body of the wrong kind (A4)', () => {
  const BODIES: [name: string, body: string | undefined, contentType: string][] = [
    ['nothing', undefined, 'application/json'],
    ['an empty body', '', 'application/json'],
    ['null', 'null', 'application/json'],
    ['an array', '[]', 'application/json'],
    ['a number', '7', 'application/json'],
    [
      'wrong types',
      '{"content": 7, "name": {}, "type": [], "key": 1, "providerId": true}',
      'application/json',
    ],
    ['blank text', '{"content": "   ", "name": "", "key": ""}', 'application/json'],
    ['truncated JSON', '{"content": "h', 'application/json'],
    ['a prototype', '{"__proto__": {"content": "x"}}', 'application/json'],
    ['another content type', 'content=hi', 'application/x-www-form-urlencoded'],
    ['text', 'hello', 'text/plain'],
  ]

  test.each(BODIES)('%s is answered with 4xx problem+json and a code', async (_, body, contentType) => {
    const before = await countRows()
    for (const { method, url, takesBody } of await liveRoutes()) {
      if (!takesBody) continue
      const response = await fetch(
        turnmill.address + fill(url, { id: chatId, messageId, queuedId: '1', provider: 'fake' }),
        {
          method,
          headers: { authorization: `Bearer ${turnmill.admin.token}`, 'content-type': contentType },
          ...(body === undefined ? {} : { body }),
        },
      )
      const answer = (await response.json()) as { code: string }
      expect({ method, url, status: response.status, ...answer }).toMatchObject({ code: expect.any(String) })
      expect(response.status).toBeGreaterThanOrEqual(400)
      expect(response.status).toBeLessThan(500)
      expect(response.headers.get('content-type')).toMatch(/^application\/problem\+json/)
    }
    expect(await countRows()).toEqual(before)
    expect(await owner.client.request('GET', '/healthz')).toMatchObject({ status: 200 })
  })

  test('too large is 413, which says how large it may be', async () => {
    const answer = await owner.client.request('POST', '/v1/chats', { content: 'x'.repeat(1_100_000) })
    expect(answer).toMatchObject({
      status: 413,
      body: {
        code: 'payload_too_large',
        detail:
          'the body is larger than the 1048576 bytes that POST /v1/chats takes; upload images by POST /v1/files, and name them by fileId',
      },
    })
    const file = await owner.client.request('POST', '/v1/files', Buffer.alloc(11_000_000))
    expect(file).toMatchObject({
      status: 413,
      body: { detail: 'the body is larger than the 10485760 bytes that POST /v1/files takes' },
    })
  })

  test.each([
    ['/v1/chats', 'application/x-www-form-urlencoded', 'expected application/json'],
    ['/v1/chats', 'text/plain; charset=utf-8', 'expected application/json'],
    [
      '/v1/files',
      'text/plain',
      'expected image/png, image/jpeg, image/gif, image/webp, or application/octet-stream',
    ],
  ])('POST %s of %s is 415, which says what to send', async (path, contentType, expected) => {
    const answer = await owner.client.request(
      'POST',
      path,
      { content: 'hi' },
      { 'content-type': contentType },
    )
    expect(answer).toMatchObject({
      status: 415,
      body: {
        code: 'unsupported_media_type',
        detail: `the Content-Type is ${JSON.stringify(contentType)}, ${expected}`,
      },
    })
  })

  const blank = 'expected text that is not blank'
  const part =
    'expected {"type": "text", "text": "…"} with text that is not blank, or {"type": "image"} with a data URL as image, or a fileId'
  test.each<[content: unknown, detail: string]>([
    ['', blank],
    ['  ', blank],
    [undefined, 'expected a text, or a list of parts'],
    [7, 'expected a text, or a list of parts'],
    [[], 'expected 1 to 100 parts'],
    [[{ type: 'image' }], `0: ${part}`],
    [['text'], `0: ${part}`],
    [Array.from({ length: 21 }, () => ({ type: 'image', fileId: newId() })), 'expected 20 images at most'],
  ])('whose content is %j is told what content is', async (content, detail) => {
    const answer = await owner.client.request('POST', '/v1/chats', { content })
    expect(answer).toMatchObject({ status: 400, body: { code: 'invalid_request', detail: `body/content: ${detail}` } }) // prettier-ignore
  })

  test('of which a part is blank is told which one', async () => {
    const content = [
      { type: 'text', text: 'a' },
      { type: 'text', text: '' },
    ]
    expect(await owner.client.request('POST', '/v1/chats', { content })).toMatchObject({
      status: 400,
      body: { detail: `body/content/1/text: ${blank}` },
    })
  })

  test('a conflict is not said to be of names alone', async () => {
    const answer = await turnmill.admin.client.request('DELETE', `/v1/providers/${turnmill.provider.id}`)
    expect(answer).toMatchObject({
      status: 409,
      body: { code: 'conflict', title: expect.stringContaining('`detail` says which, and what to do') },
    })
  })

  test.each(['/v1/chats/not-an-id', '/v1/chats?limit=0', '/v1/chats?after=x', '/v1/chats?limit=9999'])(
    'GET %s is 400',
    async (path) => {
      expect(await owner.client.request('GET', path)).toMatchObject({
        status: 400,
        body: { code: 'invalid_request' },
      })
    },
  )

  test.each(['connection error', 'timeout exceeded when trying to connect'])(
    'words of a failing database in it are still the client’s: %s',
    async (words) => {
      const url = '/v1/chats'
      expect(await turnmill.admin.client.request('POST', url, { content: 'x', [words]: 1 })).toMatchObject({
        status: 400,
        body: { code: 'invalid_request' },
      })
    },
  )

  test('an unknown route is 404', async () => {
    expect(await owner.client.request('GET', '/v1/nothing')).toMatchObject({
      status: 404,
      body: { code: 'not_found' },
    })
    expect(await owner.client.request('PUT', '/v1/chats')).toMatchObject({
      status: 404,
      body: { code: 'not_found' },
    })
  })

  test('text that Postgres cannot hold is accepted with U+FFFD in its place', async () => {
    const { chat, message } = await owner.client.create('a\u0000b\ud800c')
    await owner.client.settled(chat.id)
    expect(message.parts).toEqual([{ type: 'text', text: 'a\ufffdb\ufffdc' }])
  })

  test('an unknown model is refused before anything is written', async () => {
    const before = await countRows()
    const answer = await owner.client.request('POST', '/v1/chats', { content: 'hi', modelConfigId: newId() })
    expect(answer).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
    expect(await countRows()).toEqual(before)
  })
})

describe('an archived chat (A8)', () => {
  test('takes neither messages nor edits', async () => {
    const { chat, message, turn } = await owner.client.create('soon archived')
    await owner.client.ended(chat.id, turn.id)
    await turnmill.services.db.prisma.chat.update({
      where: { id: chat.id },
      data: { archivedAt: new Date() },
    })
    const path = `/v1/chats/${chat.id}/messages`
    expect(await owner.client.request('POST', path, { content: 'x' })).toMatchObject({
      status: 409,
      body: { code: 'chat_archived' },
    })
    expect(await owner.client.request('PATCH', `${path}/${message.id}`, { content: 'x' })).toMatchObject({
      status: 409,
      body: { code: 'chat_archived' },
    })
    expect(await owner.client.turns(chat.id)).toHaveLength(1)
  })
})

describe('secrets', () => {
  test('go in and never come out', async () => {
    const key = 'sk-a-secret-that-went-in-0123456789'
    const created = await turnmill.admin.client.request('POST', '/v1/providers', {
      name: 'second',
      type: 'openai',
      baseUrl: 'https://example.com/v1',
      keys: [key],
    })
    expect(created).toMatchObject({ status: 201, body: { keys: [{ hint: 'sk-…6789' }] } })
    const listed = await turnmill.admin.client.request('GET', '/v1/providers')
    expect(JSON.stringify([created.body, listed.body])).not.toContain(key)
    const stored = await turnmill.services.db.prisma.providerKey.findMany({})
    expect(JSON.stringify(stored)).not.toContain(key)
    const again = await turnmill.admin.client.request('POST', '/v1/providers', {
      name: 'second',
      type: 'openai',
      baseUrl: 'https://example.com/v1',
    })
    expect(again).toMatchObject({ status: 409, body: { code: 'conflict' } })
  })
})

/** A body that its sender finishes when it likes. */
async function sendSlowly(user: TestUser, path: string, body: object, meanwhile: () => Promise<void>) {
  const json = JSON.stringify(body)
  const socket = connect(Number(new URL(turnmill.address).port), '127.0.0.1')
  await once(socket, 'connect')
  socket.write(
    `POST ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${user.token}\r\nContent-Type: application/json\r\n` +
      `Content-Length: ${Buffer.byteLength(json)}\r\nConnection: close\r\n\r\n`,
  )
  await sleep(200)
  await meanwhile()
  await sleep(2500)
  socket.write(json)
  let answer = ''
  for await (const chunk of socket) answer += String(chunk)
  return Number(answer.split(' ')[1])
}

describe('a request whose body comes seconds later', () => {
  const revoke = (user: TestUser) => async () => {
    await user.client.request('DELETE', `/v1/api-keys/${user.apiKeyId}`)
  }

  test('is taken where its key is still good', async () => {
    const user = await turnmill.addUser()
    expect(await sendSlowly(user, '/v1/chats', { content: 'slow' }, async () => undefined)).toBe(201)
  })

  test('writes nothing where its key has been revoked meanwhile, neither a turn nor a new key', async () => {
    const user = await turnmill.addUser()
    const other = await turnmill.addUser()
    const before = await countRows()
    expect(await sendSlowly(user, '/v1/api-keys', { name: 'after' }, revoke(user))).toBe(401)
    expect(await sendSlowly(other, '/v1/chats', { content: 'slow' }, revoke(other))).toBe(401)
    // Those that are not revoked.
    const { chats, turns, keys = 0 } = before
    expect(await countRows()).toMatchObject({ chats, turns, keys: keys - 2 })
  })

  test('makes no admin where its sender is none any more', async () => {
    const user = await turnmill.addUser([...SCOPES], 'admin')
    const demote = async (): Promise<void> => {
      const where = { id: user.userId }
      await turnmill.services.db.prisma.user.update({ where, data: { role: 'member' } })
    }
    expect(await sendSlowly(user, '/v1/users', { name: 'x', role: 'admin' }, demote)).toBe(403)
  })
})
