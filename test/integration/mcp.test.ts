/** The tools of MCP servers over real HTTP: those of honest ones, and what the others come to (M1 to M6). */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { MCPMock } from '@copilotkit/aimock'
import { createProviderFetch } from '../../src/models/index.ts'
import { newId } from '../../src/protocol/ids.ts'
import { TurnmillError } from '../../src/protocol/errors.ts'
import type { FunctionTool } from '../../src/protocol/tools.ts'
import { Secret } from '../../src/protocol/secret.ts'
import { createLogger } from '../../src/telemetry/logger.ts'
import { createMcpTools, type McpServer, type McpTools, type Tool } from '../../src/tools/index.ts'
import { startEverythingServer, type EverythingServer } from '../support/mcp-everything.ts'
import { sendEvents, sendJson, startMcpLiar, TOOL, type Lie, type McpLiar } from '../support/mcp-liar.ts'
import { PNG, run } from '../support/tools.ts'

const CREDENTIAL = 'the-credential-of-a-server'

let log: string[]
const logger = createLogger({
  level: 'trace',
  role: 'test',
  destination: { write: (line) => void log.push(line) },
})
const owner = { chatId: newId(), userId: newId() }
const { signal } = new AbortController()
const opened: McpTools[] = []
beforeEach(() => (log = []))
afterEach(async () => {
  await Promise.all(opened.splice(0).map((tools) => tools.close()))
})

const serverAt = (url: string, change: Partial<McpServer> = {}): McpServer => ({
  id: newId(),
  name: 'mill',
  url,
  headers: {},
  allow: [],
  deny: [],
  timeoutMs: 60_000,
  ...change,
})

function open(
  servers: McpServer[] | (() => Promise<McpServer[]>),
  allowPrivate = true,
  listedMs = 60_000,
): McpTools {
  const tools = createMcpTools({
    servers: typeof servers === 'function' ? servers : async () => servers,
    fetch: createProviderFetch({ allowPrivate }),
    logger,
    listedMs,
    failedMs: listedMs,
  })
  opened.push(tools)
  return tools
}

/** After which nothing can have been done. */
const REFUSALS = ['is a refusal', 'could not be parsed', 'is no request', 'names no method', 'names no tool']

/** Answers with an error of JSON-RPC. */
const errorOf =
  (code: number, message: string): Lie =>
  ({ rpc, response }) =>
    sendJson(response, { jsonrpc: '2.0', id: rpc.id, error: { code, message } })

const toolsAt = (url: string, change: Partial<McpServer> = {}): Promise<readonly Tool[]> =>
  open([serverAt(url, change)]).toolsFor(owner, signal)

const namesOf = (tools: readonly Tool[]): string[] => tools.map(({ definition }) => definition.name)
const named = (tools: readonly Tool[], name: string): Tool | undefined =>
  tools.find(({ definition }) => definition.name === name)

describe('the reference server', () => {
  let server: EverythingServer
  let tools: readonly Tool[]
  beforeAll(async () => (server = await startEverythingServer()))
  afterAll(() => server.stop())
  beforeEach(async () => (tools = await toolsAt(server.url)))

  test('lists its tools, as models are told of them', () => {
    expect(namesOf(tools)).toEqual(expect.arrayContaining(['mcp__mill__echo', 'mcp__mill__get-sum']))
    expect(named(tools, 'mcp__mill__get-sum')?.definition).toMatchObject({
      kind: 'function',
      description: expect.any(String),
      inputSchema: { type: 'object', properties: { a: { type: 'number' }, b: { type: 'number' } } },
    })
    expect(log).toEqual([])
  })

  test('answers with text, structure and images', async () => {
    expect(await run(named(tools, 'mcp__mill__echo'), { message: 'hi' })).toEqual({
      output: 'Echo: hi',
      isError: false,
      images: [],
    })
    expect(
      await run(named(tools, 'mcp__mill__get-structured-content'), { location: 'Chicago' }),
    ).toMatchObject({
      isError: false,
      output: { temperature: expect.any(Number) },
    })
    const { images } = await run(named(tools, 'mcp__mill__get-tiny-image'))
    expect(images).toMatchObject([{ mediaType: 'image/png' }])
    expect(await run(named(tools, 'mcp__mill__get-sum'), { a: 'x' })).toMatchObject({ isError: true })
  })

  test('may take a while, and say so meanwhile', async () => {
    const outcome = await run(named(tools, 'mcp__mill__trigger-long-running-operation'), {
      duration: 1,
      steps: 4,
    })
    expect(outcome).toMatchObject({ isError: false, output: expect.stringContaining('completed') })
  })

  test('that is gone fails the call', async () => {
    const leaving = await startEverythingServer()
    try {
      const [echo] = await toolsAt(leaving.url, { allow: ['echo'] })
      expect(await run(echo, { message: '1' })).toMatchObject({ output: 'Echo: 1' })
      await leaving.stop()
      expect(await run(echo, { message: '2' })).toMatchObject({
        isError: true,
        output: 'the MCP server mill did not do it: it could not be reached (ECONNREFUSED)',
      })
    } finally {
      await leaving.stop()
    }
  })
})

