import { hashRequest } from '../../src/api/request-hash.ts'

const hash = (method: string, url: string, body?: unknown): string =>
  hashRequest(method, url, body).toString('hex')

const body = { content: 'x', options: { a: 1, b: [{ c: null, d: '1' }] } }
const base = hash('POST', '/v1/chats', body)

describe('the hash of a request', () => {
  test.each([
    [
      'the order of keys, at any depth',
      '/v1/chats',
      { options: { b: [{ d: '1', c: null }], a: 1 }, content: 'x' },
    ],
    ['the query', '/v1/chats?x=1', body],
    [
      'how a number is spelled',
      '/v1/chats',
      JSON.parse('{"options":{"b":[{"c":null,"d":"1"}],"a":1.0},"content":"x"}'),
    ],
  ])('does not depend on %s', (_, url, same) => {
    expect(hash('POST', url, same)).toBe(base)
  })

  test('depends on method, path, every value, the order of a list, and whether there is a body', () => {
    const hashes = [
      base,
      hash('PATCH', '/v1/chats', body),
      hash('POST', '/v1/chats/1', body),
      hash('POST', '/v1/chats', { ...body, content: 'y' }),
      hash('POST', '/v1/chats', { ...body, options: { ...body.options, a: '1' } }),
      hash('POST', '/v1/chats', [1, 2]),
      hash('POST', '/v1/chats', [2, 1]),
      hash('POST', '/v1/chats', null),
      hash('POST', '/v1/chats'),
    ]
    expect(new Set(hashes).size).toBe(hashes.length)
  })

  test('of a body that nothing could write again is refused', () => {
    const deep: unknown = JSON.parse('['.repeat(200_000) + ']'.repeat(200_000))
    expect(() => hash('POST', '/v1/chats', deep)).toThrow('nested too deeply')
  })
})
