/**
 * A provider that does what the last message of a conversation tells it, and keeps a journal of when it did what. A
 * message is `<behaviour>: <tag>`; the tag names the call in the journal.
 *
 * `GET /journal` gives what happened so far and from now on, a line of JSON each. `POST /release/<tag>` ends an answer
 * that is held.
 */
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { json } from 'node:stream/consumers'
import { answerEvents, OPENING_EVENTS } from './answer-events.ts'
import { nowMs } from './clock.ts'
import type { JournalEntry, JournalEvent } from './provider-journal.ts'

const PARTS = Number(process.env.BENCH_PARTS ?? 20)
/** How long a `slow` answer takes. */
const ANSWER_MS = Number(process.env.BENCH_ANSWER_MS ?? 50)
/** Which wait a `busy` answer asks for. */
const RETRY_AFTER_S = Number(process.env.BENCH_RETRY_AFTER_S ?? 5)

const EVENTS = answerEvents(PARTS)
/** What is sent of an answer before it is held: the first five words. */
const HELD_EVENTS = OPENING_EVENTS + 5

interface Call {
  tag: string
  answer: ServerResponse
}

const BEHAVIOURS = new Map<string, (call: Call) => void>([
  ['quick', finish],
  ['slow', (call) => void setTimeout(() => finish(call), ANSWER_MS)],
  ['silent', () => undefined],
  ['hold', hold],
  ['busy', refuse],
])

const held = new Map<string, Call>()
const entries: JournalEntry[] = []
const readers = new Set<ServerResponse>()

function note(tag: string, event: JournalEvent, at = nowMs()): void {
  const entry: JournalEntry = { tag, event, at }
  entries.push(entry)
  for (const reader of readers) reader.write(toLine(entry))
}

const toLine = (entry: JournalEntry): string => `${JSON.stringify(entry)}\n`

async function takeCall(request: IncomingMessage, answer: ServerResponse): Promise<void> {
  const receivedAt = nowMs()
  const [behaviour, tag] = lastMessage(await json(request)).split(': ', 2)
  const behave = BEHAVIOURS.get(behaviour ?? '')
  if (behave === undefined || tag === undefined) {
    answer.writeHead(400).end()
    return
  }
  note(tag, 'received', receivedAt)
  answer.once('close', () => {
    held.delete(tag)
    if (!answer.writableFinished) note(tag, 'closed')
  })
  behave({ tag, answer })
}

function lastMessage(body: unknown): string {
  const { input } = body as { input: { role?: string; content?: unknown }[] }
  return String(input.findLast(({ role }) => role === 'user')?.content)
}

function hold(call: Call): void {
  begin(call)
  for (const event of EVENTS.slice(0, HELD_EVENTS)) call.answer.write(event)
  held.set(call.tag, call)
  note(call.tag, 'held')
}

function finish(call: Call): void {
  begin(call)
  for (const event of EVENTS) call.answer.write(event)
  end(call)
}

function release(tag: string): void {
  const call = held.get(tag)
  if (call === undefined) return
  for (const event of EVENTS.slice(HELD_EVENTS)) call.answer.write(event)
  end(call)
}

const begin = ({ answer }: Call): void => void answer.writeHead(200, { 'content-type': 'text/event-stream' })

function end({ tag, answer }: Call): void {
  answer.end()
  note(tag, 'answered')
}

function refuse({ tag, answer }: Call): void {
  answer.writeHead(503, { 'content-type': 'application/json', 'retry-after': String(RETRY_AFTER_S) })
  answer.end(JSON.stringify({ error: { message: 'busy', type: 'server_error' } }))
  note(tag, 'refused')
}

function readJournal(answer: ServerResponse): void {
  answer.writeHead(200, { 'content-type': 'application/x-ndjson' })
  answer.write(entries.map(toLine).join(''))
  readers.add(answer)
  answer.once('close', () => readers.delete(answer))
}

const server = http.createServer((request, answer) => {
  const { method, url = '' } = request
  const [, tag] = /^\/release\/(.+)$/.exec(url) ?? []
  if (method === 'POST' && url === '/v1/responses') {
    // Whoever goes away while it still sends its request has told us nothing.
    takeCall(request, answer).catch(() => answer.destroy())
  } else if (method === 'GET' && url === '/journal') readJournal(answer)
  else if (method === 'POST' && tag !== undefined) {
    release(decodeURIComponent(tag))
    answer.writeHead(200).end('{}')
  } else answer.writeHead(404).end()
})
server.keepAliveTimeout = 60_000
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address() as AddressInfo
  console.log(JSON.stringify({ level: 'info', msg: 'listening', port }))
})
process.on('SIGTERM', () => process.exit(0))
