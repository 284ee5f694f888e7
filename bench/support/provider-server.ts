/**
 * A provider that answers at once: OpenAI's Responses streaming over real HTTP, always the same answer, one write per
 * event. It costs as little as a server can, so that what is measured is the program in front of it.
 * Source: https://platform.openai.com/docs/api-reference/responses-streaming
 */
import http from 'node:http'
import type { AddressInfo } from 'node:net'

const PARTS = Number(process.env.BENCH_PARTS ?? 20)
const WORDS =
  'the mill turns slowly while water carries every small grain along its long and patient way'.split(' ')

const item = { id: 'msg_bench', type: 'message', role: 'assistant' }
const place = { item_id: item.id, output_index: 0, content_index: 0 }
const deltas = Array.from({ length: PARTS }, (_, index) => `${WORDS[index % WORDS.length]} `)
const whole = { type: 'output_text', text: deltas.join(''), annotations: [] }
const response = { id: 'resp_bench', object: 'response', created_at: 1_700_000_000, model: 'bench-1' }
const usage = {
  input_tokens: 12,
  input_tokens_details: { cached_tokens: 0 },
  output_tokens: PARTS,
  output_tokens_details: { reasoning_tokens: 0 },
  total_tokens: 12 + PARTS,
}

const EVENTS = [
  { type: 'response.created', response: { ...response, status: 'in_progress', output: [] } },
  { type: 'response.in_progress', response: { ...response, status: 'in_progress', output: [] } },
  {
    type: 'response.output_item.added',
    output_index: 0,
    item: { ...item, status: 'in_progress', content: [] },
  },
  { type: 'response.content_part.added', ...place, part: { ...whole, text: '' } },
  ...deltas.map((delta) => ({ type: 'response.output_text.delta', ...place, delta })),
  { type: 'response.output_text.done', ...place, text: whole.text },
  { type: 'response.content_part.done', ...place, part: whole },
  {
    type: 'response.output_item.done',
    output_index: 0,
    item: { ...item, status: 'completed', content: [whole] },
  },
  {
    type: 'response.completed',
    response: {
      ...response,
      status: 'completed',
      output: [{ ...item, status: 'completed', content: [whole] }],
      usage,
    },
  },
].map((event, index) =>
  Buffer.from(`event: ${event.type}\ndata: ${JSON.stringify({ ...event, sequence_number: index })}\n\n`),
)

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
