/** MCP servers as admins configure them and users add to them, up to the tools of a turn. */
import { randomBytes } from 'node:crypto'
import { createEncryption, demandEncryptionKeys, rotateSecrets } from '../../src/models/index.ts'
import { newId } from '../../src/protocol/ids.ts'
import { Secret } from '../../src/protocol/secret.ts'
import { createMcpServerLoader, defineTool } from '../../src/tools/index.ts'
import { openWorkerTools } from '../../src/worker-tools.ts'
import { startMcpLiar, type McpLiar } from '../support/mcp-liar.ts'
import { run } from '../support/tools.ts'
import { startTurnmill, TEST_SECRETS, type TestUser, type Turnmill } from '../support/turnmill.ts'

interface ServerRow {
  id: string
  name: string
}

const TEAM_SECRET = 'team-secret-0123456789'
const USER_SECRET = 'user-secret-0123456789'

let turnmill: Turnmill
let user: TestUser
let liar: McpLiar
const lines: string[] = []
beforeAll(async () => {
  turnmill = await startTurnmill({
    workers: 0,
    onLog: (line) => void lines.push(line),
    environment: { TURNMILL_BUILTIN_TOOLS: 'all' },
  })
  liar = await startMcpLiar()
})
afterAll(async () => {
  await liar.stop()
  await turnmill.stop()
})
beforeEach(async () => {
  await turnmill.services.db.prisma.mcpServer.deleteMany({})
  user = await turnmill.addUser()
})

const admin = <T = Record<string, unknown>>(method: string, path: string, body?: unknown) =>
  turnmill.admin.client.request<T>(method, `/v1/mcp-servers${path}`, body)
const create = (fields: object = {}) =>
  admin<ServerRow>('POST', '', {
    name: 'mill',
    url: liar.url,
    headers: { Authorization: `Bearer ${TEAM_SECRET}`, 'x-team': 'a team' },
    ...fields,
  })
const putHeaders = (headers: unknown, name = 'mill') =>
  user.client.request('PUT', `/v1/me/mcp-servers/${name}/headers`, { headers })

