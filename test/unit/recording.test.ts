import { recordingFetch, type RecordedRequest, type RecordedResponse } from '../../src/models/recording.ts'
import { Secret } from '../../src/protocol/secret.ts'

const SECRET = 'a-credential-0123456789'
const URL = 'https://provider.example/v1/messages?key=secret'

/** A fetch that answers what it is told, and a recorder that keeps what it is told. */
function scene(answer: (init?: RequestInit) => Promise<Response>) {
  const begun: RecordedRequest[] = []
  const ended: RecordedResponse[] = []
  const errors: unknown[] = []
  const fetch = recordingFetch((_input, init) => answer(init), [new Secret(SECRET)], {
    begin: (request) => {
      begun.push(request)
      return (response) => void ended.push(response)
    },
    onError: (error) => errors.push(error),
  })
  return { fetch, begun, ended, errors }
}

/** A body whose chunks are pulled one at a time, each counted. */
function pulledBody(chunks: readonly string[], fail?: Error) {
  const seen = { pulled: 0, cancelled: undefined as unknown }
  const body = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        const chunk = chunks[seen.pulled++]
        if (chunk !== undefined) controller.enqueue(Buffer.from(chunk))
        else if (fail === undefined) controller.close()
        else controller.error(fail)
      },
      cancel: (reason) => {
        seen.cancelled = reason
      },
    },
    { highWaterMark: 0 },
  )
  return { body, seen }
}

const post = { method: 'POST', body: `{"model":"m","token":"t","said":"${SECRET}"}` }

describe('a recorded call', () => {
  test('is told with what was sent and what came, without secrets', async () => {
    const { fetch, begun, ended } = scene(async () =>
      new Response(`you sent ${SECRET}`, {
        status: 400,
        headers: { 'x-request-id': `r ${SECRET}`, 'set-cookie': 'c=1', 'content-type': 'text/plain' },
      }),
    ) // prettier-ignore
    const headers = {
      authorization: `Bearer ${SECRET}`,
      'x-api-key': SECRET,
      'content-type': 'application/json',
    }
    const response = await fetch(URL, { ...post, headers })
    expect(await response.text()).toBe(`you sent ${SECRET}`)
    expect(begun).toEqual([
      {
        method: 'POST',
        path: '/v1/messages',
        headers: { 'content-type': 'application/json' },
        body: { model: 'm', token: '<redacted>', said: '<redacted>' },
      },
    ])
    expect(ended).toEqual([
      {
        status: 400,
        headers: { 'content-type': 'text/plain', 'x-request-id': 'r <redacted>' },
        body: 'you sent <redacted>',
        ending: 'complete',
      },
    ])
  })

  test('is passed on unchanged, chunk by chunk, and no faster than it is read', async () => {
    const { body, seen } = pulledBody(['one ', 'two ', 'three'])
    const { fetch, ended } = scene(async () => new Response(body, { status: 201, headers: { 'x-any': 'y' } }))
    const response = await fetch(URL, post)
    expect([response.status, response.headers.get('x-any'), seen.pulled]).toEqual([201, 'y', 0])
    const reader = response.body!.getReader()
    expect(Buffer.from((await reader.read()).value).toString()).toBe('one ')
    expect([seen.pulled, ended.length]).toEqual([1, 0])
    await reader.read()
    await reader.read()
    expect((await reader.read()).done).toBe(true)
    expect(ended).toMatchObject([{ body: 'one two three', ending: 'complete' }])
  })

  test('fails with what it failed with', async () => {
    const failure = new TypeError(`no connection for ${SECRET}`)
    const { fetch, ended } = scene(() => Promise.reject(failure))
    await expect(fetch(URL, post)).rejects.toBe(failure)
    expect(ended).toMatchObject([{ status: null, ending: 'broken', error: 'no connection for <redacted>' }])
  })

  test('breaks off with what it broke off with, and keeps what there was', async () => {
    const failure = new Error('reset')
    const { body } = pulledBody(['one'], failure)
    const { fetch, ended } = scene(async () => new Response(body))
    const response = await fetch(URL, post)
    await expect(response.text()).rejects.toBe(failure)
    expect(ended).toMatchObject([{ status: 200, body: 'one', ending: 'broken', error: 'reset' }])
  })

  test('is cancelled where its reader cancels', async () => {
    const { body, seen } = pulledBody(['one', 'two'])
    const { fetch, ended } = scene(async () => new Response(body))
    const reader = (await fetch(URL, post)).body!.getReader()
    await reader.read()
    await reader.cancel('enough')
    expect(seen).toEqual({ pulled: 1, cancelled: 'enough' })
    expect(ended).toMatchObject([{ body: 'one', ending: 'left' }])
  })

  test('without a body is complete at once', async () => {
    const { fetch, ended } = scene(async () => new Response(null, { status: 204 }))
    await fetch(URL)
    expect(ended).toMatchObject([{ status: 204, body: '', ending: 'complete' }])
  })

  test('goes on where nothing can be recorded', async () => {
    const errors: unknown[] = []
    const refuse = (): never => {
      throw new Error('no')
    }
    const recorders = [{ begin: refuse }, { begin: () => refuse }]
    for (const recorder of recorders) {
      const fetch = recordingFetch(async () => new Response('hi'), [], {
        ...recorder,
        onError: (error) => errors.push(error),
      })
      await expect(fetch(URL, post).then((response) => response.text())).resolves.toBe('hi')
    }
    expect(errors).toHaveLength(2)
  })
})
