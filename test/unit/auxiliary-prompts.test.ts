import { toRunRequest } from '../../src/auxiliary/prompts.ts'
import type { RouteFacts } from '../../src/models/index.ts'
import type { MessagePart } from '../../src/protocol/messages.ts'

const text = (value: string): MessagePart[] => [{ type: 'text', text: value }]

const factsOf = (change: Partial<RouteFacts['modelConfig']>): Pick<RouteFacts, 'modelConfig'> => ({
  modelConfig: {
    model: 'fake-1',
    maxOutputTokens: null,
    options: {},
    ...change,
  } as RouteFacts['modelConfig'],
})

const request = (
  asked: MessagePart[],
  answered: MessagePart[],
  change: Partial<RouteFacts['modelConfig']> = {},
) => toRunRequest('title', { asked, answered }, factsOf(change))

const shown = (...material: [MessagePart[], MessagePart[]]): unknown =>
  request(...material).messages[0]?.parts

describe('what a model is asked for a title', () => {
  test('is one call without tools, about what was asked and answered', () => {
    expect(request(text('Why?'), [{ type: 'reasoning', text: 'hm' }, ...text('Because.')])).toMatchObject({
      model: 'fake-1',
      tools: [],
      messages: [{ role: 'user', parts: text('<user>\nWhy?\n</user>\n<assistant>\nBecause.\n</assistant>') }],
    })
  })

  test('leaves out the answer that is not there yet, and says where there is no text', () => {
    expect(shown(text('Why?'), [])).toEqual(text('<user>\nWhy?\n</user>'))
    expect(shown([{ type: 'image', fileId: 'f', mediaType: 'image/png' }], [])).toEqual(
      text('<user>\n(no text)\n</user>'),
    )
  })

  test('shows 3,000 characters of each message, and no half one', () => {
    const [part] = shown(text(`${'x'.repeat(2999)}🚆`), text('y'.repeat(3001))) as { text: string }[]
    expect(part?.text).toBe(
      `<user>\n${'x'.repeat(2999)}\uFFFD […]\n</user>\n<assistant>\n${'y'.repeat(3000)} […]\n</assistant>`,
    )
  })

  test.each([
    [undefined, null, 2048],
    ['none', 'none', 64],
    ['minimal', 'minimal', 2048],
    ['high', 'low', 2048],
  ] as const)('with an effort of %s asks for %s and leaves room for %i tokens', (given, asked, room) => {
    const options = given === undefined ? {} : { reasoningEffort: given }
    const made = request(text('Why?'), [], { options })
    expect([made.reasoningEffort, made.maxOutputTokens]).toEqual([asked, room])
    expect(request(text('Why?'), [], { options, maxOutputTokens: 50 }).maxOutputTokens).toBe(50)
  })
})
