import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A JSON-RPC message as it came. */
export interface Rpc {
  id?: number
  method?: string
  params?: Record<string, unknown>
}

export interface Asked {
  rpc: Rpc
  request: IncomingMessage
  response: ServerResponse
}

/** Answers a message as it likes: with a result, or by itself on the response, and then with nothing. */
export type Lie = (asked: Asked) => object | undefined

/** An MCP server that says what a test tells it to; `initialize` it answers as it should, unless told otherwise. */
export interface McpLiar {
  url: string
  /** The methods of all messages, in order; `GET` and `DELETE` for requests that hold none. */
  methods(): string[]
  /** The calls of tools that reached it. */
  calls: Asked[]
  on(method: string, lie: Lie): void
  /** Resolves once the connection of a call is closed. */
  closed(asked: Asked): Promise<void>
  /** Resolves once a further message of this method has come. */
  heard(method: string): Promise<Asked>
  stop(): Promise<void>
}

export const TOOL = { name: 'ask', description: 'Asks.', inputSchema: { type: 'object' } }

const INITIALIZED = {
  protocolVersion: '2025-06-18',
  capabilities: { tools: {} },
  serverInfo: { name: 'liar', version: '1' },
}

export async function startMcpLiar(): Promise<McpLiar> {
  const lies = new Map<string, Lie>([
    [
      'initialize',
      ({ response }) => {
        response.setHeader('mcp-session-id', 'one')
        return INITIALIZED
      },
    ],
    ['tools/list', () => ({ tools: [TOOL] })],
    ['tools/call', () => ({ content: [{ type: 'text', text: 'done' }] })],
  ])
  const methods: string[] = []
  const calls: Asked[] = []
  const waiting: { method: string; tell(asked: Asked): void }[] = []

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const rpc = request.method === 'POST' ? await readRpc(request) : {}
    const method = rpc.method ?? request.method ?? ''
    const asked = { rpc, request, response }
    methods.push(method)
    if (method === 'tools/call') calls.push(asked)
    for (const one of waiting.filter((listener) => listener.method === method)) one.tell(asked)
    const lie = lies.get(method)
    if (lie === undefined) response.writeHead(method.startsWith('notifications/') ? 202 : 405).end()
    else {
      const result = lie(asked)
      if (result !== undefined) sendJson(response, { jsonrpc: '2.0', id: rpc.id, result })
    }
  }

  const server = createServer((request, response) => void answer(request, response))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`,
    methods: () => methods,
    calls,
    on: (method, lie) => lies.set(method, lie),
    closed: async ({ response }) => {
      if (!response.destroyed) await once(response, 'close')
    },
    heard: (method) => new Promise((resolve) => waiting.push({ method, tell: resolve })),
    stop: async () => {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}

async function readRpc(request: IncomingMessage): Promise<Rpc> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return JSON.parse(Buffer.concat(chunks).toString()) as Rpc
}

/** Ends the answer with this message. */
export function sendJson(response: ServerResponse, message: unknown): undefined {
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify(message))
}

/** Begins an event stream, and writes this. */
export function sendEvents(response: ServerResponse, text: string): undefined {
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  response.write(text)
}
