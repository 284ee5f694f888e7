/** Where providers may be (D1): what is refused gets no request, not even a connection. */
import { createServer, type Server } from 'node:net'
import type { AddressInfo } from 'node:net'
import { checkDestination, createProviderFetch, demandDestination } from '../../src/models/index.ts'
import { startTurnmill, type Turnmill } from '../support/turnmill.ts'

const REFUSED = { code: 'provider_address_refused' }

/** In every notation that a URL takes. */
const PRIVATE = [
  '127.0.0.1', '2130706433', '0x7f000001', '0177.0.0.1', '127.1', '0.0.0.0', '10.1.2.3', '172.16.0.1', '192.168.1.1', '169.254.169.254',
  '100.64.0.1', '224.0.0.1', '255.255.255.255', '[::1]', '[::]', '[::ffff:127.0.0.1]', '[::ffff:7f00:1]', '[fd00::1]', '[fe80::1]',
  '[64:ff9b::7f00:1]', '[2002:7f00:1::]',
] // prettier-ignore

/** Counts who connects. */
let server: Server
let connections = 0
beforeAll(async () => {
  server = createServer((socket) => {
    connections += 1
    socket.destroy()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
})
afterAll(() => server.close())
beforeEach(() => (connections = 0))
const portOf = (): number => (server.address() as AddressInfo).port

describe('a provider’s address', () => {
  const rules = { allowPrivate: false }

  test.each(PRIVATE)('is refused as %s', async (host) => {
    const url = `https://${host}:${portOf()}/v1`
    expect(() => demandDestination(url, rules)).toThrow('not a public address')
    await expect(createProviderFetch(rules)(url)).rejects.toMatchObject(REFUSED)
    expect(connections).toBe(0)
  })

  test('is refused without https', async () => {
    await expect(createProviderFetch(rules)('http://example.com')).rejects.toMatchObject(REFUSED)
  })

  test('is refused behind a name', async () => {
    const url = `https://localhost:${portOf()}/v1`
    await expect(checkDestination(url, rules)).rejects.toMatchObject(REFUSED)
    await expect(createProviderFetch(rules)(url)).rejects.toMatchObject(REFUSED)
    expect(connections).toBe(0)
  })

  test('is refused behind a name that changes its answer', async () => {
    let asked = 0
    const lookup: NonNullable<Parameters<typeof createProviderFetch>[0]['lookup']> = (_, __, answer) =>
      answer(null, [{ address: ++asked === 1 ? '93.184.215.14' : '127.0.0.1', family: 4 }])
    const changing = { allowPrivate: false, lookup }
    const url = `https://provider.example:${portOf()}/v1`
    await expect(checkDestination(url, changing)).resolves.toBeUndefined()
    await expect(createProviderFetch(changing)(url)).rejects.toMatchObject(REFUSED)
    expect(connections).toBe(0)
  })

  test('is refused where one of several answers is private', async () => {
    const lookup: NonNullable<Parameters<typeof createProviderFetch>[0]['lookup']> = (_, __, answer) =>
      answer(null, [
        { address: '93.184.215.14', family: 4 },
        { address: '10.0.0.1', family: 4 },
      ])
    const url = `https://provider.example:${portOf()}/v1`
    await expect(createProviderFetch({ allowPrivate: false, lookup })(url)).rejects.toMatchObject(REFUSED)
    expect(connections).toBe(0)
  })

  test('may be anywhere where that is allowed', async () => {
    await expect(createProviderFetch({ allowPrivate: true })(`http://127.0.0.1:${portOf()}`)).rejects.toThrow(
      'fetch failed',
    )
    expect(connections).toBe(1)
  })
})

describe.each(['true', 'false'])('with gateway routing %s', (gatewayRouting) => {
  let turnmill: Turnmill
  beforeAll(async () => {
    turnmill = await startTurnmill({
      environment: {
        TURNMILL_CHAT_AI_GATEWAY_ROUTING_ENABLED: gatewayRouting,
        TURNMILL_ALLOW_PRIVATE_PROVIDERS: 'false',
        TURNMILL_RETRY_ATTEMPTS: '2',
      },
    })
  })
  afterAll(() => turnmill.stop())

  test('a provider at a private address is not saved', async () => {
    const { client } = turnmill.admin
    for (const baseUrl of ['https://127.0.0.1/v1', 'https://localhost/v1', 'http://api.openai.com/v1']) {
      const created = await client.request('POST', '/v1/providers', {
        name: 'inside',
        type: 'openai',
        baseUrl,
      })
      expect(created).toMatchObject({ status: 409, body: REFUSED })
      const moved = await client.request('PATCH', `/v1/providers/${turnmill.provider.id}`, { baseUrl })
      expect(moved).toMatchObject({ status: 409, body: REFUSED })
    }
  })

  test('a turn at one that was saved before fails, without a request', async () => {
    const { client } = await turnmill.addUser()
    const { chat, turn } = await client.create('hi')
    expect(await client.ended(chat.id, turn.id)).toMatchObject({ state: 'failed', error: REFUSED })
    expect(turnmill.upstream.requests).toHaveLength(0)
  })
})

test('a provider that redirects is not followed', async () => {
  const turnmill = await startTurnmill({ environment: { TURNMILL_RETRY_ATTEMPTS: '1' } })
  try {
    const location = `http://127.0.0.1:${portOf()}/v1/responses`
    turnmill.upstream.script({ type: 'status', status: 307, headers: { location } })
    const { client } = await turnmill.addUser()
    const { chat, turn } = await client.create('hi')
    expect(await client.ended(chat.id, turn.id)).toMatchObject({ state: 'failed' })
    expect(turnmill.upstream.requests).toHaveLength(1)
    expect(connections).toBe(0)
  } finally {
    await turnmill.stop()
  }
})
