import { AnswerBlocks } from '../../src/providers/blocks.ts'
import { CallSlots } from '../../src/providers/call-slots.ts'
import { ToolCalls, type CallPiece } from '../../src/providers/tool-calls.ts'
import { countValues } from '../../src/providers/tool-input.ts'
import type { AnswerPart } from '../../src/protocol/parts.ts'
import { Secret } from '../../src/protocol/secret.ts'

const createCalls = (): ToolCalls => {
  const context = {
    wireFormat: 'openai-chat',
    model: 'm',
    provider: 'p',
    credential: new Secret('k'),
    phase: 'read',
  } as const
  return new ToolCalls(new AnswerBlocks(), context, (_name, input) => ({ input }))
}

const piece = (text: string, fields: Partial<CallPiece> = {}): CallPiece => ({ id: '', name: '', text, ...fields }) // prettier-ignore

/** What was streamed of the arguments, and what they ended as. */
const told = (parts: readonly AnswerPart[]) => ({
  streamed: parts.map((part) => (part.type === 'tool-input-delta' ? part.text : '')).join(''),
  ended: parts.flatMap((part) => (part.type === 'tool-input-end' ? [part.input] : [])),
})

/** Far more than it takes where each character is looked at once, far less than where each delta reads all again. */
const BOUND_MS = 3000

function timed<T>(work: () => T): T {
  const began = performance.now()
  const result = work()
  expect(performance.now() - began).toBeLessThan(BOUND_MS)
  return result
}

describe('the arguments of a call', () => {
  test('are streamed once, what came before the name with it', () => {
    const calls = createCalls()
    const parts = [
      ...calls.add('0', piece('{"a":')),
      ...calls.add('0', piece('"\uD83D', { name: 'x' })),
      ...calls.add('0', piece('\uDE00"}')),
      ...calls.settle('0'),
    ]
    expect(told(parts)).toEqual({ streamed: '{"a":"😀"}', ended: [{ a: '😀' }] })
    expect(parts.filter(({ type }) => type === 'tool-input-delta')).toHaveLength(2)
  })

  const LONG = 64_000

  test(`cost what their length is, in ${LONG} deltas`, () => {
    const calls = createCalls()
    const deltas = ['{"a":"', ...Array<string>(LONG).fill('wwww'), '"}']
    const parts = timed(() => [
      ...calls.add('0', piece('', { id: 't', name: 'x' })),
      ...deltas.flatMap((text) => [...calls.add('0', piece(text))]),
      ...calls.settle('0'),
    ])
    expect(told(parts)).toEqual({ streamed: deltas.join(''), ended: [{ a: 'wwww'.repeat(LONG) }] })
  })

  const OPEN = `{"a":"${'}'.repeat(900_000)}`

  test('cost no more where an ending is said again and again', () => {
    const calls = createCalls()
    const parts = timed(() => [
      ...calls.add('0', piece(OPEN, { id: 't', name: 'x' })),
      ...Array.from({ length: 10_000 }, () => [...calls.settle('0')]).flat(),
    ])
    expect(told(parts).ended).toEqual([])
  })

  test('cost no more where each piece says the name again', () => {
    const calls = createCalls()
    const slots = new CallSlots(calls)
    const add = (text: string) => {
      const more = piece(text, { name: 'x' })
      return [...calls.add(slots.keyOf(0, more), more)]
    }
    const parts = timed(() => [
      ...add(OPEN),
      ...Array.from({ length: 10_000 }, () => add('}')).flat(),
      ...add('"}'),
      ...calls.endAll('stop'),
    ])
    expect(told(parts).ended).toEqual([{ a: '}'.repeat(910_000) }])
  })

  test('cost no more where what seems to have ended is no object', () => {
    const calls = createCalls()
    const add = (text: string) => [...calls.add('0', piece(text, { name: 'x' })), ...calls.settle('0')]
    const parts = timed(() => [
      ...add(`{"a":"${'x'.repeat(900_000)}",}`),
      ...Array.from({ length: 10_000 }, () => add(' ')).flat(),
    ])
    expect(told(parts).ended).toEqual([])
  })

  /** Names that come in no order, which are the slowest to read. */
  const fields = (count: number): string => {
    const names = Array.from({ length: count }, (_, index) => ((index + 1) * 7_654_321) % 99_999_989)
    return `{${names.map((name) => `"${name.toString(36)}":0`).join(',')}}`
  }

  test('are told as too many values where they are, whatever they take to read', () => {
    const calls = createCalls()
    const text = fields(80_000)
    const parts = timed(() =>
      Array.from({ length: 8 }, (_, index) => [
        ...calls.add(String(index), piece(text, { name: 'x' })),
        ...calls.settle(String(index)),
        ...calls.endAll('tool_calls'),
      ]).flat(),
    )
    const ends = parts.filter((part) => part.type === 'tool-input-end')
    expect(ends.map(({ input }) => input === text)).toEqual(Array(8).fill(true))
    expect(new Set(ends.map(({ inputError }) => inputError))).toEqual(
      new Set([`the arguments hold more than 10000 values`]),
    )
  })

  test('are told as too many values where those of an answer are together', () => {
    const calls = createCalls()
    const parts = Array.from({ length: 8 }, (_, index) => [
      ...calls.add(String(index), piece(fields(9000), { name: 'x' })),
      ...calls.settle(String(index)),
    ]).flat()
    const ends = [...parts, ...calls.endAll('tool_calls')].filter((part) => part.type === 'tool-input-end')
    expect(ends.map(({ inputError }) => inputError)).toEqual([
      ...Array<undefined>(6).fill(undefined),
      ...Array<string>(2).fill('the calls before it hold more than 50000 values'),
    ])
  })

  test.each([
    ['{}', 2],
    ['{"a":[1,{"b":",[{"}]}', 5],
    [String.raw`["\\",["\",["]]`, 4],
    ['{"a', 2],
  ])('%s counts as %i values at most', (text, values) => {
    expect(countValues(text)).toBe(values)
  })

  test.each([
    ['{"a":{"b":[1,"}"]}}', true],
    [' {} \n', true],
    ['{"a":"\\"}', false],
    ['{"a":"\\\\"}', true],
    ['{"a":1', false],
    ['{"a":1}}', false],
    ['{"a":1} x', false],
    ['{]', false],
    ['{a}', false],
    ['[{}]', false],
    ['"}"', false],
    ['', false],
  ])('are whole or not, wherever the borders fall: %j is %p', (text, isWhole) => {
    const [together, apart] = [createCalls(), createCalls()]
    Array.from(together.add('0', piece(text, { name: 'x' })))
    for (const character of text) Array.from(apart.add('0', piece(character, { name: 'x' })))
    expect([together.isWhole('0'), apart.isWhole('0')]).toEqual([isWhole, isWhole])
  })
})
