import { findBadHeaders } from '../../src/models/index.ts'

const GOOD = {
  'anthropic-beta': 'a-2025-01-01,b-2025-02-02',
  'OpenAI-Organization': 'org-1',
  'HTTP-Referer': 'https://example.com/',
  'x-title': 'Our product',
  'user-agent': 'ours/1.0',
}

test('headers of an admin’s own are taken', () => {
  expect(findBadHeaders(GOOD)).toEqual([])
})

test.each([
  'Authorization', 'proxy-authorization', 'x-api-key', 'X_API_KEY', 'api-key', 'x-goog-api-key', 'cookie', 'x-auth-token', 'helicone-auth',
  'x-client-secret', 'x-forwarded-for', 'X_Forwarded_For', 'forwarded', 'via', 'x-real-ip', 'connection', 'transfer-encoding', 'te', 'upgrade',
  'host', 'content-length', 'content-type', 'x-turnmill-key-id', 'X_Turnmill_Key_Id', 'x-turnmill-byok', 'idempotency-key', 'a b', 'a:b', 'é', '',
])('a header %j is refused, and its value is not repeated', (name) => {
  const problems = findBadHeaders({ [name]: 'value-of-it' })
  expect(problems).toHaveLength(1)
  expect(problems.join()).not.toContain('value-of-it')
}) // prettier-ignore

test.each([
  '',
  ' padded ',
  'two\r\nlines',
  'a\0b',
  'ü',
  'x'.repeat(1001),
  'Bearer abcdef',
  'sk-abcdefgh1234',
])('a value %j is refused and not repeated', (value) => {
  const problems = findBadHeaders({ 'x-title': value })
  expect(problems).toHaveLength(1)
  if (value !== '') expect(problems.join()).not.toContain(value)
})

test('a name counts once, whatever its case, and there are 20 at most', () => {
  expect(findBadHeaders({ 'x-a': '1', X_A: '1' })).toHaveLength(1)
  expect(findBadHeaders(Object.fromEntries(Array.from({ length: 21 }, (_, n) => [`x-${n}`, '1'])))).toEqual([
    'expected at most 20 headers',
  ])
})
