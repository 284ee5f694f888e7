import { canCompact, compactHistory, contextTokens, findKept, isTooLong } from '../../src/agent/compaction.ts'
import type { Compaction, ContextMessage } from '../../src/chats/index.ts'
import type { BuiltRoute } from '../../src/models/index.ts'
import { textOf, type MessagePart, type MessageRole } from '../../src/protocol/messages.ts'
import { NO_USAGE } from '../../src/protocol/usage.ts'
import type { ModelRequest } from '../../src/providers/contract.ts'
import { testClaim } from '../support/claims.ts'

let count = 0
const message = (
  role: MessageRole,
  content: string | MessagePart[],
  fields: Partial<ContextMessage> = {},
): ContextMessage => ({
  id: String(++count),
  turnId: null,
  role,
  parts: typeof content === 'string' ? [{ type: 'text', text: content }] : content,
  isSummary: false,
  usage: null,
  ...fields,
})
const summary = (content: string): ContextMessage => message('system', content, { isSummary: true, usage: { ...NO_USAGE, inputTokens: 9000 } }) // prettier-ignore

describe('the length of a context', () => {
  test('is what the last answer reported, and what has come since', () => {
    const usage = {
      ...NO_USAGE,
      inputTokens: 100,
      cacheReadTokens: 20,
      cacheWriteTokens: 3,
      outputTokens: 7,
    }
    const messages = [
      message('user', 'x'.repeat(400)),
      message('assistant', 'y', { usage }),
      message('user', 'z'.repeat(40)),
    ]
    expect(contextTokens(messages)).toBe(140)
  })

  test('is never less than what its characters are, whatever is reported', () => {
    const messages = [
      message('user', 'x'.repeat(4000)),
      message('assistant', [{ type: 'reasoning', text: 'not sent again' }, { type: 'text', text: 'y'.repeat(400) }], { usage: NO_USAGE }), // prettier-ignore
    ]
    expect(contextTokens(messages)).toBe(1100)
  })

  test('is estimated where nothing is reported, and a summary’s own usage is none', () => {
    expect(contextTokens([])).toBe(0)
    expect(contextTokens([summary('s'.repeat(40)), message('user', 'u'.repeat(3))])).toBe(11)
  })
})

describe('a context is too long', () => {
  const sized = (contextWindow: number | null, compactionThreshold: number | null = null) => ({
    contextWindow,
    compactionThreshold,
  })
  type Sized = ReturnType<typeof sized>
  test.each<[string, [number, Sized, Sized | null], boolean]>([
    ['at 70 % of the window', [70, sized(100), null], true],
    ['not below', [69, sized(100), null], false],
    ['at what the model config says', [50, sized(100, 50), null], true],
    ['at the smaller window of the two', [35, sized(100), sized(50)], true],
    ['never where no window is known', [1e9, sized(null), sized(null)], false],
    ['by the one that is known', [70, sized(null), sized(100)], true],
  ])('%s', (_, asked, expected) => {
    expect(isTooLong(...asked)).toBe(expected)
  })
})

describe('what stays word for word (H1)', () => {
  const asked = message('user', 'asked')
  const claim = testClaim({ userMessageId: asked.id })

  test('is what nobody has answered, and what the user of this turn said', () => {
    const trailing = message('user', 'trailing')
    const messages = [message('user', 'old'), message('assistant', 'a'), asked, message('assistant', 'b'), message('tool', []), trailing] // prettier-ignore
    expect(findKept(claim, messages)).toEqual([asked, trailing])
    expect(findKept(testClaim(), messages)).toEqual([trailing])
    expect(findKept(testClaim(), [])).toEqual([])
  })

  test('is nothing to be summed up, nor is a summary', () => {
    expect(canCompact(claim, [])).toBe(false)
    expect(canCompact(claim, [summary('s'), asked])).toBe(false)
    expect(canCompact(claim, [summary('s'), asked, message('assistant', 'a')])).toBe(true)
  })
})

