import { createMetricsServer } from '../../src/telemetry/metrics-server.ts'
import { findFreePort } from '../../src/db/free-port.ts'
import { TURNS_QUEUE, type TurnJob } from '../../src/queue/index.ts'
import { step, text } from '../support/chat-world.ts'
import { takeJob } from '../support/take-job.ts'
import { endLease } from '../support/leases.ts'
import { startTurnmill, type Turnmill } from '../support/turnmill.ts'

let turnmill: Turnmill
beforeAll(async () => {
  turnmill = await startTurnmill({ backend: 'redis' })
})
afterAll(() => turnmill.stop())

/** Samples by name and labels. */
async function read(url: string): Promise<Map<string, number>> {
  const response = await fetch(url)
  expect(response.headers.get('content-type')).toContain('text/plain')
  const lines = (await response.text()).split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.split(' ').at(-1))]))
}

describe('/metrics', () => {
  test('counts jobs, and turns that wait and run', async () => {
    const { client } = await turnmill.addUser()
    const { chat, turn } = await client.create('hi')
    await client.ended(chat.id, turn.id)
    const samples = await read(`${turnmill.address}/metrics`)
    expect(samples.get('turnmill_jobs_total{queue="turns",outcome="completed"}')).toBeGreaterThanOrEqual(1)
    expect(samples.get('turnmill_turns_pending')).toBe(0)
    expect(samples.get('turnmill_turns_running')).toBe(0)
    const call = 'provider="fake",model="fake-1"'
    expect(samples.get(`turnmill_gateway_calls_total{${call},outcome="ok"}`)).toBe(1)
    expect(samples.get(`turnmill_gateway_tokens_total{${call},kind="output"}`)).toBe(7)
    expect(samples.get(`turnmill_gateway_cost_micros_total{${call}}`)).toBe(26)
    expect(samples.get('turnmill_gateway_added_seconds_count{provider="fake"}')).toBe(1)
    expect(samples.has('nodejs_eventloop_lag_p99_seconds')).toBe(true)
  })

  test('counts a write that came under an old epoch, and the takeover before it', async () => {
    const idle = await startTurnmill({ workers: 0, reconcile: true })
    try {
      const { client } = await idle.addUser()
      const { chat, turn } = await client.create('hi')
      const { chats } = idle.services
      const zombie = await chats.claim({ turnId: turn.id, jobId: 'x', attemptsMade: 0, compare: null })
      if (typeof zombie === 'string') throw new Error(zombie)
      await endLease(idle, turn.id)
      const queue = idle.services.backend.queue<TurnJob>(TURNS_QUEUE)
      await takeJob(queue, `turn-${turn.id}-1`)
      await queue.close()
      idle.addWorker()
      await client.ended(chat.id, turn.id)
      await expect(chats.finish(zombie, step(1, text('late')))).rejects.toMatchObject({ code: 'turn_fenced' })
      const samples = await read(`${idle.address}/metrics`)
      expect(samples.get('turnmill_fenced_writes_total{transition="finish"}')).toBe(1)
      expect(samples.get('turnmill_takeovers_total')).toBe(1)
      expect(samples.get('turnmill_reconciled_total{what="enqueued"}')).toBeGreaterThanOrEqual(1)
      const answers = (await client.messages(chat.id)).filter(({ role }) => role === 'assistant')
      expect(answers.map(({ parts }) => parts)).toEqual([[{ type: 'text', text: 'echo: hi' }]])
    } finally {
      await idle.stop()
    }
  })

  test('of a worker process are on a port of their own', async () => {
    const port = await findFreePort()
    const server = createMetricsServer(turnmill.services.metrics, '127.0.0.1', port)
    await server.start()
    try {
      expect((await read(`http://127.0.0.1:${port}/metrics`)).has('turnmill_turns_pending')).toBe(true)
      expect(await (await fetch(`http://127.0.0.1:${port}/healthz`)).json()).toEqual({ status: 'ok' })
      expect((await fetch(`http://127.0.0.1:${port}/other`)).status).toBe(404)
    } finally {
      await server.stop()
      await server.stop()
    }
  })
})
