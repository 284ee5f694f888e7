import { setTimeout as sleep } from 'node:timers/promises'
import type { Database } from '../../src/db/index.ts'
import { createApiKey } from '../../src/keys/index.ts'
import { Secret } from '../../src/protocol/secret.ts'
import { createClient, type TestClient } from '../support/client.ts'
import { hold } from '../support/fake-upstream.ts'
import { startProcess, type Process } from '../support/process.ts'
import {
  BACKENDS,
  startTurnmill,
  testEnvironment,
  TEST_SECRETS,
  type BackendKind,
  type Turnmill,
} from '../support/turnmill.ts'

/** For a transaction that others wait for. */
const PATIENT = { timeout: 30_000, maxWait: 30_000 }

/** Long enough for six processes that start on two cores. */
const LEASES = { TURNMILL_LEASE_MS: '3000', TURNMILL_LEASE_RENEWAL_MS: '900', TURNMILL_LOCK_MS: '1000' }

/** Two API and two worker processes on one database and one queue. */
interface Fleet {
  ground: Turnmill
  apis: Process[]
  workers: Process[]
  addresses: string[]
  stop(): Promise<(number | null)[]>
}

async function startFleet(backend: BackendKind): Promise<Fleet> {
  // The ground makes the database, the provider and the keys; it runs no worker of its own.
  const ground = await startTurnmill({ backend, workers: 0 })
  const { config } = ground
  const environment = {
    ...testEnvironment(config.databaseUrl ?? '', { backend, environment: LEASES }),
    ...(config.redisUrl === null ? {} : { TURNMILL_QUEUE_PREFIX: config.queuePrefix }),
    ...TEST_SECRETS,
  }
  const apis = [startProcess('src/main.ts', environment), startProcess('src/main.ts', environment)]
  const workers = [
    startProcess('workers/turns.ts', environment),
    startProcess('workers/turns.ts', environment),
  ]
  const listening = await Promise.all(apis.map((api) => api.said('listening')))
  await Promise.all(workers.map((worker) => worker.said('working')))
  const addresses = listening.map((line) => {
    const [address] = line['addresses'] as { port: number }[]
    return `http://127.0.0.1:${address?.port}`
  })
  const fleet: Fleet = { ground, apis, workers, addresses, stop }
  async function stop(): Promise<(number | null)[]> {
    const codes = await Promise.all([...fleet.apis, ...fleet.workers].map((one) => one.stop()))
    await ground.stop()
    return codes
  }
  return fleet
}

