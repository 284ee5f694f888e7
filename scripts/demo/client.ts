import type { ChatEvent } from '../../src/streams/index.ts'

/** Calls one Turnmill with one API key, over plain HTTP. */
export interface Client {
  /** What the key is called in the demo. */
  name: string
  /** The key's ID, which is public. */
  keyId: string
  /** @throws {Error} naming the request and the problem, unless the answer is a 2xx. */
  call<Answer>(method: 'GET' | 'POST' | 'PATCH', path: string, body?: object): Promise<Answer>
  /** The events of a chat, from its first message to now and then as they happen. */
  watch(chatId: string): AsyncGenerator<ChatEvent, void, undefined>
}

export interface ClientOptions {
  name: string
  address: string
  /** `tm_<id>_<secret>` */
  token: string
  /** Ends every request. */
  signal: AbortSignal
}

export function createClient({ name, address, token, signal }: ClientOptions): Client {
  const request = async (method: string, path: string, body?: object): Promise<Response> => {
    const response = await fetch(address + path, {
      method,
      signal,
      headers: { authorization: `Bearer ${token}`, ...(body && { 'content-type': 'application/json' }) },
      ...(body && { body: JSON.stringify(body) }),
    })
    if (response.ok) return response
    throw new Error(`${method} ${path} answered ${response.status}, expected 2xx: ${await response.text()}`)
  }
  return {
    name,
    keyId: keyIdOf(token),
    call: async <Answer>(method: string, path: string, body?: object) =>
      (await (await request(method, path, body)).json()) as Answer,
    async *watch(chatId) {
      const response = await request('GET', `/v1/chats/${chatId}/stream`)
      if (response.body !== null) yield* readEvents(response.body)
    },
  }
}

const keyIdOf = (token: string): string =>
  (token.split('_')[1] ?? '').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')

/**
 * Server-sent events as Turnmill writes them: fields one per line, a blank line behind each event.
 * Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
async function* readEvents(body: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<ChatEvent> {
  let unread = ''
  for await (const text of body.pipeThrough(new TextDecoderStream())) {
    const blocks = (unread + text).split('\n\n')
    unread = blocks.pop() ?? ''
    for (const block of blocks) {
      const type = fieldOf(block, 'event')
      // Comments keep the connection alive and say nothing.
      if (type === null) continue
      const data = fieldOf(block, 'data') ?? '{}'
      if (type === 'error') throw new Error(`the event stream broke off: ${data}`)
      yield { type, ...(JSON.parse(data) as object) } as ChatEvent
    }
  }
}

const fieldOf = (block: string, name: string): string | null =>
  block
    .split('\n')
    .find((line) => line.startsWith(`${name}: `))
    ?.slice(name.length + 2) ?? null
