import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { setImmediate as turn } from 'node:timers/promises'
import { relayStream, relayWhole, type Relay } from '../../src/gateway/relay.ts'
import { createBodyGuard, MAX_ANSWER_BYTES } from '../../src/models/index.ts'
import { Secret } from '../../src/protocol/secret.ts'

const CREDENTIAL = 'sk-relay-credential-0001'

/** A source that gives these chunks, and a journal of what became of them. */
function relayChunks(chunks: readonly (string | Uint8Array)[], secret = new Secret(CREDENTIAL)) {
  const ends: (string | null)[] = []
  const seen: string[] = []
  const source = Readable.from(chunks.map((chunk) => Buffer.from(chunk)))
  const relay = {
    guard: createBodyGuard([secret]),
    hide: null,
    onChunk: (chunk: Uint8Array) => void seen.push(Buffer.from(chunk).toString()),
    onEnd: (errorCode: string | null) => void ends.push(errorCode),
  }
  return { source, relay, ends, seen }
}

const WAYS = [
  ['as it comes', async (source: Readable, relay: Relay) => buffer(relayStream(source, relay))],
  ['whole', async (source: Readable, relay: Relay) => Buffer.from(await relayWhole(source, relay))],
] as const

describe.each(WAYS)('an answer that is passed on %s', (_, pass) => {
  test('loses the credential, and its reader is told of what passes alone', async () => {
    const { source, relay, ends, seen } = relayChunks(['a ', 'sk-relay-', 'credential-0001', ' b sk-re'])
    expect((await pass(source, relay)).toString()).toBe('a <redacted> b sk-re')
    expect(seen.join('')).toBe('a <redacted> b sk-re')
    expect(ends).toEqual([null])
  })

  test('goes on where a chunk is held back whole', async () => {
    const { source, relay, seen } = relayChunks(['sk-', 'relay-', 'other'])
    expect((await pass(source, relay)).toString()).toBe('sk-relay-other')
    expect(seen).toEqual(['sk-relay-other'])
  })

  test('loses a credential that begins as it goes on', async () => {
    const { source, relay } = relayChunks(['aaaaaaaaaaaaaa', 'aab.'], new Secret('aaaaaaaaaaaaab'))
    expect((await pass(source, relay)).toString()).toBe('aaa<redacted>.')
  })

  test('is broken off where it is too long', async () => {
    const chunk = new Uint8Array(MAX_ANSWER_BYTES / 4)
    const { source, relay, ends } = relayChunks(Array.from({ length: 6 }, () => chunk))
    await expect(pass(source, relay)).rejects.toMatchObject({ code: 'provider_rejected' })
    await turn()
    expect(ends).toEqual(['provider_rejected'])
    expect(source.destroyed).toBe(true)
  })

  test('ends as what its source broke with', async () => {
    const { source, relay, ends } = relayChunks(['one'])
    const passing = pass(source, relay)
    source.destroy(new Error('cut'))
    await expect(passing).rejects.toThrow('cut')
    await turn()
    expect(ends).toEqual(['provider_unreachable'])
  })
})

/** As a writer of JSON may write it that escapes every character of this kind. */
const escaped = (text: string, characters: RegExp, upper = false): string =>
  text.replace(characters, (character) => {
    const code = character.charCodeAt(0).toString(16).padStart(4, '0')
    return `\\u${upper ? code.toUpperCase() : code}`
  })

describe('a credential', () => {
  const KEY = 'sk-a/b+c<d>e&f"g\\h=unique'
  test.each([
    ['as it is', KEY],
    ['by JSON.stringify', JSON.stringify(KEY).slice(1, -1)],
    ['by PHP', JSON.stringify(KEY).slice(1, -1).replaceAll('/', '\\/')],
    ['by Go', escaped(JSON.stringify(KEY).slice(1, -1), /[<>&]/g)],
    ['by PHP and Go at once', escaped(JSON.stringify(KEY).slice(1, -1), /[<>&]/g).replaceAll('/', '\\/')],
    ['by .NET', escaped(KEY, /[+<>&"\\]/g, true)],
    ['in codes alone', escaped(KEY, /[^]/g)],
  ])('is taken out %s, wherever borders fall', (_, written) => {
    const text = `{"a":"\\\\x ${written}\\n","sk":"sk-a"}`
    const expected = `{"a":"\\\\x <redacted>\\n","sk":"sk-a"}`
    for (let border = 0; border <= text.length; border++) {
      const guard = createBodyGuard([new Secret(KEY), new Secret('another-key-0001')])
      const pieces = [text.slice(0, border), text.slice(border)].map((piece) =>
        guard.pass(Buffer.from(piece)),
      )
      expect(Buffer.concat([...pieces, guard.rest()]).toString()).toBe(expected)
    }
  })

  test('is taken out where another one is its beginning', () => {
    for (const text of ['key-of-a-mill', 'key-of-a-mill-0001', 'key-of-a-mill-000']) {
      const guard = createBodyGuard([new Secret('key-of-a-mill'), new Secret('key-of-a-mill-0001')])
      const passed = Buffer.concat([guard.pass(Buffer.from(text)), guard.rest()]).toString()
      expect(passed).toBe(text.endsWith('-000') ? '<redacted>-000' : '<redacted>')
    }
  })
})

test('a reader that lets go of a stream closes its source, though it says nothing', async () => {
  const { relay, ends } = relayChunks([])
  const source = new Readable({ read: () => undefined })
  const passing = relayStream(source, relay)
  passing.destroy()
  await turn()
  expect(source.destroyed).toBe(true)
  expect(ends).toEqual(['client_closed'])
})
