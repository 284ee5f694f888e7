/** Providers over TLS that would speak HTTP/2 as well: each call has a connection of its own (decisions/0014). */
import { once } from 'node:events'
import { createSecureServer, type Http2SecureServer, type Http2ServerRequest } from 'node:http2'
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { createProviderFetch, createSendToProvider } from '../../src/models/index.ts'
import { trustedCertificate } from '../support/certificate.ts'

const rules = { allowPrivate: true }

const portOf = (server: { address(): unknown }): number => (server.address() as AddressInfo).port

async function listen<S extends Server | Http2SecureServer>(server: S): Promise<S> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}

let provider: Http2SecureServer
const versions: string[] = []
beforeAll(async () => {
  const certified = await trustedCertificate()
  provider = await listen(
    createSecureServer({ ...certified, allowHTTP1: true }, (request: Http2ServerRequest, response) => {
      versions.push(request.httpVersion)
      response.end('turned')
    }),
  )
})
afterAll(() => provider.close())
beforeEach(() => (versions.length = 0))

/** A call by a sender of the test's own, whose connections nobody else has. */
function caller() {
  const send = createSendToProvider(rules)
  return async (port: number, signal: AbortSignal = AbortSignal.timeout(20_000)): Promise<string> => {
    const call = { method: 'POST', headers: new Headers(), body: Buffer.from('{}'), onSend: () => undefined }
    const { body } = await send(`https://127.0.0.1:${port}/`, { ...call, signal })
    return text(body)
  }
}

test('is asked in HTTP/1.1, by the gateway and directly', async () => {
  expect(await caller()(portOf(provider))).toBe('turned')
  const answer = await createProviderFetch(rules)(`https://127.0.0.1:${portOf(provider)}/`)
  expect(await answer.text()).toBe('turned')
  expect(versions).toEqual(['1.1', '1.1'])
})

test('does not hang for everybody where one connection has died', async () => {
  const sockets: Socket[] = []
  const dead: Socket[] = []
  const proxy = await listen(
    createServer((from) => {
      const to = connect(portOf(provider), '127.0.0.1')
      sockets.push(from, to)
      for (const socket of [from, to]) socket.on('error', () => undefined)
      from.on('data', (data) => dead.includes(from) || to.write(data))
      to.on('data', (data) => dead.includes(from) || from.write(data))
    }),
  )
  try {
    const call = caller()
    expect(await call(portOf(proxy))).toBe('turned')
    // Until the connection is free again.
    await sleep(50)
    dead.push(...sockets)
    const hasty = () => call(portOf(proxy), AbortSignal.timeout(1000)).catch(() => 'given up')
    const ended = await Promise.all([hasty(), hasty(), hasty()])
    expect(ended.toSorted()).toEqual(['given up', 'turned', 'turned'])
    expect(await call(portOf(proxy))).toBe('turned')
  } finally {
    for (const socket of sockets) socket.destroy()
    proxy.close()
  }
}, 15_000)

test('is connected to by all calls at once, also while it takes none', async () => {
  const sockets: Socket[] = []
  const silent = await listen(createServer((socket) => void sockets.push(socket)))
  try {
    const call = caller()
    const calls = Array.from({ length: 8 }, () => call(portOf(silent)).catch(() => 'failed'))
    while (sockets.length < 8) await sleep(10)
    for (const socket of sockets) socket.destroy()
    expect(await Promise.all(calls)).toEqual(calls.map(() => 'failed'))
  } finally {
    for (const socket of sockets) socket.destroy()
    silent.close()
  }
}, 4000)