describe('MCP servers', () => {
  test('are created, listed, shown, changed and deleted by admins', async () => {
    const created = await create({ allow: ['ask'], deny: ['drop'] })
    const shown = {
      name: 'mill',
      url: liar.url,
      enabled: true,
      headers: [
        { name: 'authorization', hint: 'Bea…6789' },
        { name: 'x-team', hint: '…' },
      ],
      allow: ['ask'],
      deny: ['drop'],
      timeoutMs: 30_000,
    }
    expect(created).toMatchObject({ status: 201, body: shown })
    expect(await create()).toMatchObject({ status: 409, body: { code: 'conflict' } })
    const path = `/${created.body.id}`
    expect(await admin('GET', path)).toMatchObject({ status: 200, body: shown })
    expect(await admin('GET', '')).toMatchObject({ status: 200, body: { items: [shown] } })
    expect(await admin('PATCH', path, { enabled: false, timeoutMs: 500 })).toMatchObject({
      status: 200,
      body: { ...shown, enabled: false, timeoutMs: 500 },
    })
    expect(await admin('PATCH', path, { headers: { 'x-new': 'a-new-secret-0000' } })).toMatchObject({
      body: { headers: [{ name: 'x-new', hint: 'a-n…0000' }] },
    })
    expect(await admin('PATCH', path, { headers: {}, allow: [] })).toMatchObject({
      body: { headers: [], allow: [], deny: ['drop'] },
    })
    expect(await admin('DELETE', path)).toMatchObject({ status: 204 })
    for (const [method, body] of [['GET'], ['PATCH', {}], ['DELETE'], ['POST']] as const)
      expect(await admin(method, method === 'POST' ? `${path}/test` : path, body)).toMatchObject({
        status: 404,
      })
  })

  test('are for admins alone', async () => {
    for (const [method, path] of [
      ['GET', ''],
      ['POST', ''],
      ['GET', `/${newId()}`],
      ['DELETE', `/${newId()}`],
    ])
      expect(await user.client.request(String(method), `/v1/mcp-servers${path}`)).toMatchObject({
        status: 403,
      })
  })

  test.each<[string, object]>([
    ['a name with letters that prefixes do not take', { name: 'My_Server' }],
    ['a name that is too long', { name: 'a'.repeat(33) }],
    ['a URL with a credential', { url: 'https://me:secret@example.com/mcp' }],
    ['a URL with a query', { url: 'https://example.com/mcp?key=secret' }],
    ['a URL of something else', { url: 'file:///etc/passwd' }],
    ['a header of the protocol', { headers: { 'Mcp-Session-Id': 'x' } }],
    ['a header of the protocol, written otherwise', { headers: { MCP_session_id: 'x' } }],
    ['a header twice', { headers: { 'X-A': 'x', 'x-a': 'y' } }],
    ['a header twice for some servers', { headers: { x_a: 'x', 'x-a': 'y' } }],
    ['a header of the connection', { headers: { host: 'x' } }],
    ['a header that is none', { headers: { 'a b': 'x' } }],
    ['a header of two lines', { headers: { 'x-a': 'x\r\nhost: y' } }],
    ['an empty header', { headers: { 'x-a': '' } }],
    ['no time', { timeoutMs: 1 }],
    ['what nobody knows', { userId: newId() }],
  ])('with %s are refused', async (_, fields) => {
    expect(await create(fields)).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
    expect(await turnmill.services.db.prisma.mcpServer.count()).toBe(0)
  })

  test('are where providers may be', async () => {
    const strict = await startTurnmill({
      workers: 0,
      environment: { TURNMILL_ALLOW_PRIVATE_PROVIDERS: 'false' },
    })
    try {
      const answer = await strict.admin.client.request('POST', '/v1/mcp-servers', {
        name: 'mill',
        url: liar.url,
      })
      expect(answer).toMatchObject({ status: 409, body: { code: 'provider_address_refused' } })
    } finally {
      await strict.stop()
    }
  })

  test('tell an admin what they have, and what is wrong with it', async () => {
    liar.on('tools/list', () => ({
      tools: [
        { name: 'ask', inputSchema: { type: 'object' }, annotations: { readOnlyHint: true } },
        { name: 'bad', inputSchema: { type: 'string' } },
      ],
    }))
    const { id } = (await create()).body
    await admin('PATCH', `/${id}`, { deny: ['drop'] })
    expect(await admin('POST', `/${id}/test`)).toMatchObject({
      status: 200,
      body: {
        tools: [{ name: 'mcp__mill__ask', title: 'ask', readOnly: true, idempotent: true }],
        problems: [
          'deny names "drop", and none of its usable tools is called that',
          'its tool "bad": its schema is of type "string", expected "object"',
        ],
      },
    })
    await admin('PATCH', `/${id}`, { url: 'http://127.0.0.1:1/mcp' })
    expect(await admin('POST', `/${id}/test`)).toMatchObject({
      body: {
        tools: [],
        problems: [
          'the MCP server mill could not be reached at http://127.0.0.1:1/mcp (bad port): check its url, and that it runs and listens there',
        ],
      },
    })
  })
})

