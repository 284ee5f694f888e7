import { z } from 'zod'
import { checkDestination } from '../models/index.ts'
import * as tools from '../tools/index.ts'
import { principalOf } from './authentication.ts'
import type { ApiContext, ApiServer } from './context.ts'
import { effectsOf } from './effects.ts'
import * as mcp from './mcp-schemas.ts'
import { idParams } from './schemas.ts'
import { withoutUndefined } from './without-undefined.ts'

const admin = { scope: 'admin' } as const
const tags = ['tools']

/** MCP servers, and what users send to them of their own. Headers go in and never come out. */
export function registerMcpRoutes(app: ApiServer, { config, encryption, providerFetch }: ApiContext): void {
  const destinations = { allowPrivate: config.allowPrivateProviders ?? false }
  app.post('/v1/mcp-servers', {
    config: admin,
    schema: {
      tags,
      summary: 'Create an MCP server',
      body: mcp.createMcpServerBody,
      response: { 201: mcp.mcpServerAnswer },
    },
    handler: async (request, reply) => {
      await checkDestination(request.body.url, destinations)
      const { db } = effectsOf(request)
      return reply.code(201).send(await tools.createMcpServer(db, encryption, request.body))
    },
  })

  app.get('/v1/mcp-servers', {
    config: admin,
    schema: {
      tags,
      summary: 'List the MCP servers',
      response: { 200: z.object({ items: z.array(mcp.mcpServerAnswer) }) },
    },
    handler: async (request) => ({ items: await tools.listMcpServers(effectsOf(request).db, encryption) }),
  })

  app.get('/v1/mcp-servers/:id', {
    config: admin,
    schema: {
      tags,
      summary: 'Show an MCP server',
      params: idParams,
      response: { 200: mcp.mcpServerAnswer },
    },
    handler: (request) => tools.getMcpServer(effectsOf(request).db, encryption, request.params.id),
  })

  app.patch('/v1/mcp-servers/:id', {
    config: admin,
    schema: {
      tags,
      summary: 'Change an MCP server; headers are replaced as a whole',
      params: idParams,
      body: mcp.updateMcpServerBody,
      response: { 200: mcp.mcpServerAnswer },
    },
    handler: async (request) => {
      const { url } = request.body
      if (url !== undefined) await checkDestination(url, destinations)
      const change = withoutUndefined(request.body)
      return tools.updateMcpServer(effectsOf(request).db, encryption, request.params.id, change)
    },
  })

  app.delete('/v1/mcp-servers/:id', {
    config: admin,
    schema: { tags, summary: 'Delete an MCP server', params: idParams, response: { 204: z.null() } },
    handler: async (request, reply) => {
      await tools.deleteMcpServer(effectsOf(request).db, request.params.id)
      return reply.code(204).send(null)
    },
  })

  app.post('/v1/mcp-servers/:id/test', {
    config: admin,
    schema: {
      tags,
      summary: 'Ask an MCP server for its tools, as your own chats would',
      params: idParams,
      response: { 200: mcp.mcpTestAnswer },
    },
    handler: async (request) => {
      const { id } = request.params
      const { userId } = principalOf(request)
      const server = await tools.getUsersMcpServer(effectsOf(request).db, encryption, { id, userId })
      return tools.testMcpServer(server, providerFetch)
    },
  })

  app.get('/v1/me/mcp-servers', {
    config: { scope: 'chats:read' },
    schema: {
      tags,
      summary: 'List the MCP servers your chats may use, with the headers that are your own',
      response: { 200: z.object({ items: z.array(mcp.userMcpServerAnswer) }) },
    },
    handler: async (request) => {
      const { userId } = principalOf(request)
      return { items: await tools.listUserMcpServers(effectsOf(request).db, encryption, userId) }
    },
  })

  app.put('/v1/me/mcp-servers/:name/headers', {
    config: { scope: 'chats:write' },
    schema: {
      tags,
      summary: 'Store your own headers for an MCP server, in place of earlier ones',
      params: mcp.userHeadersParams,
      body: mcp.userHeadersBody,
      response: { 200: mcp.userMcpServerAnswer },
    },
    handler: (request) => {
      const owner = { userId: principalOf(request).userId, serverName: request.params.name }
      return tools.putUserMcpHeaders(effectsOf(request).db, encryption, owner, request.body.headers)
    },
  })

  app.delete('/v1/me/mcp-servers/:name/headers', {
    config: { scope: 'chats:write' },
    schema: {
      tags,
      summary: 'Delete your own headers for an MCP server',
      params: mcp.userHeadersParams,
      response: { 204: z.null() },
    },
    handler: async (request, reply) => {
      const owner = { userId: principalOf(request).userId, serverName: request.params.name }
      await tools.deleteUserMcpHeaders(effectsOf(request).db, owner)
      return reply.code(204).send(null)
    },
  })
}
