import { toOneLine } from '../../src/auxiliary/index.ts'
import { fallbackTitle } from '../../src/chats/fallback-title.ts'

describe('an answer as a title', () => {
  test.each([
    ['Train times to Prague', 'Train times to Prague'],
    ['  "Train times"  ', 'Train times'],
    ['**“Train times.”**', 'Train times'],
    ['# Train times', 'Train times'],
    ['- 1. Train times', 'Train times'],
    ['Title: Train times', 'Train times'],
    ['**Title:** Train times', 'Train times'],
    ['«Поезда в Прагу»', 'Поезда в Прагу'],
    ['「プラハ行きの列車」', 'プラハ行きの列車'],
    ['`npm ci` fails', '`npm ci` fails'],
    ['Who said "hello"', 'Who said "hello"'],
    ['And so on...', 'And so on...'],
    ['2026 in review', '2026 in review'],
    ['\n\n  \nFirst line\nsecond line', 'First line'],
    ['---\nTrain times', 'Train times'],
    ['a\tb\u0000c\u202Ed', 'a b\uFFFDc d'],
    ['lone \uD83D surrogate', 'lone \uFFFD surrogate'],
    ['👩‍👩‍👧 family', '👩‍👩‍👧 family'],
    ['🚆', '🚆'],
  ])('%j becomes %j', (answer, title) => {
    expect(toOneLine(answer, 80)).toBe(title)
  })

  test.each(['', '   ', '\n', '""', '**', '...', '- ', '“”', '\u200B'])('%j is none', (answer) => {
    expect(toOneLine(answer, 80)).toBeNull()
  })

  test('is cut at its limit, between characters', () => {
    expect(toOneLine('x'.repeat(81), 80)).toBe(`${'x'.repeat(79)}…`)
    expect(toOneLine('🚆'.repeat(81), 80)).toBe(`${'🚆'.repeat(79)}…`)
    expect(toOneLine('🚆'.repeat(80), 80)).toBe('🚆'.repeat(80))
  })

  test('a megabyte of anything takes no time', () => {
    for (const piece of ['*', '"', '# ', '1. ', 'a ', '\u200B', '_'])
      expect(Array.from(toOneLine(piece.repeat(1_000_000 / piece.length), 80) ?? '').length).toBeLessThan(81)
  }, 5000)
})

describe('a chat that nobody has named', () => {
  const text = (value: string) => [{ type: 'text' as const, text: value }]

  test.each([
    ['How does a mill turn?', 'How does a mill turn?'],
    ['  How\n\ndoes a\tmill   turn? ', 'How does a mill turn?'],
    [
      'How does a mill turn when there is no wind at all for a whole week in May?',
      'How does a mill turn when there is no wind at all for a…',
    ],
    ['x'.repeat(100), `${'x'.repeat(59)}…`],
    ['🚆'.repeat(100), `${'🚆'.repeat(59)}…`],
    ['x'.repeat(60), 'x'.repeat(60)],
  ])('%j is called %j', (message, title) => {
    expect(fallbackTitle(text(message))).toBe(title)
  })

  test('has no title where its message has no text', () => {
    expect(fallbackTitle(text(' \n'))).toBeNull()
    expect(fallbackTitle([{ type: 'image', fileId: 'f', mediaType: 'image/png' }])).toBeNull()
  })

  test('is looked at where half a character would end', () => {
    expect(fallbackTitle(text(`${' '.repeat(940)}${'🚆'.repeat(50)}`))).toBe('🚆'.repeat(30))
  })
})
