/**
 * A provider that answers at once, over real HTTP, one write per event. It costs as little as a server can, so that what
 * is measured is the program in front of it.
 */
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { answerEvents } from './answer-events.ts'

const EVENTS = answerEvents(Number(process.env.BENCH_PARTS ?? 20))
const server = http.createServer((request, answer) => {
  if (request.method !== 'POST' || request.url !== '/v1/responses') {
    answer.writeHead(404).end()
    return
  }
  request.resume().once('end', () => {
    answer.writeHead(200, { 'content-type': 'text/event-stream' })
    for (const event of EVENTS) answer.write(event)
    answer.end()
  })
})
server.keepAliveTimeout = 60_000
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address() as AddressInfo
  console.log(JSON.stringify({ level: 'info', msg: 'listening', port }))
})
process.on('SIGTERM', () => process.exit(0))