describe.each(BACKENDS)('two API and two worker processes on the %s backend', (backend) => {
  let fleet: Fleet
  let clients: TestClient[]
  beforeAll(async () => {
    fleet = await startFleet(backend)
    const { services } = fleet.ground
    const { userId } = await fleet.ground.addUser()
    const { token } = await createApiKey(services.db, new Secret(TEST_SECRETS.TURNMILL_API_KEY_PEPPER), {
      userId,
      name: 'fleet',
      scopes: ['chats:read', 'chats:write'],
      expiresAt: null,
    })
    clients = fleet.addresses.map((address) => createClient(address, token.reveal()))
  }, 60_000)
  afterAll(async () => {
    expect(await fleet.stop()).toEqual([0, 0, 0, 0])
  }, 60_000)
  beforeEach(() => fleet.ground.upstream.reset())

  function clientAt(index: number): TestClient {
    const client = clients[index % clients.length]
    if (client === undefined) throw new Error('the fleet has no API')
    return client
  }

  test('a turn accepted by one API is run by a worker and watched through the other', async () => {
    const [first, second] = clients as [TestClient, TestClient]
    const gate = hold()
    fleet.ground.upstream.script({ type: 'answer', chunks: ['from ', 'afar'], gate, gateAt: 1 })
    const { chat, turn } = await first.create('hi')
    const watch = second.watch(chat.id)
    await watch.until((event) => event.type === 'part' && event.part.type === 'text-delta')
    gate.release()
    await watch.until((event) => event.type === 'turn' && event.turnId === turn.id)
    watch.close()
    const answers = watch.events.flatMap(({ event }) =>
      event.type === 'message' && event.message.role === 'assistant' ? [event.message.parts] : [],
    )
    expect(answers).toEqual([[{ type: 'text', text: 'from afar' }]])
    expect(fleet.ground.upstream.requests).toHaveLength(1)
  })

  test('both workers take turns, and each turn is answered once', async () => {
    const started = await Promise.all(
      Array.from({ length: 30 }, (_, index) => clientAt(index).create(`c${index}`)),
    )
    for (const [index, { chat, turn }] of started.entries())
      await expect(clientAt(index + 1).ended(chat.id, turn.id)).resolves.toMatchObject({
        state: 'completed',
      })
    const called = new Set(
      fleet.ground.upstream.requests.map((request) => request.headers['x-turnmill-turn-id']),
    )
    expect(called).toEqual(new Set(started.map(({ turn }) => turn.id)))
    const answers = await fleet.ground.services.db.prisma.message.count({
      where: { role: 'assistant', turnId: { in: started.map(({ turn }) => turn.id) } },
    })
    expect(answers).toBe(30)
  })

  test('a worker that is killed loses its turn to the other one', async () => {
    const [client] = clients as [TestClient]
    fleet.ground.upstream.script((request) =>
      request.number === 1 ? { type: 'silence', after: 'headers' } : { type: 'answer' },
    )
    const { chat, turn } = await client.create('hi')
    await fleet.ground.upstream.waitForRequest(1)
    const worker = await Promise.race(
      fleet.workers.map(async (one) => {
        await one.said('turn claimed', { turnId: turn.id })
        return one
      }),
    )
    await worker.stop('SIGKILL')
    await expect(client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'completed', epoch: 2 })
    fleet.workers = fleet.workers.filter((one) => one !== worker)
    const environment = {
      ...testEnvironment(fleet.ground.config.databaseUrl ?? '', { backend, environment: LEASES }),
      TURNMILL_QUEUE_PREFIX: fleet.ground.config.queuePrefix,
    }
    const successor = startProcess('workers/turns.ts', environment)
    await successor.said('working')
    fleet.workers.push(successor)
  })

  test('an API that is told to stop answers what is under way, and sends its watchers on', async () => {
    const [first, second] = clients as [TestClient, TestClient]
    const gate = hold()
    fleet.ground.upstream.script({ type: 'answer', chunks: ['from ', 'afar'], gate, gateAt: 1 })
    const { chat } = await first.create('hi')
    const watch = first.watch(chat.id)
    await watch.until((event) => event.type === 'part' && event.part.type === 'text-delta')
    const { db } = fleet.ground.services
    const [api] = fleet.apis as [Process]
    let sent!: Promise<unknown>
    let left!: Promise<number | null>
    await db.prisma.$transaction(async (tx) => {
      // A send that waits while its API is told to stop.
      await tx.$queryRaw`select 1 from chats where id = ${chat.id}::uuid for update`
      sent = first.send(chat.id, 'more')
      await waitsForLock(db)
      left = api.stop()
      await watch.end()
    }, PATIENT)
    expect(await sent).toMatchObject({ queuedMessage: { chatId: chat.id } })
    expect(await left).toBe(0)
    await expect(first.request('GET', '/healthz')).rejects.toThrow('fetch failed')

    const resumed = second.watch(chat.id, watch.lastId())
    await resumed.until((event) => event.type === 'queue')
    expect(resumed.events.filter(({ event }) => event.type === 'message' || event.type === 'part')).toEqual(
      [],
    )
    gate.release()
    await resumed.until((event) => event.type === 'turn')
    expect(JSON.stringify(resumed.events)).toContain('from afar')
    resumed.close()
  })
})

/** Resolves once a statement waits for a lock that another one holds. */
async function waitsForLock(db: Database): Promise<void> {
  for (;;) {
    const waiting = await db.prisma.$queryRaw<object[]>`
      select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`
    if (waiting.length > 0) return
    await sleep(20)
  }
}
