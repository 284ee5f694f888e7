import { once } from 'node:events'
import { createServer, type Server, type ServerResponse } from 'node:http'
import { createServer as createTcpServer, type AddressInfo, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { brotliCompressSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { createSendToProvider } from '../../src/models/index.ts'

const SAID = 'How a mill turns. '.repeat(200)

let server: Server
let reply: (response: ServerResponse) => void
beforeAll(async () => {
  server = createServer((_, response) => reply(response))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
})
afterAll(() => {
  server.closeAllConnections()
  server.close()
})

const sendToProvider = createSendToProvider({ allowPrivate: true })

let sent = 0
beforeEach(() => void (sent = 0))
const onSend = (): void => {
  sent++
}

const post = (url: string, signal: AbortSignal) =>
  sendToProvider(url, { method: 'POST', headers: new Headers(), body: Buffer.from('{}'), signal, onSend })

const addressOf = (listening: { address(): unknown }) =>
  `127.0.0.1:${(listening.address() as AddressInfo).port}`

const ask = (signal = new AbortController().signal) => post(`http://${addressOf(server)}/`, signal)

const answer = (encoding: string, body: Uint8Array, status = 200): void => {
  reply = (response) => void response.writeHead(status, { 'content-encoding': encoding }).end(body)
}

const ENCODINGS = [
  ['identity', Buffer.from(SAID)],
  ['gzip', gzipSync(SAID)],
  ['GZip', gzipSync(SAID)],
  ['x-gzip', gzipSync(SAID)],
  ['deflate', deflateSync(SAID)],
  ['br', brotliCompressSync(SAID)],
  ['zstd', zstdCompressSync(SAID)],
  ['', Buffer.from(SAID)],
  ['utf-8', Buffer.from(SAID)],
  ['identity, gzip', gzipSync(SAID)],
] as const

describe('an answer that nobody has asked to compress', () => {
  test.each(ENCODINGS)('is read from %s, of a refusal too', async (encoding, body) => {
    for (const status of [200, 400]) {
      answer(encoding, body, status)
      const answered = await ask()
      expect([answered.status, await text(answered.body)]).toEqual([status, SAID])
    }
  })

  test('passes on what has come of it, before there is more', async () => {
    reply = (response) => {
      response.writeHead(200, { 'content-encoding': 'gzip' })
      response.write(gzipSync(SAID).subarray(0, -8))
    }
    const gone = new AbortController()
    const { body } = await ask(gone.signal)
    for await (const chunk of body) {
      expect(String(chunk)).toBe(SAID)
      break
    }
  })

  test('may be empty', async () => {
    answer('gzip', Buffer.alloc(0))
    expect(await text((await ask()).body)).toBe('')
  })

  test('is an error where it is none', async () => {
    answer('gzip', Buffer.from(SAID))
    await expect(text((await ask()).body)).rejects.toThrow('incorrect header check')
  })

  test.each(['compress', 'gzip, br', '__proto__', 'sk-central-0001'])(
    'is refused in %s, which is not told',
    async (encoding) => {
      answer(encoding, Buffer.from(SAID))
      const refusal = await ask().catch((error: unknown) => error)
      expect(refusal).toMatchObject({ code: 'provider_rejected' })
      expect(String(refusal)).not.toContain(encoding)
    },
  )

  test('is nothing but its status where a refusal cannot be read', async () => {
    answer('compress', Buffer.from(SAID), 429)
    const answered = await ask()
    expect([answered.status, await text(answered.body)]).toEqual([429, ''])
  })
})

describe('a request', () => {
  test('is told of when it is sent, also over a connection that stood before', async () => {
    for (const told of [1, 2, 3]) {
      answer('identity', Buffer.from(SAID))
      await text((await ask()).body)
      expect(sent).toBe(told)
    }
  })

  test('is not sent where its caller left while the connection was being made', async () => {
    const silent = createTcpServer().listen(0, '127.0.0.1')
    await once(silent, 'listening')
    try {
      const gone = new AbortController()
      const answered = post(`https://${addressOf(silent)}/`, gone.signal).catch(() => 'failed')
      const [socket] = (await once(silent, 'connection')) as [Socket]
      gone.abort()
      socket.destroy()
      expect(await answered).toBe('failed')
      expect(sent).toBe(0)
    } finally {
      silent.close()
    }
  })

  test('is not sent over a connection that stands too late', async () => {
    const gone = new AbortController()
    const answered = ask(gone.signal).catch((error: unknown) => error)
    gone.abort(new Error('left'))
    expect(await answered).toMatchObject({ message: 'left' })
    expect(sent).toBe(0)
  })
})
