import { openDatabase } from '../../src/db/index.ts'
import { loadImages, storeImages } from '../../src/files/index.ts'
import { newId } from '../../src/protocol/ids.ts'
import {
  IMAGE_TYPES,
  type ImagePart,
  type MessagePart,
  type ModelMessage,
} from '../../src/protocol/messages.ts'
import type { ChatView, MessageView, QueuedMessageView } from '../../src/protocol/views.ts'
import type { Answer, Started, TestClient } from '../support/client.ts'
import { hold } from '../support/fake-upstream.ts'
import { dataUrl, imageBytes, PNG, WHOLE } from '../support/images.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

interface FileAnswer {
  id: string
  mediaType: string
  size: number
  createdAt: string
}

interface Problem {
  code: string
  detail: string
}

const MEGABYTE = 1024 * 1024

let turnmill: Turnmill
let user: TestUser
let stranger: TestUser

beforeAll(async () => {
  turnmill = await startTurnmill({
    environment: { TURNMILL_FILES_PER_USER_BYTES: String(60 * MEGABYTE) },
  })
})
afterAll(() => turnmill.stop())
beforeEach(async () => {
  turnmill.upstream.reset()
  user = await turnmill.addUser()
  stranger = await turnmill.addUser()
})

const upload = <T = FileAnswer>(
  body: Buffer,
  extra: Record<string, string> = {},
  client: TestClient = user.client,
): Promise<Answer<T>> => client.request<T>('POST', '/v1/files', body, extra)

const uploaded = async (body: Buffer = PNG): Promise<string> => (await upload(body)).body.id

const download = (id: string, { token } = user, method = 'GET'): Promise<Response> =>
  fetch(`${turnmill.address}/v1/files/${id}`, { method, headers: { authorization: `Bearer ${token}` } })

const isThere = async (id: string): Promise<boolean> => (await download(id)).status === 200

describe('an upload', () => {
  test.each(IMAGE_TYPES)('of %s is answered with what it is, and read as it was sent', async (type) => {
    const bytes = imageBytes(type, 5000)
    const { status, body } = await upload(bytes)
    expect({ status, body }).toMatchObject({ status: 201, body: { mediaType: type, size: 5000 } })
    const file = await download(body.id)
    expect(Buffer.from(await file.arrayBuffer()).equals(bytes)).toBe(true)
    expect(Object.fromEntries(file.headers)).toMatchObject({
      'content-type': type,
      'content-length': '5000',
      'content-disposition': 'inline',
      'content-security-policy': "sandbox; default-src 'none'",
      'x-content-type-options': 'nosniff',
      'cache-control': 'private',
    })
  })

  test('is what its bytes say, whatever the content type says', async () => {
    await expect(upload(PNG, { 'content-type': 'image/svg+xml' })).resolves.toMatchObject({
      status: 201,
      body: { mediaType: 'image/png' },
    })
  })

  const notAnImage = { status: 415, body: { code: 'unsupported_media_type' } }
  test.each([
    ['text that is called an image', Buffer.from('<svg/>'), 'image/png', notAnImage],
    ['an image that is called JSON', PNG, 'application/json', notAnImage],
    ['an image that is called text', PNG, 'text/plain', notAnImage],
    ['nothing', Buffer.alloc(0), 'image/png', notAnImage],
    ...IMAGE_TYPES.map((type): [string, Buffer, string, object] => [
      `half of ${type}`,
      WHOLE[type].subarray(0, -1),
      type,
      { status: 400, body: { code: 'invalid_request', detail: expect.stringContaining('cut off') } },
    ]),
    [
      'too much',
      imageBytes('image/png', 10 * MEGABYTE + 1),
      'image/png',
      { status: 413, body: { code: 'payload_too_large' } },
    ],
  ])('of %s is refused', async (_, body, contentType, refusal) => {
    await expect(upload(body, { 'content-type': contentType })).resolves.toMatchObject(refusal)
    expect(await turnmill.services.db.prisma.file.count({ where: { userId: user.userId } })).toBe(0)
  })

  test('without a body is refused', async () => {
    await expect(user.client.request('POST', '/v1/files')).resolves.toMatchObject({ status: 400 })
  })

  test('may have 10 MB, until the files of the user take all the room they may', async () => {
    const large = imageBytes('image/jpeg', 10 * MEGABYTE)
    for (let count = 0; count < 6; count++)
      await expect(upload(large)).resolves.toMatchObject({ status: 201 })
    await expect(upload(PNG)).resolves.toMatchObject({ status: 409, body: { code: 'files_full' } })
    await expect(
      user.client.request('POST', '/v1/chats', { content: [{ type: 'image', image: dataUrl(PNG) }] }),
    ).resolves.toMatchObject({ status: 409, body: { code: 'files_full' } })
    await expect(upload(PNG, {}, stranger.client)).resolves.toMatchObject({ status: 201 })
  })

  test('under an idempotency key happens once, and the key stands for these bytes', async () => {
    const key = { 'idempotency-key': 'k' }
    const [first, second] = [await upload(PNG, key), await upload(PNG, key)]
    expect(second.body).toEqual(first.body)
    expect(second.headers.get('idempotency-replayed')).toBe('true')
    await expect(upload(imageBytes('image/png'), key)).resolves.toMatchObject({ status: 422 })
    expect(await turnmill.services.db.prisma.file.count({ where: { userId: user.userId } })).toBe(1)
  })
})