describe('a summary', () => {
  const builtFor = (contextWindow: number | null, maxOutputTokens: number | null = null) =>
    ({
      route: {},
      facts: { modelConfig: { id: 'config-1', model: 'fake', contextWindow, maxOutputTokens, prices: {} } },
    }) as BuiltRoute

  async function compact(messages: readonly ContextMessage[], built: BuiltRoute) {
    const requests: ModelRequest[] = []
    const written: Compaction[] = []
    const outcome = await compactHistory(
      { claim: testClaim(), step: 3, number: 1, before: null },
      {
        loadContext: async () => [...messages],
        buildRouteFor: async () => built,
        compact: async (_, compaction) => {
          written.push(compaction)
          return 'committed'
        },
        async *callModel(_, request) {
          requests.push(request)
          yield { type: 'text-start', id: 't' }
          yield { type: 'text-delta', id: 't', text: ' It was so. ' }
          yield { type: 'text-end', id: 't' }
          yield { type: 'finish', reason: 'stop', usage: NO_USAGE }
        },
        deadlines: { firstPartMs: 1000, reasoningFirstPartMs: 1000, silenceMs: 1000, attemptMs: 1000 },
      },
      new AbortController().signal,
    )
    return { outcome, written, asked: textOf(requests[0]?.messages[0]?.parts ?? []), request: requests[0] }
  }

  test('stands after the last committed step, and names what stays', async () => {
    const kept = message('user', 'trailing')
    const { outcome, written, asked } = await compact([message('user', 'old'), message('assistant', 'a'), kept], builtFor(null)) // prettier-ignore
    expect(outcome).toEqual({ type: 'compacted' })
    expect(written).toMatchObject([
      {
        step: 2,
        keep: [kept.id],
        parts: [{ type: 'text', text: 'Summary of the conversation so far:\n\nIt was so.' }],
      },
    ])
    expect(asked).toContain('user: old\nassistant: a')
    expect(asked).not.toContain('trailing')
  })

  test('is asked for with calls, results and images as text, and without reasoning', async () => {
    const { asked } = await compact(
      [
        message('assistant', [
          { type: 'reasoning', text: 'secretly' },
          { type: 'tool-call', toolCallId: 'c', toolName: 'dig', input: { deep: true } },
        ]),
        message('tool', [
          { type: 'tool-result', toolCallId: 'c', toolName: 'dig', output: 'gold', isError: false },
        ]),
        message('user', [{ type: 'image', fileId: 'f', mediaType: 'image/png' }]),
        message('assistant', 'nice'),
      ],
      builtFor(null),
    )
    expect(asked).toContain('[calls dig with {"deep":true}]')
    expect(asked).toContain('[dig answered: "gold"]')
    expect(asked).toContain('[an image]')
    expect(asked).not.toContain('secretly')
  })

  test('is asked for within three quarters of the window: the first, and the end', async () => {
    const window = 2000
    const messages = Array.from({ length: 100 }, (_, index) => message('assistant', `m${index}. ${'x'.repeat(500)}`)) // prettier-ignore
    const { asked, request } = await compact(messages, builtFor(window, 64_000))
    expect(asked.length).toBeLessThan(window * 0.75 * 4 + 100)
    expect(asked).toContain('m0.')
    expect(asked).toContain('m99.')
    expect(asked).toMatch(/\[\d+ messages are left out\]/)
    expect(request).toMatchObject({ tools: [], maxOutputTokens: 400 })
  })

  test('is asked for with the last message also where that is longer than the room', async () => {
    const parts = Array.from({ length: 20 }, (_, index): MessagePart => ({ type: 'text', text: `p${index} ${'y'.repeat(3000)}` })) // prettier-ignore
    const { asked } = await compact([message('user', 'first'), message('assistant', parts)], builtFor(2000))
    expect(asked.length).toBeLessThan(6100)
    expect(asked).toContain('user: first')
    expect(asked).toContain('p19')
  })

  test('is asked for without half a character', async () => {
    const { asked } = await compact([message('assistant', '😀'.repeat(9001)), message('assistant', `x${'😀'.repeat(9001)}`)], builtFor(null)) // prettier-ignore
    expect(asked.isWellFormed()).toBe(true)
  })
})
