/** I11 what a call used: what was reported counts, what was not is estimated, and marked so. */
import type { WireFormat } from '../../src/protocol/routes.ts'
import { countTokens, UsageTally } from '../../src/providers/index.ts'

const BOUNDS = { input: 77, output: 1000 }

/** Events, and numbers of tokens that passed with the event before them. */
function tally(wireFormat: WireFormat, ...said: (Record<string, unknown> | number)[]) {
  const usage = new UsageTally(wireFormat)
  for (const one of said)
    if (typeof one === 'number') usage.pass(one)
    else usage.read(one)
  const { inputTokens, outputTokens, estimated } = usage.total(BOUNDS)
  return [inputTokens, outputTokens, estimated]
}

const begins = { type: 'message_start', message: { usage: { input_tokens: 12, output_tokens: 1 } } }
const text = { type: 'content_block_delta' }
const ends = (usage: unknown) => ({ type: 'message_delta', usage })
const chat = (usage: unknown) => ({ choices: [], usage })

test.each<[string, WireFormat, (Record<string, unknown> | number)[], unknown[]]>([
  ['is what was reported in the end', 'anthropic-messages', [begins, text, 30, ends({ output_tokens: 22 })], [12, 22, false]],
  ['is no answer that has only begun', 'anthropic-messages', [begins], [12, 1, true]],
  ['is what has passed of one that broke off', 'anthropic-messages', [begins, text, 30], [12, 30, true]],
  ['is not less than what was reported before', 'openai-responses', [{ type: 'response.in_progress', response: { usage: { output_tokens: 50 } } }, text, 30], [77, 50, true]],
  ['is bounded by the longest answer', 'openai-chat', [chat(null), 5000], [77, 1000, true]],
  ...[null, [1], { output_tokens: '22' }, { output_tokens: -2 }, { input_tokens: 12, output_tokens: '22' }].map((usage): [string, WireFormat, (Record<string, unknown> | number)[], unknown[]] =>
    [`is estimated after ${JSON.stringify(usage)}`, 'anthropic-messages', [begins, text, 30, ends(usage)], [12, 30, true]]),
  ['is estimated where its beginning is missing', 'anthropic-messages', [text, 30, ends({ output_tokens: 22 })], [77, 22, true]],
  ['is estimated where one side is no count', 'openai-chat', [chat({ prompt_tokens: Infinity, completion_tokens: 7 })], [77, 7, true]],
  ['is the highest of cumulative reports', 'openai-chat', [chat({ prompt_tokens: 9, completion_tokens: 50 }), chat({ prompt_tokens: 9, completion_tokens: 1 })], [9, 50, false]],
  ['is not what was reported before more passed', 'openai-chat', [chat({ prompt_tokens: 9, completion_tokens: 5 }), chat(null), 60], [9, 60, true]],
  ['is what was reported with the text', 'openai-chat', [chat({ prompt_tokens: 9, completion_tokens: 5 }), 60], [9, 5, false]],
  ['counts reasoning that is reported beside the output', 'openai-chat', [chat({ prompt_tokens: 12, completion_tokens: 1, total_tokens: 399, completion_tokens_details: { reasoning_tokens: 386 } })], [12, 387, false]],
  ['counts reasoning that is reported within the output once', 'openai-chat', [chat({ prompt_tokens: 12, completion_tokens: 387, total_tokens: 399, completion_tokens_details: { reasoning_tokens: 386 } })], [12, 387, false]],
  ['counts reasoning of an answer without text', 'openai-responses', [{ type: 'response.completed', response: { usage: { input_tokens: 21, output_tokens: 0, total_tokens: 81, output_tokens_details: { reasoning_tokens: 60 } } } }], [21, 60, false]],
  ['is nothing for what says nothing', 'openai-responses', [], [77, 0, true]],
])('%s: %s', (_, wireFormat, said, expected) => {
  expect(tally(wireFormat, ...said)).toEqual(expected)
}) // prettier-ignore

test('takes text that was held back until the end for what was reported', () => {
  const usage = new UsageTally('anthropic-messages')
  for (const event of [begins, ends({ output_tokens: 22 }), { type: 'message_stop' }]) usage.read(event)
  usage.passLast(5)
  expect(usage.total(BOUNDS)).toMatchObject({ outputTokens: 22, estimated: false })
})

test('counts a character beyond ASCII as a token', () => {
  expect([
    countTokens(''),
    countTokens('abcd'),
    countTokens('ab'),
    countTokens('яблуко'),
    countTokens('😀'),
  ]).toEqual([0, 1, 0.5, 6, 2])
})