describe('a file', () => {
  test('belongs to whoever sent it, and not to an admin either', async () => {
    const id = await uploaded()
    for (const other of [stranger, turnmill.admin])
      for (const method of ['GET', 'DELETE'])
        expect({ method, status: (await download(id, other, method)).status }).toEqual({
          method,
          status: 404,
        })
    expect(await isThere(id)).toBe(true)
  })

  test('that was deleted is gone', async () => {
    const id = await uploaded()
    expect((await download(id, user, 'DELETE')).status).toBe(204)
    expect((await download(id, user, 'DELETE')).status).toBe(404)
    expect(await isThere(id)).toBe(false)
  })

  test('wants the scopes of chats', async () => {
    const reader = await turnmill.addKey(user.userId, ['chats:read'])
    await expect(upload(PNG, {}, reader.client)).resolves.toMatchObject({ status: 403 })
    const id = await uploaded()
    expect((await download(id, { ...user, token: reader.token })).status).toBe(200)
  })
})

const image = (part: MessagePart | undefined): ImagePart => {
  if (part?.type !== 'image') throw new Error(`expected an image, got ${JSON.stringify(part)}`)
  return part
}

describe('a message with images', () => {
  const create = <T = Started & { chat: ChatView }>(
    content: unknown,
    { client } = user,
  ): Promise<Answer<T>> => client.request<T>('POST', '/v1/chats', { content })

  test('keeps a data URL as a file, names an uploaded one, and needs no text', async () => {
    const fileId = await uploaded(imageBytes('image/webp'))
    const { status, body } = await create([
      { type: 'image', image: dataUrl(PNG, 'image/jpeg') },
      { type: 'image', fileId },
    ])
    expect(status).toBe(201)
    const [first, second] = body.message.parts
    expect(first).toEqual({ type: 'image', fileId: image(first).fileId, mediaType: 'image/png' })
    expect(second).toEqual({ type: 'image', fileId, mediaType: 'image/webp' })
    const kept = await download(image(first).fileId)
    expect(Buffer.from(await kept.arrayBuffer()).equals(PNG)).toBe(true)
    await user.client.ended(body.chat.id, body.turn.id)
    // Watchers and readers are given the file's id, never its bytes.
    const watch = user.client.watch(body.chat.id)
    const events = await watch.until((event) => event.type === 'queue')
    watch.close()
    const messages: unknown[] = events.flatMap(({ event }) =>
      event.type === 'message' ? [event.message] : [],
    )
    expect(messages[0]).toMatchObject({ parts: body.message.parts })
    expect(JSON.stringify(events)).not.toContain(PNG.toString('base64'))
  })

  test('is sent, queued, edited in the queue and edited in the history', async () => {
    const gate = hold()
    turnmill.upstream.script((request) =>
      request.text === 'first' ? { type: 'answer', gate, gateAt: 0 } : { type: 'answer' },
    )
    const { chat, message } = await user.client.create('first')
    await turnmill.upstream.waitForRequest(1)
    const content = [{ type: 'text', text: 'look' }, { type: 'image', image: dataUrl(PNG) }] // prettier-ignore
    const path = `/v1/chats/${chat.id}`
    const queued = await user.client.request<{ queuedMessage: QueuedMessageView }>('POST', `${path}/messages`, { content }) // prettier-ignore
    const kept = image(queued.body.queuedMessage.parts[1])
    const edited = await user.client.request<QueuedMessageView>(
      'PATCH',
      `${path}/queue/${queued.body.queuedMessage.id}`,
      { content: [{ type: 'image', fileId: kept.fileId }, { type: 'text', text: 'again' }] }, // prettier-ignore
    )
    expect(edited).toMatchObject({ status: 200, body: { parts: [kept, { type: 'text', text: 'again' }] } })
    gate.release()
    await user.client.settled(chat.id)
    expect((await user.client.messages(chat.id))[2]?.parts).toEqual([kept, { type: 'text', text: 'again' }])
    const replaced = await user.client.request<{ message: MessageView }>(
      'PATCH',
      `${path}/messages/${message.id}`,
      { content: [{ type: 'image', image: dataUrl(PNG) }] },
    )
    expect(replaced).toMatchObject({ status: 202, body: { message: { parts: [{ type: 'image' }] } } })
    await expect(user.client.settled(chat.id)).resolves.toMatchObject({ status: 'idle' })
  })

  test('is found by its text', async () => {
    const word = newId()
    const { body } = await create([{ type: 'image', image: dataUrl(PNG) }, { type: 'text', text: word }]) // prettier-ignore
    const found = await user.client.request<{ items: ChatView[] }>('GET', `/v1/chats?text=${word}`)
    expect(found.body.items.map(({ id }) => id)).toEqual([body.chat.id])
  })

  test('sent once under a key keeps its images once', async () => {
    const sent = { content: [{ type: 'image', image: dataUrl(PNG) }] }
    const key = { 'idempotency-key': 'k' }
    const [first, second] = [
      await user.client.request<Started>('POST', '/v1/chats', sent, key),
      await user.client.request<Started>('POST', '/v1/chats', sent, key),
    ]
    expect(second.body).toEqual(first.body)
    expect(await turnmill.services.db.prisma.file.count({ where: { userId: user.userId } })).toBe(1)
  })

  test('that is refused under a key leaves no image behind', async () => {
    const content = [{ type: 'image', image: dataUrl(PNG) }]
    const path = `/v1/chats/${newId()}/messages`
    const answer = await user.client.request('POST', path, { content }, { 'idempotency-key': 'k' })
    expect(answer.status).toBe(404)
    expect(await turnmill.services.db.prisma.file.count({ where: { userId: user.userId } })).toBe(0)
  })

  test.each<[string, object, RegExp]>([
    ['no data URL', { image: 'https://example.com/x.png' }, /body\/content\/1\/image: expected a data URL/],
    ['no base64 in it', { image: 'data:image/png,xyz' }, /content\/1\/image: expected a data URL/],
    ['bad base64', { image: 'data:image/png;base64,iVBORw0KGgo*' }, /content\/1\/image: .*base64/],
    [
      'base64 that ends too early',
      { image: 'data:image/png;base64,iVBORw0KGgo' },
      /content\/1\/image: .*base64/,
    ],
    ['no bytes', { image: 'data:image/png;base64,' }, /content\/1\/image: .*no image/],
    ['SVG', { image: dataUrl(Buffer.from('<svg/>'), 'image/svg+xml') }, /content\/1\/image: .*no image/],
    [
      'something else that is called PNG',
      { image: dataUrl(Buffer.from('%PDF-1.7')) },
      /content\/1\/image: .*no image/,
    ],
    [
      'half an image',
      { image: dataUrl(PNG.subarray(0, -1)) },
      /content\/1\/image: the image is cut off: its 69 bytes do not reach the end of the image\/png/,
    ],
    ['a file that is not there', { fileId: newId() }, /content\/1\/fileId: file .* does not exist/],
    ['neither', {}, /content/],
    ['a file and a kind of it', { fileId: newId(), mediaType: 'image/png' }, /content/],
    ['bytes beside a file', { fileId: newId(), data: 'AAAA' }, /content/],
  ])('with %s is refused by the place of the part, and nothing is written', async (_, part, detail) => {
    const refused = await create<Problem>([
      { type: 'image', image: dataUrl(PNG) },
      { type: 'image', ...part },
    ])
    expect(refused).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
    expect(refused.body.detail).toMatch(detail)
    const { prisma } = turnmill.services.db
    expect(await prisma.file.count({ where: { userId: user.userId } })).toBe(0)
    expect(await prisma.chat.count({ where: { userId: user.userId } })).toBe(0)
  })

  test('cannot name a file of somebody else', async () => {
    const fileId = await uploaded()
    for (const other of [stranger, turnmill.admin])
      await expect(create([{ type: 'image', fileId }], other)).resolves.toMatchObject({
        status: 400,
        body: { code: 'invalid_request' },
      })
  })

  test('may hold 20 of them', async () => {
    const fileId = await uploaded()
    const images = (count: number) => Array.from({ length: count }, () => ({ type: 'image', fileId }))
    await expect(create(images(20))).resolves.toMatchObject({ status: 201 })
    await expect(create<Problem>(images(21))).resolves.toMatchObject({
      status: 400,
      body: { detail: expect.stringContaining('20 images at most') },
    })
  })

  test('counts with its data URLs into the size of the body', async () => {
    const content = [{ type: 'image', image: dataUrl(imageBytes('image/png', MEGABYTE)) }]
    await expect(create(content)).resolves.toMatchObject({ status: 413 })
  })
})