describe('an MCP server of aimock', () => {
  let mock: MCPMock
  let url: string
  beforeAll(async () => {
    mock = new MCPMock({ host: '127.0.0.1', port: 0 })
    mock.addTool({ name: 'grind', description: 'Grinds.', inputSchema: { type: 'object' } })
    mock.addTool({ name: 'spoil', inputSchema: { type: 'object' } })
    mock.onToolCall('grind', (input) => `ground ${JSON.stringify(input)}`)
    mock.onToolCall('spoil', () => {
      throw new Error('spoilt')
    })
    url = await mock.start()
  })
  afterAll(() => mock.stop())

  test('is listed and called', async () => {
    const tools = await toolsAt(url)
    expect(namesOf(tools)).toEqual(['mcp__mill__grind', 'mcp__mill__spoil'])
    expect(await run(tools[0], { corn: 1 })).toMatchObject({ isError: false, output: 'ground {"corn":1}' })
    expect(await run(tools[1])).toMatchObject({ isError: true, output: 'spoilt' })
  })

  test('that has forgotten a session is given a new one', async () => {
    const [grind] = await toolsAt(url)
    expect(await run(grind)).toMatchObject({ output: 'ground {}' })
    mock.getSessions().clear()
    expect(await Promise.all([run(grind, { a: 1 }), run(grind, { a: 2 })])).toMatchObject([
      { output: 'ground {"a":1}' },
      { output: 'ground {"a":2}' },
    ])
    expect(mock.getSessions().size).toBe(1)
  })

  test('is one of several; a name belongs to one of them', async () => {
    const dead = serverAt('http://127.0.0.1:1/mcp', { name: 'dead' })
    const tools = await open([dead, serverAt(url), serverAt(url, { name: 'mill-two' })]).toolsFor(
      owner,
      signal,
    )
    expect(namesOf(tools)).toEqual([
      'mcp__mill__grind',
      'mcp__mill__spoil',
      'mcp__mill-two__grind',
      'mcp__mill-two__spoil',
    ])
    expect(log.join()).toContain('the tools of an MCP server are missing')
  })

  test.each([
    [{ allow: ['grind'] }, ['mcp__mill__grind']],
    [{ deny: ['grind'] }, ['mcp__mill__spoil']],
    [{ allow: ['grind', 'spoil'], deny: ['spoil'] }, ['mcp__mill__grind']],
    [{ allow: ['other'] }, []],
  ])('gives with %j the tools %j', async (change, names) => {
    expect(namesOf(await toolsAt(url, change))).toEqual(names)
  })
})

/** What a server answers a call with, word for word; JSON unless said otherwise. */
interface Answer {
  type?: string
  body(id?: number): string
}

/** What some work comes to, and for how long at most it kept everything else waiting. */
async function blocking<T>(work: () => Promise<T>): Promise<{ answered: T; blockedMs: number }> {
  const delays = monitorEventLoopDelay({ resolution: 10 })
  delays.enable()
  const answered = await work()
  delays.disable()
  return { answered, blockedMs: delays.max / 1e6 }
}

