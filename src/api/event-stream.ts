import type { ServerResponse } from 'node:http'
import type { FastifyReply } from 'fastify'
import type { PlacedEvent } from '../streams/index.ts'

export interface EventStreamOptions {
  heartbeatMs: number
  /** Ends the stream from our side. */
  signal: AbortSignal
  onError(error: unknown): void
}

/** A reader that leaves more than this unread, or anything for longer, is cut: it can resume. */
const UNREAD_BYTES = 256 * 1024
const UNREAD_MS = 5000

/**
 * Answers with server-sent events until the source ends, the client goes or we stop.
 * Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
export async function sendEventStream(
  reply: FastifyReply,
  open: (signal: AbortSignal) => AsyncIterable<PlacedEvent>,
  { heartbeatMs, signal, onError }: EventStreamOptions,
): Promise<void> {
  reply.hijack()
  const response = reply.raw
  const gone = new AbortController()
  response.once('close', () => gone.abort())
  response.writeHead(200, {
    ...headersOf(reply),
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-store',
    'x-accel-buffering': 'no',
  })
  response.write(': watching\n\n')
  const heartbeat = setInterval(() => response.write(':\n\n'), heartbeatMs)
  const ended = AbortSignal.any([gone.signal, signal])
  let lastId: string | undefined
  try {
    for await (const placed of open(ended)) {
      if (!(await write(response, format(placed)))) break
      lastId = placed.id
    }
    // An API that stops sends its watchers on: to another one, from here on, and not all in the same moment.
    if (signal.aborted && lastId !== undefined) response.write(`id: ${lastId}\nretry: ${spreadMs()}\n\n`)
  } catch (error) {
    onError(error)
    response.write(
      'event: error\ndata: {"code":"internal","message":"the stream broke off; connect again"}\n\n',
    )
  } finally {
    clearInterval(heartbeat)
    response.end()
  }
}

/** When a watcher is to come back, in ms. */
const spreadMs = (): number => Math.round(100 + Math.random() * 900)

const headersOf = (reply: FastifyReply): Record<string, string> =>
  Object.fromEntries(Object.entries(reply.getHeaders()).map(([name, value]) => [name, String(value)]))

const format = ({ id, event }: PlacedEvent): string => {
  const { type, ...data } = event
  return `id: ${id}\nevent: ${type}\ndata: ${JSON.stringify(data)}\n\n`
}

/** False where the reader has stopped reading. */
async function write(response: ServerResponse, text: string): Promise<boolean> {
  if (response.destroyed) return false
  // What counts is what the reader has left unread so far: one event may be larger than that by itself.
  const behind = response.writableLength > UNREAD_BYTES
  if (!behind && response.write(text)) return true
  if (behind || !(await drained(response))) {
    response.destroy()
    return false
  }
  return true
}

function drained(response: ServerResponse): Promise<boolean> {
  return new Promise((resolve) => {
    const settle = (result: boolean) => () => {
      clearTimeout(timer)
      response.off('drain', onDrain).off('close', onClose)
      resolve(result)
    }
    const onDrain = settle(true)
    const onClose = settle(false)
    const timer = setTimeout(onClose, UNREAD_MS)
    response.once('drain', onDrain).once('close', onClose)
  })
}