describe('what a model is shown of images', () => {
  const load = (messages: ModelMessage[], userId = user.userId): Promise<ModelMessage[]> =>
    loadImages(turnmill.services.db, userId, messages)
  const userMessage = (...parts: MessagePart[]): ModelMessage => ({ role: 'user', parts })
  const png = (fileId: string): ImagePart => ({ type: 'image', fileId, mediaType: 'image/png' })
  const dataOf = (messages: ModelMessage[]): (string | undefined)[] =>
    messages.flatMap(({ parts }) => parts.map((part) => (part.type === 'image' ? part.data : undefined)))

  test('is the bytes, of tool results too', async () => {
    const large = imageBytes('image/png', 3000)
    const [a, b] = [await uploaded(), await uploaded(large)]
    const result: MessagePart = {
      type: 'tool-result', toolCallId: 'c', toolName: 't', output: null, isError: false, images: [png(b)],
    } // prettier-ignore
    const messages = [
      userMessage({ type: 'text', text: 'hi' }, png(a)),
      { role: 'tool' as const, parts: [result] },
    ]
    const before = structuredClone(messages)
    expect(await load(messages)).toEqual([
      userMessage({ type: 'text', text: 'hi' }, { ...png(a), data: PNG.toString('base64') }),
      { role: 'tool', parts: [{ ...result, images: [{ ...png(b), data: large.toString('base64') }] }] },
    ])
    expect(messages).toEqual(before)
  })

  test('asks the database once, and not where there is none', async () => {
    const fileId = await uploaded()
    // Of its own: a worker asks its database at any time.
    const db = openDatabase({
      url: turnmill.config.databaseUrl ?? '',
      poolSize: 1,
      connectTimeoutMs: 10_000,
      silenceMs: 10_000,
      applicationName: 'test-count',
    })
    try {
      let acquired = 0
      db.pool.on('acquire', () => acquired++)
      await loadImages(db, user.userId, [userMessage({ type: 'text', text: 'hi' })])
      expect(acquired).toBe(0)
      await loadImages(db, user.userId, [userMessage(png(fileId)), userMessage(png(fileId))])
      expect(acquired).toBe(1)
    } finally {
      await db.close()
    }
  })

  test('is nothing of files that are gone, or belong to somebody else', async () => {
    const fileId = await uploaded()
    expect(dataOf(await load([userMessage(png(fileId))], stranger.userId))).toEqual([undefined])
    expect(dataOf(await load([userMessage(png(newId()), png(fileId))]))).toEqual([
      undefined,
      PNG.toString('base64'),
    ])
  })

  test('is the newest 20', async () => {
    const fileId = await uploaded()
    const shown = dataOf(await load(Array.from({ length: 25 }, () => userMessage(png(fileId)))))
    expect(shown.map((data) => data !== undefined)).toEqual([...Array<boolean>(5).fill(false), ...Array<boolean>(20).fill(true)]) // prettier-ignore
  })

  test('is the newest that fit into 20 MB, however often one is named', async () => {
    const [a, b] = [await uploaded(imageBytes('image/png', 9 * MEGABYTE)), await uploaded(imageBytes('image/gif', 9 * MEGABYTE))] // prettier-ignore
    const shownOf = async (...ids: string[]): Promise<boolean[]> =>
      dataOf(await load([userMessage(...ids.map(png))])).map((data) => data !== undefined)
    expect(await shownOf(a, b, a)).toEqual([false, true, true])
    expect(await shownOf(a, a, a)).toEqual([false, true, true])
    const small = await uploaded()
    expect(await shownOf(small, a, b, a)).toEqual([false, false, true, true])
  })

  test('is read where a turn runs', async () => {
    const fileId = await uploaded()
    const content = [{ type: 'image', fileId }, { type: 'text', text: 'hi' }] // prettier-ignore
    const { body } = await user.client.request<Started & { chat: ChatView }>('POST', '/v1/chats', { content })
    await expect(user.client.ended(body.chat.id, body.turn.id)).resolves.toMatchObject({ state: 'completed' })
  })
})

