import type { ChatEvent } from '../../src/streams/index.ts'
import type { ChatView, MessageView, QueuedMessageView, TurnView } from '../../src/protocol/views.ts'

/** An answer of the API, its body parsed. */
export interface Answer<T> {
  status: number
  headers: Headers
  body: T
}

export interface Started {
  message: MessageView
  turn: TurnView
}

export interface WatchedEvent {
  id: string
  event: ChatEvent
}

/** A client of the HTTP API with one key. */
export interface TestClient {
  /**
   * @param body sent as JSON, and bytes as they are.
   * @param extra more headers, such as `idempotency-key`.
   */
  request<T>(method: string, path: string, body?: unknown, extra?: Record<string, string>): Promise<Answer<T>>
  create(content: string): Promise<Started & { chat: ChatView }>
  send(chatId: string, content: string): Promise<Started | { queuedMessage: QueuedMessageView }>
  edit(chatId: string, messageId: string, content: string): Promise<Started>
  messages(chatId: string): Promise<MessageView[]>
  turns(chatId: string): Promise<TurnView[]>
  /** @param after the id of the last event that was seen, as a browser sends it when it comes back. */
  watch(chatId: string, after?: string): Watch
  /** Resolves once the turn has ended, with its row. */
  ended(chatId: string, turnId: string): Promise<TurnView>
  /** Resolves once the chat has no active turn and nothing queued. */
  settled(chatId: string): Promise<ChatView>
}

/** One watcher's event stream. */
export interface Watch extends AsyncIterable<WatchedEvent> {
  /** Everything that came so far. */
  events: WatchedEvent[]
  /** The id to come back with, as a browser keeps it; '' before the first event. */
  lastId(): string
  /** Resolves when the other side has ended the stream. */
  end(): Promise<void>
  until(matches: (event: ChatEvent) => boolean): Promise<WatchedEvent[]>
  close(): void
}

export function createClient(address: string, token: string): TestClient {
  const headers = { authorization: `Bearer ${token}` }

  async function request<T>(
    method: string,
    path: string,
    body?: unknown,
    extra: Record<string, string> = {},
  ): Promise<Answer<T>> {
    const response = await fetch(address + path, {
      method,
      headers: { ...headers, ...contentTypeOf(body), ...extra },
      ...(body === undefined
        ? {}
        : { body: Buffer.isBuffer(body) ? new Uint8Array(body) : JSON.stringify(body) }),
    })
    const text = await response.text()
    return {
      status: response.status,
      headers: response.headers,
      body: (text === '' ? null : JSON.parse(text)) as T,
    }
  }

  async function demand<T>(expected: number, method: string, path: string, body?: unknown): Promise<T> {
    const answer = await request<T>(method, path, body)
    if (answer.status !== expected)
      throw new Error(
        `${method} ${path} answered ${answer.status}, expected ${expected}: ${JSON.stringify(answer.body)}`,
      )
    return answer.body
  }

  const watch = (chatId: string, after?: string): Watch =>
    openWatch(`${address}/v1/chats/${chatId}/stream`, {
      ...headers,
      ...(after === undefined ? {} : { 'last-event-id': after }),
    })
  const turns = async (chatId: string) =>
    (await demand<{ items: TurnView[] }>(200, 'GET', `/v1/chats/${chatId}/turns`)).items

  async function ended(chatId: string, turnId: string): Promise<TurnView> {
    for await (const _ of onEachChange(watch(chatId))) {
      const turn = (await turns(chatId)).find(({ id }) => id === turnId)
      if (turn !== undefined && turn.finishedAt !== null) return turn
    }
    throw new Error(`the stream of chat ${chatId} ended before turn ${turnId} did`)
  }

  async function settled(chatId: string): Promise<ChatView> {
    for await (const _ of onEachChange(watch(chatId))) {
      const chat = await demand<ChatView>(200, 'GET', `/v1/chats/${chatId}`)
      if (chat.activeTurnId === null) return chat
    }
    throw new Error(`the stream of chat ${chatId} ended before the chat settled`)
  }

  return {
    request,
    create: (content) => demand(201, 'POST', '/v1/chats', { content }),
    send: (chatId, content) => demand(202, 'POST', `/v1/chats/${chatId}/messages`, { content }),
    edit: (chatId, messageId, content) =>
      demand(202, 'PATCH', `/v1/chats/${chatId}/messages/${messageId}`, { content }),
    messages: async (chatId) =>
      (await demand<{ items: MessageView[] }>(200, 'GET', `/v1/chats/${chatId}/messages?limit=200`)).items,
    turns,
    watch,
    ended,
    settled,
  }
}

function contentTypeOf(body: unknown): Record<string, string> {
  if (body === undefined) return {}
  return { 'content-type': Buffer.isBuffer(body) ? 'application/octet-stream' : 'application/json' }
}

/** Once at the start, and then whenever the committed state may have changed. */
async function* onEachChange(watch: Watch): AsyncGenerator<void> {
  try {
    for await (const { event } of watch) if (event.type !== 'part') yield
  } finally {
    watch.close()
  }
}

function openWatch(url: string, headers: Record<string, string>): Watch {
  const abort = new AbortController()
  const events: WatchedEvent[] = []
  let lastId = ''
  const source = readEvents(url, headers, abort.signal)
  async function* iterate(): AsyncGenerator<WatchedEvent> {
    for await (const { id, event } of source) {
      lastId = id
      if (event === null) continue
      events.push({ id, event })
      yield { id, event }
    }
  }
  const iterator = iterate()
  return {
    events,
    lastId: () => lastId,
    end: async () => {
      for await (const _ of iterator);
    },
    [Symbol.asyncIterator]: () => iterator,
    until: async (matches) => {
      for (;;) {
        const next = await iterator.next()
        if (next.done === true) throw new Error(`the stream ended, after ${JSON.stringify(events.slice(-5))}`)
        if (matches(next.value.event)) return events
      }
    },
    close: () => abort.abort(),
  }
}

/** Reads server-sent events; ends quietly when aborted. */
async function* readEvents(
  url: string,
  headers: Record<string, string>,
  signal: AbortSignal,
): AsyncGenerator<Block> {
  try {
    const response = await fetch(url, { headers, signal })
    if (!response.ok || response.body === null)
      throw new Error(`GET ${url} answered ${response.status}: ${await response.text()}`)
    let text = ''
    for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
      const blocks = (text + chunk).split('\n\n')
      text = blocks.pop() ?? ''
      for (const block of blocks) {
        const parsed = parseBlock(block)
        if (parsed !== null) yield parsed
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error
  }
}

/** What stands between two empty lines; without an event it only moves the cursor. */
interface Block {
  id: string
  event: ChatEvent | null
}

function parseBlock(block: string): Block | null {
  const fields = new Map(
    block.split('\n').map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 2)]),
  )
  const [id, type] = [fields.get('id'), fields.get('event')]
  if (id === undefined) return null
  if (type === undefined) return { id, event: null }
  const data = JSON.parse(fields.get('data') ?? '{}') as object
  return { id, event: { type, ...data } as ChatEvent }
}
