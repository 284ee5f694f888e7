/**
 * The answer that the bench's providers give: OpenAI's Responses streaming, always the same words.
 * Source: https://platform.openai.com/docs/api-reference/responses-streaming
 */

/** The events before the first word. */
export const OPENING_EVENTS = 4

/** @param parts how many pieces the text comes in. */
export function answerEvents(parts: number): Buffer[] {
  const deltas = Array.from({ length: parts }, (_, index) => `${WORDS[index % WORDS.length]} `)
  const whole = { type: 'output_text', text: deltas.join(''), annotations: [] }
  const events = [
    ...openingEvents(whole),
    ...deltas.map((delta) => ({ type: 'response.output_text.delta', ...place, delta })),
    { type: 'response.output_text.done', ...place, text: whole.text },
    { type: 'response.content_part.done', ...place, part: whole },
    ...closingEvents(whole, parts),
  ]
  return events.map((event, index) =>
    Buffer.from(`event: ${event.type}\ndata: ${JSON.stringify({ ...event, sequence_number: index })}\n\n`),
  )
}

const WORDS =
  'the mill turns slowly while water carries every small grain along its long and patient way'.split(' ')

const item = { id: 'msg_bench', type: 'message', role: 'assistant' }
const place = { item_id: item.id, output_index: 0, content_index: 0 }
const response = { id: 'resp_bench', object: 'response', created_at: 1_700_000_000, model: 'bench-1' }
const underWay = { ...response, status: 'in_progress', output: [] }

const openingEvents = (whole: object) => [
  { type: 'response.created', response: underWay },
  { type: 'response.in_progress', response: underWay },
  {
    type: 'response.output_item.added',
    output_index: 0,
    item: { ...item, status: 'in_progress', content: [] },
  },
  { type: 'response.content_part.added', ...place, part: { ...whole, text: '' } },
]

function closingEvents(whole: object, parts: number) {
  const done = { ...item, status: 'completed', content: [whole] }
  const completed = { ...response, status: 'completed', output: [done], usage: usageOf(parts) }
  return [
    { type: 'response.output_item.done', output_index: 0, item: done },
    { type: 'response.completed', response: completed },
  ]
}

const usageOf = (parts: number) => ({
  input_tokens: 12,
  input_tokens_details: { cached_tokens: 0 },
  output_tokens: parts,
  output_tokens_details: { reasoning_tokens: 0 },
  total_tokens: 12 + parts,
})
