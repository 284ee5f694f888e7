import { relayBody } from '../../src/gateway/relay.ts'
import { createBodyGuard, MAX_ANSWER_BYTES } from '../../src/models/index.ts'
import { Secret } from '../../src/protocol/secret.ts'

const CREDENTIAL = 'sk-relay-credential-0001'

/** A source that gives these chunks, and a journal of what became of them. */
function relayChunks(chunks: readonly (string | Uint8Array)[], secret = new Secret(CREDENTIAL)) {
  const ends: (string | null)[] = []
  const seen: string[] = []
  let cancelled = false
  const left = [...chunks]
  const source = new ReadableStream<Uint8Array>({
    pull: (controller) => {
      const next = left.shift()
      if (next === undefined) controller.close()
      else controller.enqueue(typeof next === 'string' ? Buffer.from(next) : next)
    },
    cancel: () => void (cancelled = true),
  })
  const body = relayBody(source, new AbortController().signal, {
    guard: createBodyGuard([secret]),
    onChunk: (chunk) => void seen.push(Buffer.from(chunk).toString()),
    onEnd: (errorCode) => void ends.push(errorCode),
  })
  return { body: body as ReadableStream<Uint8Array<ArrayBuffer>>, ends, seen, isCancelled: () => cancelled }
}

describe('the relay', () => {
  test('passes on nothing of the credential, and tells its reader of what passes alone', async () => {
    const { body, ends, seen } = relayChunks(['a ', 'sk-relay-', 'credential-0001', ' b sk-re'])
    expect(await new Response(body).text()).toBe('a <redacted> b sk-re')
    expect(seen.join('')).toBe('a <redacted> b sk-re')
    expect(ends).toEqual([null])
  })

  test('reads on where a chunk is held back whole', async () => {
    const { body, seen } = relayChunks(['sk-', 'relay-', 'other'])
    expect(await new Response(body).text()).toBe('sk-relay-other')
    expect(seen).toEqual(['sk-relay-other'])
  })

  test('finds a credential that begins as it goes on', async () => {
    const { body } = relayChunks(['aaaaaaaaaaaaaa', 'aab.'], new Secret('aaaaaaaaaaaaab'))
    expect(await new Response(body).text()).toBe('aaa<redacted>.')
  })

  test('closes the source of an answer that is too long', async () => {
    const chunk = new Uint8Array(MAX_ANSWER_BYTES / 4)
    const { body, ends, isCancelled } = relayChunks(Array.from({ length: 6 }, () => chunk))
    await expect(new Response(body).arrayBuffer()).rejects.toMatchObject({ code: 'provider_rejected' })
    expect(ends).toEqual(['provider_rejected'])
    expect(isCancelled()).toBe(true)
  })
})
