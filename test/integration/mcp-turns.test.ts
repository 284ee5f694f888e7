import { MCPMock } from '@copilotkit/aimock'
import type { MessageView } from '../../src/protocol/views.ts'
import type { UpstreamRequest } from '../support/fake-upstream.ts'
import { startEverythingServer, type EverythingServer } from '../support/mcp-everything.ts'
import { startMcpLiar, type McpLiar } from '../support/mcp-liar.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

let turnmill: Turnmill
let user: TestUser
let everything: EverythingServer
let dying: EverythingServer
let mock: MCPMock
let liar: McpLiar

beforeAll(async () => {
  mock = new MCPMock({ host: '127.0.0.1', port: 0 })
  mock.addTool({ name: 'grind', description: 'Grinds.', inputSchema: { type: 'object' } })
  mock.onToolCall('grind', (input) => `ground ${JSON.stringify(input)}`)
  everything = await startEverythingServer()
  dying = await startEverythingServer()
  liar = await startMcpLiar()
  turnmill = await startTurnmill()
  const add = async (name: string, url: string) => {
    const body = { name, url, timeoutMs: 20_000, headers: { 'x-team': 'the-header-of-the-team' } }
    expect((await turnmill.admin.client.request('POST', '/v1/mcp-servers', body)).status).toBe(201)
  }
  await add('every', everything.url)
  await add('dying', dying.url)
  await add('mock', await mock.start())
  await add('liar', liar.url)
  await add('dead', 'http://127.0.0.1:1/mcp')
})
afterAll(async () => {
  await turnmill.stop()
  await Promise.all([everything.stop(), dying.stop(), mock.stop(), liar.stop()])
})
beforeEach(async () => {
  turnmill.upstream.reset()
  user = await turnmill.addUser()
})

const requests = () => turnmill.upstream.requests
const bodyOf = (request: UpstreamRequest | undefined): string => JSON.stringify(request?.body)

const toolNames = (request: UpstreamRequest | undefined): string[] =>
  ((request?.body['tools'] ?? []) as { name: string }[]).map(({ name }) => name)

/** A turn whose model calls these tools at once, and then answers. */
async function callTools(calls: readonly [name: string, input: object][], who = user) {
  turnmill.upstream.script(({ number }) =>
    number === 1
      ? {
          type: 'answer',
          toolCalls: calls.map(([name, input], index) => ({
            id: `c${index}`,
            name,
            args: [JSON.stringify(input)],
          })),
        }
      : { type: 'answer', text: 'done' },
  )
  const { chat, turn } = await who.client.create('go')
  const ended = await who.client.ended(chat.id, turn.id)
  return { chat, turn: ended, results: resultsOf(await who.client.messages(chat.id)) }
}

const resultsOf = (messages: readonly MessageView[]) =>
  messages.flatMap(({ parts }) => parts.filter((part) => part.type === 'tool-result'))

describe('a turn with MCP servers', () => {
  test('is offered the tools of those that live, and goes on without a dead one', async () => {
    const { turn } = await callTools([])
    expect(turn).toMatchObject({ state: 'completed', error: null })
    const names = toolNames(requests()[0])
    expect(names).toEqual(
      expect.arrayContaining(['mcp__every__echo', 'mcp__every__get-sum', 'mcp__mock__grind']),
    )
    expect(names.filter((name) => name.startsWith('mcp__dead'))).toEqual([])
    expect(bodyOf(requests()[0])).not.toContain('the-header-of-the-team')
  })

  test('has the reference server and aimock’s mock answer side by side, over HTTP', async () => {
    const { turn, results } = await callTools([
      ['mcp__every__echo', { message: 'hi' }],
      ['mcp__every__get-sum', { a: 2, b: 40 }],
      ['mcp__mock__grind', { corn: 1 }],
      ['mcp__dead__any', {}],
    ])
    expect(turn).toMatchObject({ state: 'completed', error: null })
    expect(results).toMatchObject([
      { toolCallId: 'c0', toolName: 'mcp__every__echo', output: 'Echo: hi', isError: false },
      { toolCallId: 'c1', output: expect.stringContaining('42'), isError: false },
      { toolCallId: 'c2', output: 'ground {"corn":1}', isError: false },
      { toolCallId: 'c3', isError: true },
    ])
    expect(bodyOf(requests()[1])).toContain('Echo: hi')
    expect(bodyOf(requests()[1])).toContain('ground')
  })

  test('shows its provider the image of a tool', async () => {
    const { turn, results } = await callTools([['mcp__every__get-tiny-image', {}]])
    expect(turn.state).toBe('completed')
    const [result] = results
    const [image] = result?.images ?? []
    expect(image).toMatchObject({ type: 'image', mediaType: 'image/png' })
    const file = await fetch(`${turnmill.address}/v1/files/${image?.fileId}`, {
      headers: { authorization: `Bearer ${user.token}` },
    })
    const bytes = Buffer.from(await file.arrayBuffer())
    expect(bodyOf(requests()[1])).toContain(`data:image/png;base64,${bytes.toString('base64')}`)
  })

  test('goes on where a server dies between listing and call', async () => {
    const first = await callTools([['mcp__dying__echo', { message: '1' }]])
    expect(first.results).toMatchObject([{ output: 'Echo: 1' }])
    await dying.stop()
    turnmill.upstream.reset()
    const { turn, results } = await callTools([['mcp__dying__echo', { message: '2' }]])
    expect(turn).toMatchObject({ state: 'completed', error: null })
    expect(results).toMatchObject([{ isError: true }])
  })

  test('sends a user’s own headers for that user alone', async () => {
    const put = await user.client.request('PUT', '/v1/me/mcp-servers/liar/headers', {
      headers: { 'x-own': 'the-header-of-one-user' },
    })
    expect(put.status).toBe(200)
    const other = await turnmill.addUser()
    const before = liar.calls.length
    await callTools([['mcp__liar__ask', {}]])
    turnmill.upstream.reset()
    await callTools([['mcp__liar__ask', {}]], other)
    expect(liar.calls.slice(before).map(({ request }) => request.headers)).toMatchObject([
      { 'x-team': 'the-header-of-the-team', 'x-own': 'the-header-of-one-user' },
      { 'x-team': 'the-header-of-the-team' },
    ])
    expect(liar.calls.at(-1)?.request.headers['x-own']).toBeUndefined()
  })

  test('sends a user’s own header in place of the server’s, also where it is written with _', async () => {
    const put = await user.client.request('PUT', '/v1/me/mcp-servers/liar/headers', {
      headers: { X_Team: 'the-header-of-one-user' },
    })
    expect(put.status).toBe(200)
    await callTools([['mcp__liar__ask', {}]])
    const headers = liar.calls.at(-1)?.request.headers
    expect(headers).toMatchObject({ x_team: 'the-header-of-one-user' })
    expect(headers).not.toHaveProperty('x-team')
  })
})