describe('what a tool makes', () => {
  const owner = (chatId: string) => ({ userId: user.userId, chatId, limitBytes: 60 * MEGABYTE })
  const bytes = imageBytes('image/webp')

  test('is a file of the user, and goes with the chat', async () => {
    const { db } = turnmill.services
    const { chat } = await user.client.create('hi')
    const parts = await storeImages(db, owner(chat.id), [{ mediaType: 'image/png', bytes }])
    expect(parts).toEqual([{ type: 'image', fileId: expect.any(String), mediaType: 'image/webp' }])
    const fileId = parts[0]?.fileId ?? ''
    expect(await isThere(fileId)).toBe(true)
    await user.client.request('DELETE', `/v1/chats/${chat.id}`)
    expect(await isThere(fileId)).toBe(false)
  })

  test.each([
    ['no image', Buffer.from('text'), 'unsupported_media_type'],
    ['more than 10 MB', imageBytes('image/png', 10 * MEGABYTE + 1), 'payload_too_large'],
    ['half of one', PNG.subarray(0, -1), 'invalid_request'],
  ])('is refused where it is %s, with all that came beside it', async (_, bad, code) => {
    const { db } = turnmill.services
    const { chat } = await user.client.create('hi')
    const images = [bytes, bad].map((one) => ({ mediaType: 'image/png' as const, bytes: one }))
    await expect(storeImages(db, owner(chat.id), images)).rejects.toMatchObject({ code })
    expect(await db.prisma.file.count({ where: { userId: user.userId } })).toBe(0)
    expect(await storeImages(db, owner(chat.id), [])).toEqual([])
  })
})

