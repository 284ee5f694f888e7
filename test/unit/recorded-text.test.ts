import {
  BODY_LIMIT,
  BODY_MARGIN,
  createRedact,
  toRecordedJson,
  toRecordedText,
} from '../../src/models/recorded-text.ts'
import { Secret } from '../../src/protocol/secret.ts'
import { dataUrl, imageBytes } from '../support/images.ts'

const SECRET = 'quoted"and\\slashed-0123456789'
const redact = createRedact([new Secret(SECRET)])

describe('what is recorded', () => {
  test.each([
    ['the credential of the call', `you sent ${SECRET}`, 'you sent <redacted>'],
    ['the same within JSON', JSON.stringify({ error: SECRET }), '{"error":"<redacted>"}'],
    ['a token of ours', `tm_${'0'.repeat(32)}_${'A'.repeat(43)}`, '<redacted>'],
    ['a key by its form', 'key sk-0123456789abcdef', 'key <redacted>'],
    ['a bearer token', 'Authorization: Bearer abcdefgh12345', 'Authorization: Bearer <redacted>'],
    ['a field by its name', '{"api_key": "s1", "a": 1}', '{"api_key": "<redacted>", "a": 1}'],
    ['one in camel case', '{"clientSecret":"s\\"1","x":2}', '{"clientSecret":"<redacted>","x":2}'],
    ['a number', '{"password":1234}', '{"password":"<redacted>"}'],
    ['a list', '{"cookies":["a","b"],"x":1}', '{"cookies":"<redacted>","x":1}'],
    ['arguments of a call', '{"arguments":"{\\"token\\":\\"s1\\",\\"q\\":1}"}', '{"arguments":"{\\"token\\":\\"<redacted>\\",\\"q\\":1}"}'], // prettier-ignore
    ['a value that was cut off', 'x {"access_token":"abc', 'x {"access_token":"<redacted>"'],
  ])('is without %s', (_, text, expected) => {
    expect(redact(text)).toBe(expected)
  })

  test.each([
    '{"max_tokens":100,"usage":{"input_tokens":3,"total_tokens":4}}',
    '{"properties":{"password":{"type":"string"}},"required":["token"]}',
    'nothing secret: /v1/chat/completions, 2026-01-01T00:00:00Z',
  ])('keeps %s', (text) => {
    expect(redact(text)).toBe(text)
  })

  test('says of images and files how large they are', () => {
    const bytes = imageBytes('image/png', 3000)
    const base64 = bytes.toString('base64')
    expect(redact(JSON.stringify({ url: dataUrl(bytes), data: base64, short: 'aGk=' }))).toBe(
      '{"url":"<image/png, 3000 bytes>","data":"<base64, 3000 bytes>","short":"aGk="}',
    )
  })

  test('is JSON where it is, and text where it is not', () => {
    expect(toRecordedJson('{"a":[1,"\\u0000"],"token":"t"}', redact)).toEqual({
      a: [1, '\ufffd'],
      token: '<redacted>',
    })
    expect(toRecordedJson('{"a":', redact)).toBe('{"a":')
    expect(toRecordedJson('['.repeat(500) + ']'.repeat(500), redact)).toBe('['.repeat(500) + ']'.repeat(500))
  })

  test('is cut', () => {
    const words = 'word '.repeat(BODY_LIMIT)
    expect(toRecordedText(words, redact)).toBe(`${words.slice(0, BODY_LIMIT)}… <cut>`)
    expect(toRecordedJson(JSON.stringify([words]), redact)).toHaveLength(BODY_LIMIT + '… <cut>'.length)
    expect(toRecordedText(words.slice(0, BODY_LIMIT), redact)).toHaveLength(BODY_LIMIT)
  })

  test('holds no half of a secret where it was cut', () => {
    const read = 'word '.repeat((BODY_LIMIT + BODY_MARGIN) / 5).slice(0, -10) + SECRET.slice(0, 20)
    expect(toRecordedText(read, redact, true)).not.toContain(SECRET.slice(0, 6))
  })

  test('is found quickly in a large text of any kind', () => {
    const started = process.cpuUsage()
    for (const piece of [`${'a'.repeat(500)} `, '"a', '\\"', '://', 'Bearer ', '{"', 'sk-', '=', '"token":"'])
      redact(piece.repeat(1_000_000 / piece.length))
    expect(process.cpuUsage(started).user / 1000).toBeLessThan(5000)
  })
})