describe('a user’s own headers', () => {
  test('are stored, shown as hints, replaced and deleted', async () => {
    await create()
    const list = () => user.client.request('GET', '/v1/me/mcp-servers')
    expect(await list()).toMatchObject({ status: 200, body: { items: [{ name: 'mill', headers: [] }] } })
    const hints = [{ name: 'authorization', hint: 'use…6789' }]
    expect(await putHeaders({ authorization: USER_SECRET })).toMatchObject({
      status: 200,
      body: { name: 'mill', headers: hints },
    })
    expect(await list()).toMatchObject({ body: { items: [{ headers: hints }] } })
    await Promise.all([putHeaders({ 'x-a': 'b' }), putHeaders({ 'x-a': 'b' })])
    expect(await list()).toMatchObject({ body: { items: [{ headers: [{ name: 'x-a', hint: '…' }] }] } })
    const another = await turnmill.addUser()
    expect(await another.client.request('GET', '/v1/me/mcp-servers')).toMatchObject({
      body: { items: [{ name: 'mill', headers: [] }] },
    })
    const gone = () => user.client.request('DELETE', '/v1/me/mcp-servers/mill/headers')
    expect(await gone()).toMatchObject({ status: 204 })
    expect(await gone()).toMatchObject({ status: 404 })
  })

  test('are for servers that are there and enabled', async () => {
    const { id } = (await create()).body
    expect(await putHeaders({ 'x-a': 'b' }, 'other')).toMatchObject({ status: 404 })
    await admin('PATCH', `/${id}`, { enabled: false })
    expect(await putHeaders({ 'x-a': 'b' })).toMatchObject({ status: 404 })
    expect(await user.client.request('GET', '/v1/me/mcp-servers')).toMatchObject({ body: { items: [] } })
    expect(await putHeaders({})).toMatchObject({ status: 400 })
  })

  test('are, as the server’s, encrypted, and never come out', async () => {
    const created = await create()
    const put = await putHeaders({ authorization: USER_SECRET })
    const { prisma } = turnmill.services.db
    const seen = JSON.stringify([
      created.body, put.body, (await admin('GET', '')).body, await prisma.mcpServer.findMany(), await prisma.mcpUserHeaders.findMany(), lines,
    ]) // prettier-ignore
    expect(seen).not.toContain(TEAM_SECRET)
    expect(seen).not.toContain(USER_SECRET)
  })

  test('are, as the server’s, encrypted anew under the present key, and looked at on boot', async () => {
    await create()
    await create({ name: 'open', headers: {} })
    await putHeaders({ authorization: USER_SECRET })
    const { db, logger } = turnmill.services
    const old = TEST_SECRETS.TURNMILL_ENCRYPTION_KEYS
    const fresh = `fresh:${randomBytes(32).toString('base64')}`
    await db.prisma.providerKey.deleteMany({})
    const wrong = createEncryption(new Secret(`test:${randomBytes(32).toString('base64')}`))
    await expect(demandEncryptionKeys(db, wrong)).rejects.toThrow('TURNMILL_ENCRYPTION_KEYS does not fit')
    const both = createEncryption(new Secret(`${fresh},${old}`))
    expect(await rotateSecrets(db, both, () => undefined)).toBe(2)
    expect(await rotateSecrets(db, both, () => undefined)).toBe(0)
    const encryption = createEncryption(new Secret(fresh))
    await expect(demandEncryptionKeys(db, encryption)).resolves.toBeUndefined()
    const load = createMcpServerLoader({ db, encryption, logger })
    const servers = await load(user.userId)
    expect(servers.map(({ name, headers }) => [name, headers['authorization']?.reveal()])).toEqual([
      ['mill', USER_SECRET],
      ['open', undefined],
    ])
    const left = createMcpServerLoader({ db, encryption: createEncryption(new Secret(old)), logger })
    expect((await left(user.userId)).map(({ name }) => name)).toEqual(['open'])
  })
})

describe('the tools of a worker', () => {
  test('are built in, registered, and of MCP servers under the headers of the chat’s owner', async () => {
    liar.on('tools/list', () => ({ tools: [{ name: 'ask', inputSchema: { type: 'object' } }] }))
    await create()
    await putHeaders({ authorization: USER_SECRET })
    const own = defineTool({
      name: 'own',
      description: 'x',
      inputSchema: { type: 'object' },
      execute: () => 'mine',
    })
    const tools = await openWorkerTools(turnmill.services, [own])
    try {
      const { signal } = new AbortController()
      const found = await tools.source.toolsFor({ chatId: newId(), userId: user.userId }, signal)
      expect(found.map(({ definition }) => definition.name)).toEqual([
        'own',
        'current_time',
        'calculator',
        'web_fetch',
        'mcp__mill__ask',
      ])
      expect(await run(found[4])).toMatchObject({ isError: false, output: 'done' })
      expect(liar.calls.at(-1)?.request.headers).toMatchObject({
        authorization: USER_SECRET,
        'x-team': 'a team',
      })
    } finally {
      await tools.close()
    }
  })

  test('are those that the settings name', async () => {
    const { services } = turnmill
    const config = { ...services.config, builtinTools: ['calculator'] as const, toolTimeoutMs: 7 }
    const { source } = await openWorkerTools({ ...services, config })
    const { signal } = new AbortController()
    const found = await source.toolsFor({ chatId: newId(), userId: user.userId }, signal)
    expect(found.map(({ definition, timeoutMs }) => [definition.name, timeoutMs])).toEqual([
      ['calculator', 7],
    ])
    const missing = { ...config, toolsModule: 'nowhere.js' }
    await expect(openWorkerTools({ ...services, config: missing })).rejects.toThrow('nowhere.js could not be')
  })

  test('may not fetch pages from inside, unless a setting says so', async () => {
    const { source } = await openWorkerTools(turnmill.services)
    const { signal } = new AbortController()
    const found = await source.toolsFor({ chatId: newId(), userId: user.userId }, signal)
    const before = turnmill.upstream.requests.length
    expect(await run(found[2], { url: turnmill.address })).toMatchObject({ isError: true })
    expect(turnmill.upstream.requests).toHaveLength(before)
  })
})
