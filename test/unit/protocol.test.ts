import { createAnswer } from '../../src/agent/answer.ts'
import { hashTokenSecret, newTokenSecret, formatToken, parseToken, sameHash } from '../../src/keys/token.ts'
import { createEncryption } from '../../src/models/index.ts'
import { newId } from '../../src/protocol/ids.ts'
import { maskSecret, Secret } from '../../src/protocol/secret.ts'
import { costMicros, NO_USAGE } from '../../src/protocol/usage.ts'
import { readJob } from '../../src/queue/index.ts'
import { formatEventId } from '../../src/streams/index.ts'
import { afterStep } from '../../src/streams/cursor.ts'
import { scrubLine } from '../../src/telemetry/logger.ts'

describe('cost', () => {
  const prices = {
    inputMicros: 3_000_000,
    outputMicros: 15_000_000,
    cacheReadMicros: 300_000,
    cacheWriteMicros: null,
  }
  test.each([
    [{ inputTokens: 1000, outputTokens: 100 }, 4500],
    [{ inputTokens: 1 }, 3],
    [{ cacheReadTokens: 1 }, 1],
    [{ cacheReadTokens: 1000, inputTokens: 0 }, 300],
    [{ cacheWriteTokens: 10 }, 30],
    [{}, 0],
  ])('of %j is %d micro-dollars', (usage, expected) => {
    expect(costMicros({ ...NO_USAGE, ...usage }, prices)).toBe(expected)
  })
  test('is unknown where a price it needs is', () => {
    expect(costMicros({ ...NO_USAGE, outputTokens: 1 }, { ...prices, outputMicros: null })).toBeNull()
    expect(
      costMicros(NO_USAGE, {
        inputMicros: null,
        outputMicros: null,
        cacheReadMicros: null,
        cacheWriteMicros: null,
      }),
    ).toBeNull()
  })
})

describe('an API key token', () => {
  test('parses back into its halves, whatever the secret holds', () => {
    for (let count = 0; count < 200; count++) {
      const token = { id: newId(), secret: newTokenSecret() }
      expect(parseToken(formatToken(token).reveal())).toEqual(token)
    }
  })
  test.each([
    '',
    'tm__',
    `tm_${'0'.repeat(32)}`,
    `tm_${'0'.repeat(32)}_short`,
    `TM_${'0'.repeat(32)}_${'a'.repeat(43)}`,
    `tm_${'0'.repeat(32)}_${'a'.repeat(44)}`,
    `x tm_${'0'.repeat(32)}_${'a'.repeat(43)}`,
  ])('%j is none', (text) => {
    expect(parseToken(text)).toBeNull()
  })
  test('is compared by its keyed hash', () => {
    const pepper = new Secret('pepper')
    const hash = hashTokenSecret(pepper, 'secret')
    expect(hash).toHaveLength(32)
    expect(sameHash(hash, hashTokenSecret(pepper, 'secret'))).toBe(true)
    expect(sameHash(hash, hashTokenSecret(new Secret('other'), 'secret'))).toBe(false)
    expect(sameHash(hash, hash.subarray(1))).toBe(false)
  })
})

