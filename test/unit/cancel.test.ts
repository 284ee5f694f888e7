import { cancellable } from '../../src/providers/cancel.ts'

/** What a reader gets of an answer that is not aborted. */
async function read(body: string, contentType: string): Promise<string> {
  const answer = () => Promise.resolve(new Response(body, { headers: { 'content-type': contentType } }))
  const { signal } = new AbortController()
  const response = await cancellable(answer)('http://provider.test/', { signal })
  return response.text()
}

test('an answer that is whole passes as it is', async () => {
  const whole = JSON.stringify({ choices: [] }, null, 2)
  expect(await read(whole, 'application/json')).toBe(whole)
})

test.each(['text/event-stream', 'text/plain'])(
  'a stream of type %s loses events without data',
  async (type) => {
    expect(await read(': ping\n\nevent: ping\n\ndata: {}\n\n', type)).toBe('data: {}\n\n')
  },
)
