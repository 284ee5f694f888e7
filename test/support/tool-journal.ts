import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A call that a tool of another process has carried out. */
export interface Execution {
  tool: string
  turnId: string
  toolCallId: string
}

/** Where the tools of `test/fixtures/counting-tool.ts` say that they run. */
export interface ToolJournal {
  /** For `TOOL_SERVER_URL`. */
  url: string
  /** In the order in which they were begun. */
  executions: readonly Execution[]
  stop(): Promise<void>
}

export async function startToolJournal(): Promise<ToolJournal> {
  const executions: Execution[] = []
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const execution = JSON.parse(Buffer.concat(chunks).toString()) as Execution
      executions.push(execution)
      response.end(JSON.stringify(`${execution.tool} done`))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    executions,
    stop: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
