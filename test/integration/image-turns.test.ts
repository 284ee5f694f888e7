import { defineTool, toolOutcome } from '../../src/tools/index.ts'
import type { WireFormat } from '../../src/protocol/routes.ts'
import { hold, type UpstreamRequest } from '../support/fake-upstream.ts'
import type { Started } from '../support/client.ts'
import { dataUrl, imageBytes, PNG } from '../support/images.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

const GONE = '[an image that is no longer there]'

const draw = defineTool({
  name: 'draw',
  description: 'Draws.',
  inputSchema: { type: 'object' },
  execute: () => toolOutcome({ output: 'drawn', images: [{ mediaType: 'image/png', bytes: PNG }] }),
})

/** An image in each format's own shape. */
const SHAPES: Record<WireFormat, (type: string, bytes: Buffer) => unknown> = {
  'openai-responses': (type, bytes) => ({
    type: 'input_image',
    image_url: dataUrl(bytes, type),
    detail: 'auto',
  }),
  'openai-chat': (type, bytes) => ({ type: 'image_url', image_url: { url: dataUrl(bytes, type) } }),
  'anthropic-messages': (type, bytes) => ({
    type: 'image',
    source: { type: 'base64', media_type: type, data: bytes.toString('base64') },
  }),
}

/** How often something stands in a request, wherever it does. */
const countOf = (request: UpstreamRequest | undefined, what: unknown): number =>
  JSON.stringify(request?.body).split(JSON.stringify(what)).length - 1

describe.each<WireFormat>(['openai-responses', 'openai-chat', 'anthropic-messages'])(
  'an image of a turn over %s',
  (wireFormat) => {
    let turnmill: Turnmill
    let user: TestUser
    beforeAll(async () => {
      turnmill = await startTurnmill({ wireFormat, tools: [draw] })
    })
    afterAll(() => turnmill.stop())
    beforeEach(async () => {
      turnmill.upstream.reset()
      user = await turnmill.addUser()
    })

    const requests = () => turnmill.upstream.requests
    const shape = (bytes: Buffer = PNG, type = 'image/png') => SHAPES[wireFormat](type, bytes)
    const upload = async (bytes: Buffer, { client } = user) =>
      (await client.request<{ id: string }>('POST', '/v1/files', bytes)).body.id

    async function create(content: unknown) {
      const { body } = await user.client.request<Started & { chat: { id: string } }>('POST', '/v1/chats', {
        content,
      })
      await user.client.ended(body.chat.id, body.turn.id)
      return body
    }

    test('reaches the provider, uploaded or as a data URL, and in later turns too', async () => {
      const jpeg = imageBytes('image/jpeg', 500)
      const { chat } = await create([
        { type: 'text', text: 'look' },
        { type: 'image', fileId: await upload(jpeg) },
        { type: 'image', image: dataUrl(PNG) },
      ])
      await user.client.send(chat.id, 'and?')
      await user.client.settled(chat.id)
      for (const request of requests()) {
        expect(countOf(request, shape(jpeg, 'image/jpeg'))).toBe(1)
        expect(countOf(request, shape())).toBe(1)
      }
      expect(requests()).toHaveLength(2)
    })

    test('of somebody else is refused, and nothing reaches the provider', async () => {
      const stranger = await turnmill.addUser()
      const fileId = await upload(imageBytes('image/gif'), stranger)
      const refused = await user.client.request('POST', '/v1/chats', { content: [{ type: 'image', fileId }] })
      expect(refused.status).toBe(400)
      const { chat, message } = await create('mine')
      const sent = await user.client.request('POST', `/v1/chats/${chat.id}/messages`, {
        content: [{ type: 'image', fileId }],
      })
      const edited = await user.client.request('PATCH', `/v1/chats/${chat.id}/messages/${message.id}`, {
        content: [{ type: 'image', fileId }],
      })
      expect([sent.status, edited.status]).toEqual([400, 400])
      expect(requests()).toHaveLength(1)
    })

    test('that is deleted is told of in its place', async () => {
      const fileId = await upload(PNG)
      const { chat } = await create([
        { type: 'text', text: 'look' },
        { type: 'image', fileId },
      ])
      expect((await user.client.request('DELETE', `/v1/files/${fileId}`)).status).toBe(204)
      await user.client.send(chat.id, 'and?')
      expect(await user.client.settled(chat.id)).toMatchObject({ status: 'idle' })
      expect(countOf(requests()[0], shape())).toBe(1)
      expect(countOf(requests()[1], shape())).toBe(0)
      expect(JSON.stringify(requests()[1]?.body)).toContain(GONE)
    })

    test('is sent with a queued message, and with an edited one', async () => {
      const [first, second] = [imageBytes('image/webp', 300), imageBytes('image/gif', 300)]
      const gate = hold()
      turnmill.upstream.script(({ number }) =>
        number === 1 ? { type: 'answer', gate, gateAt: 0 } : { type: 'answer' },
      )
      const { chat } = await user.client.create('wait')
      await turnmill.upstream.waitForRequest(1)
      const send = await user.client.request('POST', `/v1/chats/${chat.id}/messages`, {
        content: [{ type: 'image', image: dataUrl(first, 'image/webp') }],
      })
      expect(send).toMatchObject({ status: 202, body: { queuedMessage: expect.anything() } })
      gate.release()
      await turnmill.upstream.waitForRequest(2)
      await user.client.settled(chat.id)
      expect(countOf(requests()[1], shape(first, 'image/webp'))).toBe(1)
      const queued = (await user.client.messages(chat.id)).find(({ parts }) => parts[0]?.type === 'image')
      await user.client.request('PATCH', `/v1/chats/${chat.id}/messages/${queued?.id}`, {
        content: [{ type: 'image', image: dataUrl(second, 'image/gif') }],
      })
      await turnmill.upstream.waitForRequest(3)
      await user.client.settled(chat.id)
      expect(countOf(requests()[2], shape(first, 'image/webp'))).toBe(0)
      expect(countOf(requests()[2], shape(second, 'image/gif'))).toBe(1)
    })

    test('that a tool made is shown with its result', async () => {
      turnmill.upstream.script(({ number }) =>
        number === 1
          ? { type: 'answer', toolCalls: [{ id: 'c', name: 'draw', args: ['{}'] }] }
          : { type: 'answer' },
      )
      const { chat } = await create('draw')
      expect(countOf(requests()[1], shape())).toBe(1)
      expect(JSON.stringify(requests()[1]?.body)).toContain('drawn')
      const [result] = (await user.client.messages(chat.id)).filter(({ role }) => role === 'tool')
      expect(result?.parts).toMatchObject([
        { type: 'tool-result', images: [{ type: 'image', mediaType: 'image/png' }] },
      ])
    })
  },
)