describe('a server that lies', () => {
  let liar: McpLiar
  beforeEach(async () => (liar = await startMcpLiar()))
  afterEach(() => liar.stop())

  const call = async (lie: Lie, change: Partial<McpServer> = {}) => {
    liar.on('tools/call', lie)
    const [tool] = await toolsAt(liar.url, change)
    return run(tool, { a: 1 })
  }

  describe('about its tools', () => {
    const hang: Lie = () => undefined
    test.each<[string, string, Lie]>([
      [
        'is no JSON',
        'tools/list',
        ({ response }) => void response.setHeader('content-type', 'application/json').end('{'),
      ],
      [
        'is a page',
        'tools/list',
        ({ response }) => void response.setHeader('content-type', 'text/html').end('<p>'),
      ],
      ['is an error', 'tools/list', ({ response }) => void response.writeHead(500).end('sorry')],
      ['is no list', 'tools/list', () => ({ tools: 'many' })],
      ['never comes', 'tools/list', hang],
      ['begins and never ends', 'tools/list', ({ response }) => sendEvents(response, ': wait\n\n')],
      [
        'is to something else',
        'tools/list',
        ({ response }) => sendJson(response, { jsonrpc: '2.0', id: 999, result: { tools: [TOOL] } }),
      ],
      [
        'is longer than anybody reads',
        'tools/list',
        () => ({ tools: [{ ...TOOL, description: 'x'.repeat(5e6) }] }),
      ],
      [
        'speaks another version',
        'initialize',
        () => ({ protocolVersion: '1999-01-01', capabilities: {}, serverInfo: {} }),
      ],
      ['does not begin', 'initialize', hang],
      ['does not hear that we have begun', 'notifications/initialized', hang],
    ])('and whose answer %s has none', async (_, method, lie) => {
      liar.on(method, lie)
      expect(await toolsAt(liar.url, { timeoutMs: 300 })).toEqual([])
      expect(log).toHaveLength(1)
      expect(log[0]).toContain('the tools of an MCP server are missing')
    })

    test('keeps nobody waiting that is stopped', async () => {
      liar.on('tools/list', hang)
      const stop = new AbortController()
      const reason = new TurnmillError('turn_interrupted', 'stopped')
      liar.on('initialize', () => {
        stop.abort(reason)
        return undefined
      })
      await expect(open([serverAt(liar.url)]).toolsFor(owner, stop.signal)).rejects.toBe(reason)
    })

    test('and sends us elsewhere is not followed (M1)', async () => {
      const other = await startMcpLiar()
      try {
        for (const [url, status] of [
          [other.url, 307],
          ['/other', 302],
        ] as const) {
          liar.on('initialize', ({ response }) => void response.writeHead(status, { location: url }).end())
          expect(await toolsAt(liar.url)).toEqual([])
        }
        expect(other.methods()).toEqual([])
        expect(liar.methods()).toEqual(['initialize', 'initialize'])
      } finally {
        await other.stop()
      }
    })

    test('is not reached at all at a private address, unless that is allowed', async () => {
      expect(await open([serverAt(liar.url)], false).toolsFor(owner, signal)).toEqual([])
      expect(liar.methods()).toEqual([])
    })

    test('and lists bad ones among good ones has the good ones', async () => {
      const tool = (name: unknown, more: object = {}) => ({ ...TOOL, name, ...more })
      const schema = (inputSchema: unknown) => tool('bad', { inputSchema })
      liar.on('tools/list', () => ({
        tools: [
          tool('good'), tool('good'), tool(7), tool(''), 'text', null, [], tool('x'.repeat(201)),
          schema(undefined), schema('object'), schema({}), schema({ type: 'array' }), schema({ type: 'object', anyOf: [] }),
          schema({ type: 'object', properties: { a: { type: 'wood' } } }), schema({ type: 'object', properties: 7 }),
          schema({ type: 'object', properties: { a: { $ref: 'http://127.0.0.1/x' } } }),
          schema({ type: 'object', properties: { '$a b': {} } }), schema({ type: 'object', description: 'x'.repeat(70_000) }),
          tool('nul\u0000'), tool('half\ud800'), tool('a.b', { description: 7 }), tool('a_b', { description: 'half \ud800 nul \u0000' }), tool('ü/'.repeat(60)),
          tool('pattern', { inputSchema: { type: 'object', properties: { a: { type: 'string', pattern: '(' } } } }),
        ],
      })) // prettier-ignore
      const tools = await toolsAt(liar.url)
      expect(namesOf(tools)).toEqual([
        'mcp__mill__good',
        expect.stringMatching(/^mcp__mill__a_b_[0-9a-f]{8}$/),
        'mcp__mill__a_b',
        expect.stringMatching(/^mcp__mill__[_]+_[0-9a-f]{8}$/),
        'mcp__mill__pattern',
      ])
      expect(namesOf(tools).every((name) => /^[a-zA-Z0-9_-]{1,64}$/.test(name))).toBe(true)
      expect(tools[2]?.definition).toMatchObject({ description: 'half \ufffd nul \ufffd' })
      expect(log).toHaveLength(10)
    })

    test.each(['drop\u0000', 'drop\ud800'])(
      'and names one with %j, which no setting can name, does not have it',
      async (name) => {
        liar.on('tools/list', () => ({ tools: [{ ...TOOL, name }, TOOL] }))
        expect(namesOf(await toolsAt(liar.url, { deny: ['drop\ufffd'] }))).toEqual(['mcp__mill__ask'])
        expect(log.join()).toContain('is named with NUL or half a character')
      },
    )

    test('and has no end of them is listed up to a bound', async () => {
      let pages = 0
      liar.on('tools/list', () => ({
        tools: Array.from({ length: 30 }, (_, index) => ({ ...TOOL, name: `t${pages}-${index}` })),
        nextCursor: String(++pages),
      }))
      expect(await toolsAt(liar.url)).toHaveLength(128)
      expect(pages).toBe(5)
      liar.on('tools/list', () => ({ tools: [], nextCursor: String(++pages) }))
      expect(await toolsAt(liar.url)).toEqual([])
      expect(pages).toBe(15)
    })

    test('and lists no end of what is none is read up to a bound, and says so', async () => {
      liar.on('tools/list', () => ({ tools: [...Array<number>(40_000).fill(0), TOOL] }))
      expect(await toolsAt(liar.url)).toEqual([])
      expect(log).toHaveLength(10)
      expect(log[0]).toContain('it lists more than 500 things, and the rest is not read')
      liar.on('tools/list', () => ({ tools: Array<number>(1_900_000).fill(0) }))
      expect(await toolsAt(liar.url)).toEqual([])
      expect(log.at(-1)).toContain("the server's answer is longer than 50000 values")
    })

    test('is believed where it says that a tool only reads, and not where it says both', async () => {
      const annotated = (name: string, annotations: unknown) => ({ ...TOOL, name, annotations })
      liar.on('tools/list', () => ({
        tools: [
          annotated('reads', { readOnlyHint: true }),
          annotated('repeats', { idempotentHint: true }),
          annotated('both', { readOnlyHint: true, destructiveHint: true }),
          annotated('neither', 'trust me'),
        ],
      }))
      const tools = await toolsAt(liar.url)
      expect(tools.map(({ readOnly, idempotent }) => [readOnly, idempotent])).toEqual([
        [true, true],
        [false, true],
        [false, false],
        [false, false],
      ])
    })

    test('is asked again after a while, and its old list serves once more', async () => {
      const source = open([serverAt(liar.url)], true, 0)
      expect(await source.toolsFor(owner, signal)).toHaveLength(1)
      liar.on('tools/list', () => ({ tools: [TOOL, { ...TOOL, name: 'new' }] }))
      expect(await source.toolsFor(owner, signal)).toHaveLength(1)
      expect(await source.toolsFor(owner, signal)).toHaveLength(2)
    })

    test('is asked once for turns that ask together', async () => {
      const source = open([serverAt(liar.url)])
      await Promise.all([1, 2, 3].map(() => source.toolsFor({ ...owner, chatId: newId() }, signal)))
      expect(liar.methods().filter((method) => method === 'tools/list')).toHaveLength(1)
    })
  })

  test('is of no matter where the servers cannot be read', async () => {
    const source = open(() => Promise.reject(new Error('a row is damaged')))
    expect(await source.toolsFor(owner, signal)).toEqual([])
    expect(log.join()).toContain('the MCP servers could not be read')
  })

  test('are asked for again by another turn while Postgres is away', async () => {
    const away = new TurnmillError('database_unavailable', 'Postgres is away')
    await expect(open(() => Promise.reject(away)).toolsFor(owner, signal)).rejects.toBe(away)
  })

  describe('in its answers', () => {
    test.each<[string, Lie, object]>([
      ['nothing', () => ({}), { isError: false, output: 'done, without an output' }],
      [
        'an error',
        () => ({ content: [{ type: 'text', text: 'no' }], isError: true }),
        { isError: true, output: 'no' },
      ],
      [
        'nulls for what is left out',
        () => ({ content: null, structuredContent: null, isError: null }),
        { isError: false, output: 'done, without an output' },
      ],
      ...['true', 'false', 1, 0, {}].map((isError): [string, Lie, object] => [
        `an error by another word: ${JSON.stringify(isError)}`,
        () => ({ content: [{ type: 'text', text: 'no' }], isError }),
        { isError: true, output: 'no' },
      ]),
      ['content that is none', () => ({ content: 'text' }), { isError: true }],
      [
        'blocks that nobody knows',
        () => ({ content: [{ type: 'hologram' }, 7, { type: 'text', text: 'a' }] }),
        {
          isError: false,
          output: '[a block of type "hologram" was left out]\n[a block of type null was left out]\na',
        },
      ],
      [
        'an image that is none',
        () => ({
          content: [{ type: 'image', data: Buffer.from('<svg/>').toString('base64'), mimeType: 'image/png' }],
        }),
        { isError: false, output: '[an image was left out: it is no PNG, JPEG, GIF or WebP]', images: [] },
      ],
      [
        'an image that is another one',
        () => ({ content: [{ type: 'image', data: PNG.toString('base64'), mimeType: 'image/gif' }] }),
        { isError: false, output: null, images: [{ mediaType: 'image/png', bytes: expect.anything() }] },
      ],
      ['text and structure', () => ({ content: [{ type: 'text', text: 'a' }], structuredContent: { b: 1 } }),
        { output: { text: 'a', structured: { b: 1 } } }], // prettier-ignore
      ['structure twice', () => ({ content: [{ type: 'text', text: '{"b":1}' }], structuredContent: { b: 1 } }),
        { output: { b: 1 } }], // prettier-ignore
      [
        'what Postgres cannot hold',
        () => ({ content: [{ type: 'text', text: '\u0000\ud800' }] }),
        { output: '\ufffd\ufffd' },
      ],
      [
        'a book',
        () => ({ content: [{ type: 'text', text: 'x'.repeat(1e6) }] }),
        { output: expect.stringContaining('left out') },
      ],
    ])('which may be %s', async (_, lie, outcome) => {
      expect(await call(lie)).toMatchObject(outcome)
    })

    test.each<[string, Lie]>([
      ['breaks off', ({ response }) => {
        sendEvents(response, 'event: message\ndata: {"jsonrpc":"2.0","id":')
        setImmediate(() => response.destroy())
        return undefined
      }],
      ['ends without a result', ({ response }) => {
        sendEvents(response, 'data: {"jsonrpc":"2.0","method":"notifications/message"}\n\n')
        return void response.end()
      }],
      ['could not be parsed', errorOf(-32700, 'no JSON')],
      ['is no request', errorOf(-32600, 'no request')],
      ['names no method', errorOf(-32601, 'no such method')],
      ['names no tool', errorOf(-32602, 'no such tool')],
      ['is an error of the server', errorOf(-32603, 'paid, but the receipt could not be written')],
      ['is an error like one of the client', errorOf(-32001, 'silent')],
      ['is an error of a code of its own', errorOf(404, 'no such page')],
      ['is an error whose code is in no range', errorOf(1, 'failed')],
      ['is no JSON', ({ response }) => void response.setHeader('content-type', 'application/json').end('nonsense')],
      ['is a redirect', ({ response }) => void response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end()],
      ['is a refusal', ({ response }) => void response.writeHead(403).end('forbidden')],
      ['is an acknowledgement', ({ response }) => void response.writeHead(202).end()],
      ['has no content', ({ response }) => void response.writeHead(204).end()],
      ['is empty', ({ response }) => void response.setHeader('content-type', 'application/json').end()],
      ['is a batch of nothing', ({ response }) => sendJson(response, [])],
      ['is to something else', ({ response }) => sendJson(response, { jsonrpc: '2.0', id: 999, result: {} })],
      ['is to nothing', ({ response }) =>
        sendJson(response, { jsonrpc: '2.0', error: { code: -32600, message: 'what?' } })],
      ['asks us the same', ({ rpc, response }) => sendJson(response, { ...rpc, method: 'ping' })],
    ])('which fails the call at once where one %s (M3)', async (what, lie) => {
      expect(await call(lie)).toMatchObject({
        isError: true,
        output: expect.stringMatching(
          REFUSALS.includes(what) ? /^the MCP server mill did not do it: ./ : /^it is unknown whether the MCP server mill did it: ./,
        ),
      })
      expect(liar.calls).toHaveLength(1)
    }) // prettier-ignore

    test('which cannot be told is not told as if the call had not been made', async () => {
      const deep = '['.repeat(20_000) + ']'.repeat(20_000)
      const headers = { authorization: new Secret('Bearer a-secret-0000') }
      const answer: Lie = ({ rpc, response }) => {
        const result = `{"content":[],"structuredContent":{"deep":${deep}}}`
        response.setHeader('content-type', 'application/json')
        response.end(`{"jsonrpc":"2.0","id":${JSON.stringify(rpc.id)},"result":${result}}`)
      }
      expect(await call(answer, { headers })).toMatchObject({
        isError: true,
        output: expect.stringMatching(/^the MCP server mill answered, but its answer cannot be told: ./),
      })
    })

    test.each([
      [
        'flood of events',
        'data: {"jsonrpc":"2.0","method":"notifications/message","params":{"data":"',
        '"}}\n\n',
      ],
      ['line without end', 'data: ', ''],
    ])('which are read up to a size: a %s fails the call (M2)', async (_, before, after) => {
      const outcome = await call(({ response }) => {
        sendEvents(response, '')
        const flood = (): void =>
          void response.write(`${before}${'x'.repeat(65_536)}${after}`, (error) => error ?? flood())
        flood()
        return undefined
      })
      expect(outcome).toMatchObject({
        isError: true,
        output: expect.stringContaining('longer than 16777216 bytes'),
      })
    })

    const zeros = (count: number): string => `[${'0,'.repeat(count)}0]`
    const withContent = (content: string): Answer => ({
      body: (id) => `{"jsonrpc":"2.0","id":${String(id)},"result":{"content":${content}}}`,
    })
    const inEvents = ({ body }: Answer, before = ''): Answer => ({
      type: 'text/event-stream',
      body: (id) => `${before}data: ${body(id)}\n\n`,
    })
    const batchOf = (message: string, count: number): Answer => ({
      body: (id) => `[${`${message},`.repeat(count)}{"jsonrpc":"2.0","id":${String(id)},"result":{}}]`,
    })
    const NOTE = '{"jsonrpc":"2.0","method":"a"}'
    test.each<[string, Answer, string]>([
      ['many values', withContent(zeros(7_900_000)), '50000 values'],
      ['many values in an event', inEvents(withContent(zeros(7_900_000))), '50000 values'],
      ['many objects', withContent(`[${'{},'.repeat(60_000)}{}]`), '50000 values'],
      ['many messages', batchOf(NOTE, 300_000), '50000 values'],
      ['some messages', batchOf(NOTE, 300), '300 messages'],
      ['many events', inEvents(withContent('[]'), `data: ${NOTE}\n\n`.repeat(400_000)), '20000 lines'],
      ['many lines', inEvents(withContent('[]'), '\r'.repeat(15_000_000)), '20000 lines'],
    ])('which keep nobody else from working with %s (M2)', async (_, { type, body }, limit) => {
      const lie: Lie = ({ rpc, response }) =>
        void response.setHeader('content-type', type ?? 'application/json').end(body(rpc.id))
      const { answered, blockedMs } = await blocking(() => call(lie))
      const output = expect.stringMatching(`the server's answer is longer than ${limit}$`)
      expect(answered).toMatchObject({ isError: true, output })
      expect(blockedMs).toBeLessThan(2000)
    })

    test('which hold texts of any kind, as few values', async () => {
      const text = `${'\\"[{,'.repeat(60_000)}${'\n'.repeat(40_000)}`
      const content = [{ type: 'text', text }]
      const output = expect.stringContaining('\\"[{,\\"[{,')
      expect(await call(() => ({ content }))).toMatchObject({ isError: false, output })
    })

    test('which are told up to a number of blocks', async () => {
      const content = Array.from({ length: 1003 }, (_, index) => ({ type: 'text', text: `${index}.` }))
      const { output } = await call(() => ({ content }))
      expect(String(output).split('\n').slice(-2)).toEqual(['999.', '[3 more blocks were left out]'])
    })

    test('which are waited for within a time, and then let go of (M4)', async () => {
      const told = liar.heard('notifications/cancelled')
      const asked = liar.heard('tools/call')
      const outcome = call(({ response }) => sendEvents(response, ': begun\n\n'), {
        timeoutMs: 2000,
      })
      expect(await outcome).toMatchObject({ isError: true, output: 'the tool did not answer within 2000 ms' })
      await liar.closed(await asked)
      await told
    })

    test.each([': begun\n\n', 'id: 7\ndata: \n\n'])(
      'which a stop lets go of at once (M4, after %j)',
      async (begun) => {
        liar.on('tools/call', ({ response }) => sendEvents(response, begun))
        const stop = new AbortController()
        const asked = liar.heard('tools/call')
        const [tool] = await toolsAt(liar.url)
        const outcome = run(tool, {}, stop.signal)
        const call = await asked
        stop.abort(new Error('stopped'))
        await expect(outcome).rejects.toThrow('stopped')
        await liar.closed(call)
        // It is not resumed, and the session goes on.
        liar.on('tools/call', () => ({ content: [] }))
        expect(await run(tool)).toMatchObject({ isError: false })
        expect(liar.methods()).not.toContain('GET')
      },
    )

    test('which may be resumed after a break', async () => {
      liar.on('GET', ({ request, response }) => {
        expect(request.headers['last-event-id']).toBe('7')
        const id = liar.calls[0]?.rpc.id
        sendEvents(response, `data: ${JSON.stringify({ jsonrpc: '2.0', id, result: { content: [] } })}\n\n`)
        return void response.end()
      })
      const outcome = await call(({ response }) => {
        sendEvents(response, 'id: 7\nretry: 1\ndata: \n\n')
        return void response.end()
      })
      expect(outcome).toMatchObject({ isError: false })
    })

    const begin: Lie = ({ response }) => {
      sendEvents(response, 'id: 1\nretry: 1\ndata: \n\n')
      return void response.end()
    }
    const endAtOnce: Lie = ({ response }) => {
      sendEvents(response, ': nothing\n\n')
      return void response.end()
    }
    test.each<[string, Lie, Lie, number]>([
      ['is refused', begin, ({ response }) => void response.writeHead(405).end(), 1],
      ['is of a session that is forgotten', begin, ({ response }) => void response.writeHead(404).end(), 1],
      ['is no stream', begin, ({ response }) => sendJson(response, {}), 1],
      ['fails again and again', begin, ({ response }) => void response.writeHead(503).end(), 2],
      ['breaks off again and again', begin, ({ response }) => void response.destroy(), 2],
      ['never holds anything', begin, endAtOnce, 100],
      [
        'would be of an answer that nobody can read',
        ({ rpc, response }) => {
          const answer = JSON.stringify({ jsonrpc: '2.0', id: rpc.id, result: 7 })
          sendEvents(response, `id: 1\nretry: 1\ndata: ${answer}\n\n`)
          return void response.end()
        },
        endAtOnce,
        0,
      ],
      [
        'has no event to go on from',
        ({ response }) => {
          sendEvents(response, 'id: 1\n\n')
          return void response.end()
        },
        endAtOnce,
        0,
      ],
    ])('which fail the call where their rest %s (M3)', async (_, first, rest, times) => {
      liar.on('GET', rest)
      expect(await call(first)).toMatchObject({
        isError: true,
        output: expect.stringMatching(/^it is unknown whether the MCP server mill did it: ./),
      })
      expect(liar.calls).toHaveLength(1)
      expect(liar.methods().filter((method) => method === 'GET')).toHaveLength(times)
    })

    test('which are not resumed before the server would have us back', async () => {
      const lie: Lie = ({ response }) => {
        sendEvents(response, 'id: 1\nretry: 99999999999\ndata: \n\n')
        return void response.end()
      }
      const output = 'the tool did not answer within 300 ms'
      expect(await call(lie, { timeoutMs: 300 })).toMatchObject({ isError: true, output })
      expect(liar.methods()).not.toContain('GET')
    })

    const ping = (id: number): string => `data: ${JSON.stringify({ jsonrpc: '2.0', id, method: 'ping' })}\n\n`
    test('which may ask us something a bounded number of times (M5)', async () => {
      const outcome = await call(({ rpc, response }) => {
        sendEvents(response, Array.from({ length: 1000 }, (_, index) => ping(index + 1000)).join(''))
        return void response.end(
          `data: ${JSON.stringify({ jsonrpc: '2.0', id: rpc.id, result: { content: [] } })}\n\n`,
        )
      })
      expect(outcome).toMatchObject({ isError: false })
      expect(liar.methods().filter((method) => method === 'POST').length).toBeLessThanOrEqual(100)
    })

    test('which have asked us for too much do not keep the next call from being made (M5)', async () => {
      liar.on('tools/call', ({ rpc, response }) => {
        sendEvents(response, Array.from({ length: 200 }, (_, index) => ping(index + 1000)).join(''))
        return void response.end(
          `data: ${JSON.stringify({ jsonrpc: '2.0', id: rpc.id, result: { content: [] } })}\n\n`,
        )
      })
      const [tool] = await toolsAt(liar.url)
      expect(await run(tool)).toMatchObject({ isError: false })
      expect(await run(tool)).toMatchObject({ isError: false })
      expect(liar.methods().filter((method) => method === 'POST').length).toBeLessThanOrEqual(100)
      expect(liar.methods().filter((method) => method === 'initialize')).toHaveLength(2)
    })

    test('which may not repeat what it was sent: not to models, and not to the log', async () => {
      const headers = { authorization: new Secret(`Bearer ${CREDENTIAL}`), 'x-team': new Secret('a') }
      const echo = ({ headers: sent }: { headers: object }): string => JSON.stringify(sent)
      liar.on('tools/list', ({ request }) => ({
        tools: [
          { ...TOOL, description: echo(request) },
          { ...TOOL, name: CREDENTIAL, inputSchema: CREDENTIAL },
        ],
      }))
      liar.on('tools/call', ({ request }) => ({
        content: [{ type: 'text', text: echo(request) }],
        structuredContent: { [CREDENTIAL]: echo(request) },
      }))
      const [tool] = await toolsAt(liar.url, { headers })
      const outcome = await run(tool)
      liar.on('tools/call', ({ request, response }) => void response.writeHead(500).end(echo(request)))
      const failed = await run(tool)
      liar.on('initialize', ({ request, response }) => void response.writeHead(500).end(echo(request)))
      expect(await toolsAt(liar.url, { headers })).toEqual([])
      const said = JSON.stringify([tool?.definition, outcome, failed, log])
      expect(said).toContain('<redacted>')
      expect(said).not.toContain(CREDENTIAL)
      expect(liar.calls[0]?.request.headers).toMatchObject({
        authorization: `Bearer ${CREDENTIAL}`,
        'x-team': 'a',
      })
    })

    const ODD = String.raw`a/b&c"d\e<f>-0123456789`
    const escapedOf = (text: string): string => JSON.stringify(text).slice(1, -1)
    const codeOf = (character: string): string =>
      `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
    test.each<[string, string]>([
      ['as it is', ODD],
      ['as JSON', escapedOf(ODD)],
      ['as PHP writes JSON', escapedOf(ODD).replaceAll('/', String.raw`\/`)],
      ['as Go writes JSON', escapedOf(ODD).replace(/[&<>]/g, codeOf)],
      ['in codes', ODD.replace(/./g, codeOf)],
      ['in codes in upper case', ODD.replace(/./g, (one) => codeOf(one).toUpperCase().replace('U', 'u'))],
      ['after a backslash', String.raw`\\` + escapedOf(ODD)],
    ])('which may not repeat a secret %s', async (_, written) => {
      const headers = { authorization: new Secret(`Bearer ${ODD}`) }
      const text = `{"\\"at":"\\u0041${written}\\n","${written}"}`
      const { output } = await call(() => ({ content: [{ type: 'text', text }] }), { headers })
      const slashes = written.startsWith('\\\\') ? '\\\\' : ''
      expect(output).toBe(`{"\\"at":"\\u0041${slashes}<redacted>\\n","${slashes}<redacted>"}`)
    })

    test.each<[string, Lie]>([
      ['the type of a block', () => ({ content: [{ type: 'x'.repeat(80) + CREDENTIAL }] })],
      ['an error', errorOf(-32603, 'x'.repeat(440) + CREDENTIAL + 'x'.repeat(500))],
      ['a refusal', ({ response }) => void response.writeHead(403).end('x'.repeat(420) + CREDENTIAL)],
    ])('which may not repeat the beginning of a secret where %s is cut', async (_, lie) => {
      const { output } = await call(lie, { headers: { authorization: new Secret(CREDENTIAL) } })
      expect(output).toContain('xxx')
      expect(output).not.toContain(CREDENTIAL.slice(0, 8))
    })

    test.each([
      [`${'a'.repeat(4_000)}b`, 'a'],
      [`b${'a'.repeat(4_000)}`, 'a'],
      [`${'\\/'.repeat(2_000)}b`, '\\\\/'],
    ])('which keep nobody waiting while they are searched for a secret', async (secret, text) => {
      const content = [{ type: 'text', text: text.repeat(1_000_000 / text.length) }]
      const headers = { authorization: new Secret(secret) }
      const { answered, blockedMs } = await blocking(() => call(() => ({ content }), { headers }))
      expect(answered).toMatchObject({ isError: false })
      expect(blockedMs).toBeLessThan(2000)
    })

    test('whose tools may not be named after what it was sent', async () => {
      const headers = { authorization: new Secret(`Bearer ${CREDENTIAL}`) }
      const field = { type: 'object', properties: { [CREDENTIAL]: { type: 'string' } } }
      liar.on('tools/list', () => ({
        tools: [
          { ...TOOL, name: CREDENTIAL },
          { ...TOOL, name: 'of', inputSchema: field },
          { ...TOOL, inputSchema: { type: 'object', description: `It is ${CREDENTIAL}.` } },
        ],
      }))
      const tools = await toolsAt(liar.url, { headers })
      expect(tools.map(({ definition }) => definition)).toMatchObject([
        { name: 'mcp__mill__ask', inputSchema: { description: 'It is <redacted>.' } },
      ])
      expect(log.map((line) => (JSON.parse(line) as { reason: string }).reason)).toEqual([
        'it names a tool after a header that it was sent',
        'its tool "of" has a schema with a key named after a header that the server was sent',
      ])
      expect(log.join()).not.toContain(CREDENTIAL)
    })

    test.each([
      ['x-mode', 'required', ['required']],
      ['x-mode', 'a-mode-of-work', ['<redacted>']],
      ['x-api-key', 'required', undefined],
    ])('whose schemas keep their keys with %s: %s, or are left out', async (name, value, told) => {
      const schemaOf = (values: string[]) => ({
        type: 'object',
        properties: { a: { enum: values } },
        required: ['a'],
      })
      liar.on('tools/list', () => ({ tools: [{ ...TOOL, inputSchema: schemaOf([value]) }] }))
      const tools = await toolsAt(liar.url, { headers: { [name]: new Secret(value) } })
      const schemas = told === undefined ? [] : [schemaOf(told)]
      expect(tools.map(({ definition }) => (definition as FunctionTool).inputSchema)).toEqual(schemas)
    })

    test('are those of one session for each chat, which ends with us', async () => {
      const source = open([serverAt(liar.url)])
      const countOf = (name: string): number => liar.methods().filter((method) => method === name).length
      const [tool] = await source.toolsFor(owner, signal)
      const listed = countOf('initialize')
      await Promise.all([run(tool), run(tool), run(tool)])
      await run(tool)
      const [elsewhere] = await source.toolsFor({ ...owner, chatId: newId() }, signal)
      await run(elsewhere)
      expect(countOf('initialize') - listed).toBe(2)
      await source.close()
      expect(countOf('DELETE')).toBe(3)
    })

    test('of a session that is still being opened are not waited for where it is closed', async () => {
      const source = open([serverAt(liar.url)])
      const [tool] = await source.toolsFor(owner, signal)
      liar.on('initialize', () => undefined)
      const asked = liar.heard('initialize')
      const outcome = run(tool)
      const opening = await asked
      await Promise.all([source.close(), liar.closed(opening)])
      expect(await outcome).toMatchObject({
        isError: true,
        output: 'the MCP server mill did not do it: the session was closed before it was open',
      })
    }, 5000)

    test('end a session without a word on what opened it', async () => {
      const source = open([serverAt(liar.url)])
      const [tool] = await source.toolsFor(owner, signal)
      await run(tool)
      await source.close()
      expect(liar.methods()).not.toContain('notifications/cancelled')
    })

    test.each([
      [404, 'gone', 2],
      [400, 'Bad Request: No valid session ID provided', 2],
      [400, 'paid, but the receipt could not be written', 1],
      [500, 'no such session', 1],
    ])('of a kept session that are %d, %s, have the call made so often: %d', async (status, text, times) => {
      const [tool] = await toolsAt(liar.url)
      await run(tool)
      const before = liar.calls.length
      liar.on('tools/call', ({ response }) => void response.writeHead(status).end(text))
      expect(await run(tool)).toMatchObject({ isError: true, output: expect.stringContaining(text) })
      expect(liar.calls.length - before).toBe(times)
    })

    test.each([
      [404, 'no such customer'],
      [400, 'the payment session is over'],
    ])('of a kept session that are errors of JSON-RPC, %d, %s, are its answers', async (code, text) => {
      const [tool] = await toolsAt(liar.url)
      await run(tool)
      const before = liar.calls.length
      liar.on('tools/call', errorOf(code, text))
      const output = expect.stringMatching(`^it is unknown whether the MCP server mill did it: .*${text}`)
      expect(await run(tool)).toMatchObject({ isError: true, output })
      expect(liar.calls.length - before).toBe(1)
    })

    test('of a session that is refused, and then no new one begins, are told as not made', async () => {
      const [tool] = await toolsAt(liar.url)
      await run(tool)
      liar.on('tools/call', ({ response }) => void response.writeHead(404).end())
      liar.on('initialize', ({ response }) => void response.writeHead(503).end('starting'))
      const output = expect.stringMatching(/^the MCP server mill did not do it: .*starting/)
      expect(await run(tool)).toMatchObject({ isError: true, output })
    })

    test('of a session that was opened with other headers are not given to these', async () => {
      const keys: unknown[] = []
      liar.on('initialize', ({ request, response }) => {
        keys.push(request.headers['x-key'])
        response.setHeader('mcp-session-id', String(request.headers['x-key']))
        return { protocolVersion: '2025-06-18', capabilities: {}, serverInfo: { name: 'x', version: '1' } }
      })
      const server = serverAt(liar.url)
      let headers = { 'x-key': new Secret('first-key') }
      const source = open(async () => [{ ...server, headers }])
      const [first] = await source.toolsFor(owner, signal)
      await run(first)
      headers = { 'x-key': new Secret('second-key') }
      const [second] = await source.toolsFor(owner, signal)
      await run(second)
      expect(liar.calls.map(({ request }) => request.headers['mcp-session-id'])).toEqual([
        'first-key',
        'second-key',
      ])
      expect(keys).toEqual(['first-key', 'first-key', 'second-key', 'second-key'])
    })
  })
})