describe('encryption', () => {
  const key = (fill: number): string => Buffer.alloc(32, fill).toString('base64')
  const place = { table: 'provider_keys', column: 'encrypted', rowId: 'row-1' } as const
  test('gives back what went in, under any of its keys, and only at its place', () => {
    const old = createEncryption(new Secret(`old:${key(1)}`)).encrypt(place, new Secret('plain'))
    const both = createEncryption(new Secret(`new:${key(2)},old:${key(1)}`))
    expect(both.decrypt(place, old).reveal()).toBe('plain')
    const current = both.encrypt(place, new Secret('plain'))
    expect(current).toMatch(/^new\./)
    expect(both.encrypt(place, new Secret('plain'))).not.toBe(current)
    expect(() => both.decrypt({ ...place, rowId: 'row-2' }, current)).toThrow()
    expect(() => both.decrypt({ ...place, table: 'user_provider_keys' }, current)).toThrow()
    expect(() => createEncryption(new Secret(`new:${key(3)}`)).decrypt(place, current)).toThrow()
  })
  test('tells of what does not decrypt, whose text is for anybody', () => {
    const told: unknown[] = []
    const encrypted = createEncryption(new Secret(`new:${key(2)}`)).encrypt(place, new Secret('plain'))
    const other = createEncryption(new Secret(`other:${key(2)}`), (unreadable) => told.push(unreadable))
    const refused = { code: 'secret_unreadable', message: expect.not.stringContaining('TURNMILL') as string }
    expect(() => other.decrypt(place, encrypted)).toThrow(expect.objectContaining(refused) as Error)
    expect(told).toMatchObject([
      { place, keyId: 'new', error: { message: expect.stringContaining('key "new"') } },
    ])
  })
  test.each(['', 'k1', 'k1:short', `k1:${Buffer.alloc(31).toString('base64')}`])(
    'refuses the key %j without repeating it',
    (keys) => {
      expect(() => createEncryption(new Secret(keys))).toThrow(/TURNMILL_ENCRYPTION_KEYS/)
    },
  )
})

test('a secret is shown by its ends, a short one not at all', () => {
  expect(maskSecret('sk-proj-abcdefgh1234')).toBe('sk-…1234')
  expect(maskSecret('short')).toBe('…')
})

describe('a job payload', () => {
  const turnId = newId()
  const chatId = newId()
  test('of version 1 is compared by its chat and key', () => {
    const apiKeyId = newId()
    expect(readJob({ version: 1, turnId, chatId, apiKeyId })).toEqual({
      turnId,
      compare: { chatId, apiKeyId },
    })
    expect(readJob({ version: 1, turnId, chatId, apiKeyId: null })).toEqual({
      turnId,
      compare: { chatId, apiKeyId: null },
    })
    expect(readJob({ version: 1, turnId, chatId })).toEqual({ turnId, compare: { chatId, apiKeyId: null } })
  })
  test('of another version is read for its turn alone', () => {
    expect(readJob({ version: 2, turnId, chatId: 'x' })).toEqual({ turnId, compare: null })
    expect(readJob({ turnId })).toEqual({ turnId, compare: null })
  })
  test.each([null, undefined, 1, 'text', [], {}, { turnId: 'x' }, { turnId: { $gt: '' } }])(
    '%j names no turn',
    (data) => {
      expect(readJob(data)).toBeNull()
    },
  )
})

test('an event id holds the version and the position', () => {
  expect(formatEventId(7, { turn: 1, step: 2, epoch: 3, attempt: 4, seq: 5 })).toBe('7.1.2.3.4.5')
  expect(formatEventId(7, afterStep(1, 2))).toBe('7.1.2.~.~.~')
})

test('an answer is put together block by block, without the empty ones', () => {
  const answer = createAnswer()
  answer.add({ type: 'reasoning-start', id: 'r' })
  answer.add({ type: 'text-start', id: 'a' })
  answer.add({ type: 'reasoning-delta', id: 'r', text: 'hm' })
  answer.add({ type: 'text-delta', id: 'a', text: 'Hel' })
  answer.add({ type: 'text-start', id: 'b' })
  answer.add({ type: 'text-delta', id: 'a', text: 'lo' })
  answer.add({ type: 'reasoning-end', id: 'r', providerData: { signature: 's' } })
  answer.add({ type: 'text-end', id: 'a' })
  expect(answer.parts()).toEqual([
    { type: 'reasoning', text: 'hm', providerData: { signature: 's' } },
    { type: 'text', text: 'Hello' },
  ])
})

test('a log line loses what looks like a credential', () => {
  const line = `{"a":"tm_${'0'.repeat(32)}_${'s'.repeat(43)}","b":"sk-proj-12345678","c":"Bearer abcdefgh1234","d":"postgres://user:hunter22@host/db"}`
  expect(scrubLine(line)).toBe(
    '{"a":"<redacted>","b":"<redacted>","c":"Bearer <redacted>","d":"postgres://user:<redacted>@host/db"}',
  )
})
