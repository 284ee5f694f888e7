import { gzipSync } from 'node:zlib'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { guardBody, MAX_ANSWER_BYTES } from '../../src/models/index.ts'
import { Secret } from '../../src/protocol/secret.ts'
import { CENTRAL_KEY, startTurnmill, type Turnmill } from '../support/turnmill.ts'

const WIRE_FORMATS = ['openai-responses', 'openai-chat', 'anthropic-messages'] as const

/** Everything a person could read of a turn, and all that the queue keeps of its job. */
async function everythingStored(turnmill: Turnmill): Promise<string> {
  const { prisma, pool } = turnmill.services.db
  const rows = await Promise.all([
    prisma.turn.findMany({}),
    prisma.chat.findMany({}),
    prisma.message.findMany({}),
  ])
  const jobs = await pool.query<{ row: unknown }>('select to_jsonb(j) as row from bullmq.job j')
  return JSON.stringify([rows, jobs.rows], (_, value: unknown) =>
    typeof value === 'bigint' ? String(value) : value,
  )
}

describe.each(['true', 'false'])(
  'a provider that repeats the credential, with gateway routing %s',
  (routing) => {
    test.each(WIRE_FORMATS)('in %s gives it to nobody', async (wireFormat) => {
      let logged = ''
      const turnmill = await startTurnmill({
        wireFormat,
        environment: { TURNMILL_CHAT_AI_GATEWAY_ROUTING_ENABLED: routing, TURNMILL_RETRY_ATTEMPTS: '2' },
        onLog: (line) => (logged += line),
      })
      try {
        const { client } = await turnmill.addUser()
        const message = `Incorrect key provided: ${CENTRAL_KEY}.`
        turnmill.upstream.script((request) =>
          request.number === 1
            ? { type: 'status', status: 401, error: { message } }
            : { type: 'answer', ending: 'error', error: { message } },
        )
        for (const content of ['refused', 'broken off']) {
          const { chat, turn } = await client.create(content)
          const watch = client.watch(chat.id)
          await watch.until((event) => event.type === 'status' && event.status === 'failed')
          watch.close()
          expect(JSON.stringify([watch.events, await client.ended(chat.id, turn.id)])).not.toContain(
            CENTRAL_KEY,
          )
        }
        expect(await everythingStored(turnmill)).not.toContain(CENTRAL_KEY)
        expect(logged).not.toContain(CENTRAL_KEY)
      } finally {
        await turnmill.stop()
      }
    })
  },
)

describe('a guarded body', () => {
  const secret = new Secret('abcabd-secret')
  const guarded = async (chunks: string[]): Promise<string> => {
    const body = guardBody(ReadableStream.from(chunks.map((chunk) => Buffer.from(chunk))), secret)
    return new Response(body).text()
  }

  test('loses the credential wherever chunks are cut', async () => {
    const text = 'x abcabcabd-secret y abcabd-secretabcabd-secret z abcab'
    const expected = 'x abc<redacted> y <redacted><redacted> z abcab'
    for (let size = 1; size <= text.length; size++) {
      const chunks = Array.from({ length: Math.ceil(text.length / size) }, (_, index) =>
        text.slice(index * size, (index + 1) * size),
      )
      await expect(guarded(chunks)).resolves.toBe(expected)
    }
  })

  test('breaks off beyond its limit', async () => {
    const chunk = 'y'.repeat(1024 * 1024)
    const tooMany = Array.from({ length: MAX_ANSWER_BYTES / chunk.length + 1 }, () => chunk)
    await expect(guarded(tooMany)).rejects.toMatchObject({ code: 'provider_rejected' })
  })
})

describe('a provider that sends a bomb', () => {
  let server: Server
  afterEach(() => server.close())

  test('fails its turn, and the worker lives', async () => {
    const bomb = gzipSync(Buffer.alloc(200 * 1024 * 1024, 120))
    server = createServer((_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream', 'content-encoding': 'gzip' }).end(bomb)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const turnmill = await startTurnmill()
    try {
      const { client } = await turnmill.addUser()
      const baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`
      await turnmill.admin.client.request('PATCH', `/v1/providers/${turnmill.provider.id}`, { baseUrl })
      const { chat, turn } = await client.create('boom')
      await expect(client.ended(chat.id, turn.id)).resolves.toMatchObject({
        state: 'failed',
        error: { code: 'provider_rejected' },
      })
    } finally {
      await turnmill.stop()
    }
  })
})

test('an answer that Postgres cannot take fails its turn once, instead of running it again', async () => {
  const turnmill = await startTurnmill({ reconcile: true })
  try {
    const { client } = await turnmill.addUser()
    turnmill.upstream.script({ type: 'answer', usage: { input: 9e15, output: 9e15 } })
    const { chat, turn } = await client.create('expensive')
    const ended = await client.ended(chat.id, turn.id)
    expect(['completed', 'failed']).toContain(ended.state)
    expect(turnmill.upstream.requests).toHaveLength(1)
  } finally {
    await turnmill.stop()
  }
})

test('a key that is deleted while its turn runs stops the call', async () => {
  const turnmill = await startTurnmill()
  try {
    const { client, apiKeyId, userId } = await turnmill.addUser()
    const reader = await turnmill.addKey(userId)
    turnmill.upstream.script({ type: 'silence', after: 'headers' })
    const { chat, turn } = await client.create('hi')
    const request = await turnmill.upstream.waitForRequest(1)
    await turnmill.services.db.prisma.apiKey.delete({ where: { id: apiKeyId } })
    await expect(request.closed).resolves.toMatchObject({ early: true })
    await expect(reader.client.ended(chat.id, turn.id)).resolves.toMatchObject({
      state: 'failed',
      error: { code: 'missing_key' },
    })
  } finally {
    await turnmill.stop()
  }
})

test('a message of a whole megabyte can be watched', async () => {
  const turnmill = await startTurnmill()
  try {
    const { client } = await turnmill.addUser()
    const long = 'é'.repeat(400_000)
    turnmill.upstream.script({ type: 'answer', text: 'ok' })
    const { chat } = await client.create(long)
    await client.settled(chat.id)
    const watch = client.watch(chat.id)
    const events = await watch.until((event) => event.type === 'queue')
    watch.close()
    expect(events.filter(({ event }) => event.type === 'message')).toHaveLength(2)
  } finally {
    await turnmill.stop()
  }
})
