/**
 * A provider that answers Chat Completions at once, whole or streamed, over real HTTP. It costs as little as a server
 * can, so that what is measured is what stands in front of it.
 */
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { json } from 'node:stream/consumers'
import { streamedAnswer, wholeAnswer } from './chat-completions.ts'

const PARTS = Number(process.env.BENCH_PARTS ?? 20)
const WHOLE = wholeAnswer(PARTS)
const STREAMED = streamedAnswer(PARTS)

const server = http.createServer((request, answer) => {
  if (request.method !== 'POST' || request.url !== '/v1/chat/completions') {
    answer.writeHead(404).end()
    return
  }
  json(request).then(
    (body) => send(answer, (body as { stream?: boolean }).stream === true),
    () => answer.writeHead(400).end(),
  )
})

function send(answer: http.ServerResponse, streamed: boolean): void {
  if (!streamed) {
    answer
      .writeHead(200, { 'content-type': 'application/json', 'content-length': WHOLE.byteLength })
      .end(WHOLE)
    return
  }
  answer.writeHead(200, { 'content-type': 'text/event-stream' })
  for (const event of STREAMED) answer.write(event)
  answer.end()
}

server.keepAliveTimeout = 60_000
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address() as AddressInfo
  console.log(JSON.stringify({ level: 'info', msg: 'listening', port }))
})
process.on('SIGTERM', () => process.exit(0))
