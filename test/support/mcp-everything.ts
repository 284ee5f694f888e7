import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const ENTRY = fileURLToPath(import.meta.resolve('@modelcontextprotocol/server-everything/dist/index.js'))

/** The reference server of the protocol's own project, in a process. */
export interface EverythingServer {
  url: string
  stop(): Promise<void>
}

export async function startEverythingServer(): Promise<EverythingServer> {
  const port = await freePort()
  const child = spawn(process.execPath, [ENTRY, 'streamableHttp'], {
    env: { PORT: String(port) },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const exited = once(child, 'exit')
  const said = createInterface({ input: child.stderr })
  const listening = new Promise<void>((resolve) =>
    said.on('line', (line) => {
      if (line.includes(`listening on port ${port}`)) resolve()
    }),
  )
  const ended = exited.then(([code]) => {
    throw new Error(`the reference server exited with ${code}`)
  })
  await Promise.race([listening, ended])
  ended.catch(() => undefined)
  return {
    url: `http://127.0.0.1:${port}/mcp`,
    stop: async () => {
      child.kill('SIGKILL')
      await exited
    },
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