describe('retention', () => {
  const age = (...ids: string[]) =>
    turnmill.services.db.prisma.file.updateMany({
      where: { id: { in: ids } },
      data: { seenAt: new Date(Date.now() - 25 * 3_600_000) },
    })
  const prune = () => turnmill.services.reconciler.pass()

  test('forgets what no message names a day after it was sent', async () => {
    const [old, young] = [await uploaded(), await uploaded()]
    await age(old)
    await prune()
    expect([await isThere(old), await isThere(young)]).toEqual([false, true])
  })

  test('keeps what a message, a queued one or a tool result names, however old', async () => {
    const { prisma } = turnmill.services.db
    const gate = hold()
    turnmill.upstream.script({ type: 'answer', gate, gateAt: 0 })
    const [said, queued, shown] = [await uploaded(), await uploaded(), await uploaded()]
    const { body } = await user.client.request<Started & { chat: ChatView }>('POST', '/v1/chats', {
      content: [{ type: 'text', text: 'x' }, { type: 'image', fileId: said }], // prettier-ignore
    })
    await user.client.request('POST', `/v1/chats/${body.chat.id}/messages`, {
      content: [{ type: 'image', fileId: queued }],
    })
    const part = { type: 'tool-result', toolCallId: 'c', toolName: 't', output: 1, isError: false, images: [{ type: 'image', fileId: shown, mediaType: 'image/png' }] } // prettier-ignore
    await prisma.message.create({ data: { chatId: body.chat.id, role: 'tool', parts: [part] } })
    await age(said, queued, shown)
    await prune()
    expect(await Promise.all([said, queued, shown].map(isThere))).toEqual([true, true, true])
    // They are not looked at again for a day.
    expect(await prisma.file.count({ where: { userId: user.userId, seenAt: { lt: new Date(Date.now() - 3_600_000) } } })).toBe(0) // prettier-ignore
    gate.release()
    await user.client.request('DELETE', `/v1/chats/${body.chat.id}`)
    await age(said, queued, shown)
    await prune()
    expect(await Promise.all([said, queued, shown].map(isThere))).toEqual([false, false, false])
  })

  test('keeps for another day what a message is about to name', async () => {
    const fileId = await uploaded()
    await age(fileId)
    const answer = await user.client.request('POST', `/v1/chats/${newId()}/messages`, {
      content: [{ type: 'image', fileId }],
    })
    expect(answer.status).toBe(404)
    await prune()
    expect(await isThere(fileId)).toBe(true)
  })

  test('leaves what a tool made to its chat', async () => {
    const { db } = turnmill.services
    const { chat } = await user.client.create('hi')
    const [part] = await storeImages(db, { userId: user.userId, chatId: chat.id, limitBytes: MEGABYTE }, [{ mediaType: 'image/png', bytes: PNG }]) // prettier-ignore
    await age(part?.fileId ?? '')
    await prune()
    expect(await isThere(part?.fileId ?? '')).toBe(true)
  })
})
