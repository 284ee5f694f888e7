/**
 * The answer of a provider in OpenAI's Chat Completions, always the same words.
 * Source: https://platform.openai.com/docs/api-reference/chat
 */

const WORDS =
  'the mill turns slowly while water carries every small grain along its long and patient way'.split(' ')

const answer = { id: 'chatcmpl-bench', created: 1_700_000_000, model: 'bench-1' }

const wordsOf = (parts: number): string[] =>
  Array.from({ length: parts }, (_, index) => `${WORDS[index % WORDS.length]} `)

const usageOf = (parts: number) => ({
  prompt_tokens: 12,
  completion_tokens: parts,
  total_tokens: 12 + parts,
})

/** In one piece. @param parts how many words, and tokens, it has. */
export function wholeAnswer(parts: number): Buffer {
  const message = { role: 'assistant', content: wordsOf(parts).join(''), refusal: null }
  const choice = { index: 0, message, logprobs: null, finish_reason: 'stop' }
  return Buffer.from(
    JSON.stringify({ ...answer, object: 'chat.completion', choices: [choice], usage: usageOf(parts) }),
  )
}

/** Streamed: an event per word, then how it ended, what it used, and the end. */
export function streamedAnswer(parts: number): Buffer[] {
  const toChoice = (delta: object, reason: string | null) => [
    { index: 0, delta, logprobs: null, finish_reason: reason },
  ]
  const chunks = [
    ...wordsOf(parts).map((content) => ({ choices: toChoice({ role: 'assistant', content }, null) })),
    { choices: toChoice({}, 'stop') },
    { choices: [], usage: usageOf(parts) },
  ]
  const lines = chunks.map((chunk) =>
    JSON.stringify({ ...answer, object: 'chat.completion.chunk', usage: null, ...chunk }),
  )
  return [...lines, '[DONE]'].map((line) => Buffer.from(`data: ${line}\n\n`))
}
