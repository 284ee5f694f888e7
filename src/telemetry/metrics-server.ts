import { createServer } from 'node:http'
import { once } from 'node:events'
import type { Metrics } from './metrics.ts'

/** Serves `/metrics` and `/healthz` of a process that has no API. */
export interface MetricsServer {
  start(): Promise<void>
  stop(): Promise<void>
}

export function createMetricsServer(metrics: Metrics, host: string, port: number): MetricsServer {
  const server = createServer((request, response) => {
    void answer(request.url ?? '').then(({ status, contentType, text }) =>
      response.writeHead(status, { 'content-type': contentType }).end(text),
    )
  })

  async function answer(url: string): Promise<{ status: number; contentType: string; text: string }> {
    if (url === '/healthz') return { status: 200, contentType: 'application/json', text: '{"status":"ok"}' }
    if (url !== '/metrics')
      return { status: 404, contentType: 'text/plain', text: 'there is /metrics and /healthz\n' }
    return { status: 200, ...(await metrics.render()) }
  }

  return {
    start: async () => {
      server.listen(port, host)
      await once(server, 'listening')
    },
    stop: async () => {
      server.closeAllConnections()
      if (server.listening) await new Promise((resolve) => server.close(resolve))
    },
  }
}
