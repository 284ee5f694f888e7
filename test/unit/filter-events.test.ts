import { eventsWithData } from '../../src/providers/filter-events.ts'

/** Passes a stream in pieces of a size. */
function pass(text: string, size: number): string {
  const filter = eventsWithData()
  const bytes = Buffer.from(text)
  const passed: Uint8Array[] = []
  for (let at = 0; at < bytes.length; at += size) passed.push(filter.pass(bytes.subarray(at, at + size)))
  return Buffer.concat([...passed, filter.rest()]).toString()
}

const EMPTY = ['event: ping\n\n', 'event: ping\ndata:\n\n', 'data: \n\n', ': comment\n\n', '\n']

describe.each([1, 2, 3, 7, 10_000])('in pieces of %i', (size) => {
  test.each(['\n', '\r\n', '\r'])('events without data are left out (%j)', (end) => {
    const [one, two] = ['event: a\ndata: {"x": "größe 😀"}\n\n', 'data: 2\ndata: 3\n\n']
    const told = (one + EMPTY.join('') + two + EMPTY.join('') + one).replaceAll('\n', end)
    expect(
      pass(told, size)
        .replaceAll(end, '\n')
        .replaceAll(/\n\n\n+/g, '\n\n'),
    ).toBe(one + two + one)
  })

  test('the first event may follow a byte order mark, the last one may lack its empty line', () => {
    expect(pass('\uFEFFdata: 1\n\ndata: 2', size)).toBe('\uFEFFdata: 1\n\ndata: 2\n\n')
  })
})

test('what ends with a chunk passes with it, as it is', () => {
  const filter = eventsWithData()
  const chunk = Buffer.from('data: 1\n\ndata: 2\n\n')
  expect(filter.pass(chunk)).toBe(chunk)
  expect(Buffer.from(filter.pass(Buffer.from('data: 3\n\ndata: '))).toString()).toBe('data: 3\n\n')
})

test('a long event in many pieces is put together once', () => {
  const filter = eventsWithData()
  for (let piece = 0; piece < 20_000; piece++) expect(filter.pass(Buffer.from('data: x\n'))).toHaveLength(0)
  expect(filter.pass(Buffer.from('\n'))).toHaveLength(20_000 * 8 + 1)
})
