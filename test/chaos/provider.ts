/** The storm's provider, a process of its own: slow, often wrong, and with a journal at `GET /journal`. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { RENDERERS, type AnswerFrames, type FormatRenderer } from '../support/fake-upstream-formats.ts'
import { answerParts, planOf, tokensOf, type JournalEntry, type Plan } from './provider-plan.ts'

const seed = Number(process.env['STORM_SEED'])
const journal: JournalEntry[] = []
const attempts = new Map<string, number>()

const STATUS: Partial<Record<Plan['kind'], number>> = {
  'too-many-requests': 429,
  unavailable: 503,
  'server-error': 500,
  rejected: 400,
}

async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.url === '/journal') return void response.end(JSON.stringify(journal))
  const renderer = Object.values(RENDERERS).find(({ path }) => path === request.url)
  if (renderer === undefined) return void response.writeHead(404).end()
  const body = await readBody(request)
  if (body === null) return
  const asked = renderer.lastUserText(body)
  const entry = open(request, asked)
  const plan = planOf(seed, asked, entry.attempt)
  entry.plan = plan.kind
  response.once('close', () => {
    entry.endedAt = Date.now()
    entry.closedEarly = !response.writableFinished && !entry.complete
  })
  await sleep(plan.firstDelayMs)
  if (response.destroyed) return
  const status = STATUS[plan.kind]
  if (status !== undefined) refuse(response, renderer, plan, status)
  else await stream(response, renderer, plan, { entry, model: String(body['model']) })
}

async function readBody(request: IncomingMessage): Promise<Record<string, unknown> | null> {
  const chunks: Buffer[] = []
  try {
    for await (const chunk of request) chunks.push(chunk as Buffer)
    return JSON.parse(Buffer.concat(chunks).toString()) as Record<string, unknown>
  } catch {
    return null // The caller was killed before it had said everything.
  }
}

function open({ headers }: IncomingMessage, asked: string): JournalEntry {
  const header = (name: string): string | null => {
    const value = headers[name]
    return typeof value === 'string' ? value : null
  }
  const turnId = header('x-turnmill-turn-id')
  const attempt = (attempts.get(turnId ?? '') ?? 0) + 1
  attempts.set(turnId ?? '', attempt)
  const entry: JournalEntry = {
    number: journal.length + 1,
    turnId,
    keyId: header('x-turnmill-key-id'),
    asked,
    attempt,
    plan: 'answer',
    startedAt: Date.now(),
    endedAt: null,
    closedEarly: false,
    complete: false,
    openedAt: null,
    reported: null,
  }
  journal.push(entry)
  return entry
}

function refuse(response: ServerResponse, renderer: FormatRenderer, plan: Plan, status: number): void {
  const error = { type: 'storm', code: null, message: 'not now' }
  response.writeHead(status, {
    'content-type': 'application/json',
    ...(plan.retryAfter !== null && { 'retry-after': String(plan.retryAfter) }),
  })
  response.end(JSON.stringify(renderer.errorBody(error)))
}

async function stream(
  response: ServerResponse,
  renderer: FormatRenderer,
  plan: Plan,
  { entry, model }: { entry: JournalEntry; model: string },
): Promise<void> {
  const tokens = tokensOf(seed, entry.number)
  const usage = { ...tokens, cacheRead: 0, cacheWrite: 0, reasoning: 0 }
  const chunks = answerParts(entry.number)
  const frames = renderer.render({ model, reasoning: [], chunks, finish: 'stop', usage, toolCall: null })
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  response.write(frames.opening)
  entry.openedAt = Date.now()
  // Anthropic's format tells the input at once, and one token of output.
  if (renderer.path === '/v1/messages') entry.reported = { inputTokens: tokens.input, outputTokens: 1 }
  const whole = await writeParts(response, frames, plan)
  if (whole) {
    entry.complete = true
    entry.reported = { inputTokens: tokens.input, outputTokens: tokens.output }
    response.end(frames.ending)
  } else if (plan.kind === 'no-ending') response.end()
  else if (plan.kind === 'cut') response.write(frames.ending.slice(0, 20), () => response.destroy())
}

/** False where the plan or the caller broke it off. */
async function writeParts(response: ServerResponse, { deltas }: AnswerFrames, plan: Plan): Promise<boolean> {
  for (const [part, delta] of deltas.entries()) {
    if (plan.kind !== 'answer' && part === plan.stopAt) return false
    if (plan.partDelayMs > 0) await sleep(plan.partDelayMs)
    if (response.destroyed) return false
    response.write(delta)
  }
  return true
}

const server = createServer((request, response) => void serve(request, response))
server.keepAliveTimeout = 60_000
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address() as AddressInfo
  process.stdout.write(`${JSON.stringify({ level: 'info', msg: 'listening', port })}\n`)
})
process.on('SIGTERM', () => process.exit(0))
