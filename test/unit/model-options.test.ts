import { clampEffort, type ModelOptions } from '../../src/models/index.ts'
import type { ReasoningEffort } from '../../src/protocol/messages.ts'

const CASES: [asked: ReasoningEffort | null, options: ModelOptions, effort: ReasoningEffort | null][] = [
  [null, {}, null],
  ['high', {}, 'high'],
  [null, { reasoningEffort: 'low' }, 'low'],
  ['high', { reasoningEffort: 'low' }, 'high'],
  ['high', { maxReasoningEffort: 'medium' }, 'medium'],
  ['medium', { maxReasoningEffort: 'medium' }, 'medium'],
  ['minimal', { maxReasoningEffort: 'medium' }, 'minimal'],
  ['none', { reasoningEffort: 'high', maxReasoningEffort: 'medium' }, 'none'],
  [null, { reasoningEffort: 'high', maxReasoningEffort: 'low' }, 'low'],
  [null, { maxReasoningEffort: 'low' }, null],
  ['low', { maxReasoningEffort: 'none' }, 'none'],
]

test.each(CASES)('an effort of %s with options %j is %s', (asked, options, effort) => {
  expect(clampEffort(asked, options)).toBe(effort)
})
