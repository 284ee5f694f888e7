import { once } from 'node:events'
import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { openDatabase, query, statement, type Database } from '../../src/db/index.ts'

const SILENCE_MS = 100

/** Takes connections, and says on each what `serve` says. */
async function startServer(serve: (socket: net.Socket) => void) {
  const sockets = new Set<net.Socket>()
  let taken = 0
  const server = net.createServer((socket) => {
    taken++
    socket.on('error', () => undefined)
    sockets.add(socket)
    serve(socket)
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as net.AddressInfo
  return {
    url: `postgres://nobody@127.0.0.1:${port}/nothing`,
    taken: () => taken,
    stop: () => {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

type Server = Awaited<ReturnType<typeof startServer>>

const openOn = ({ url }: { url: string }) =>
  openDatabase({
    url,
    poolSize: 10,
    connectTimeoutMs: 1000,
    silenceMs: SILENCE_MS,
    applicationName: 'watchdog-test',
  })

const silently = (): void => undefined

/** With a pool on a server that takes connections, and ends with both. */
async function onServer(
  serve: Parameters<typeof startServer>[0],
  work: (db: Database, server: Server) => Promise<void>,
): Promise<void> {
  const server = await startServer(serve)
  const db = openOn(server)
  try {
    await work(db, server)
  } finally {
    server.stop()
    await db.close()
  }
}

const ask = statement('watchdog-test', 'select 1')

/** Calls that come back at once are made again at once, as those of a process under load are. */
test('while Postgres is silent nobody but the watchdog knocks: a server that comes back finds no crowd', () =>
  onServer(silently, async (db, server) => {
    await expect(query(db, ask())).rejects.toThrow('Postgres cannot be reached')
    const before = server.taken()
    let refused = 0
    const startedAt = performance.now()
    const lane = async (): Promise<void> => {
      while (refused < 100) {
        await expect(query(db, ask())).rejects.toMatchObject({ code: 'database_unavailable' })
        refused++
        await sleep(1)
      }
    }
    await Promise.all(Array.from({ length: 10 }, lane))
    // The watchdog's own, one after the other.
    expect(server.taken() - before).toBeLessThanOrEqual(1 + (performance.now() - startedAt) / SILENCE_MS)
  }))

/** As the loop of a worker of BullMQ does with waiting jobs; it once kept timers, signals and the watchdog itself waiting for ever. */
test('while Postgres is silent, whoever tries again at once leaves the process its timers', () =>
  onServer(silently, async (db) => {
    await expect(query(db, ask())).rejects.toThrow('Postgres cannot be reached')
    const late = AbortSignal.timeout(300)
    let tries = 0
    while (!late.aborted && tries < 2000) {
      tries++
      await expect(query(db, ask())).rejects.toMatchObject({ code: 'database_unavailable' })
    }
    expect(late.aborted).toBe(true)
    expect(tries).toBeLessThan(100)
  }))

/** The messages of one session, without their payload: https://www.postgresql.org/docs/current/protocol-message-formats.html */
const AUTHENTICATION_OK = Buffer.from('R\0\0\0\x08\0\0\0\0', 'latin1')
const READY_FOR_QUERY = Buffer.from('Z\0\0\0\x05I', 'latin1')
/** `A`, a notification of process 0 on the channel ''. */
const NOTIFICATION = Buffer.from('A\0\0\0\x0a\0\0\0\0\0\0', 'latin1')

/** Greets as Postgres does; whether a session says anything after that is for `isTalking` to say, at any time. */
const greet = (socket: net.Socket, isTalking: () => boolean): void => {
  socket.write(Buffer.concat([AUTHENTICATION_OK, READY_FOR_QUERY]))
  const talk = setInterval(() => isTalking() && socket.write(NOTIFICATION), SILENCE_MS / 4)
  socket.once('close', () => clearInterval(talk))
}

/** The connections of the pool, with whether each has been cut. */
async function connect(db: Database) {
  const client = await db.pool.connect()
  const ended = { is: false }
  const cut = new Promise<void>((resolve) => client.once('end', resolve)).then(() => void (ended.is = true))
  return { ended, cut, release: () => client.release(true) }
}

/** As on a machine that is busy: the session of the watchdog gets no time, and others do. */
test('a Postgres that says anything on any connection is not cut off', async () => {
  let isTalking = true
  const serve = (socket: net.Socket): void => {
    socket.once('data', (startup) => {
      if (!startup.includes('watchdog-test watchdog')) greet(socket, () => isTalking)
    })
  }
  await onServer(serve, async (db) => {
    const { ended, cut, release } = await connect(db)
    try {
      await sleep(5 * SILENCE_MS)
      expect(ended.is).toBe(false)
      isTalking = false
      await cut
    } finally {
      release()
    }
  })
})

/** As where the network has forgotten connections, without a word to either side, and lets new ones through. */
test('connections that bring nothing are cut once the one that asks got no answer, and others live', async () => {
  const isTalking: boolean[] = []
  const serve = (socket: net.Socket): void => {
    socket.once('data', (startup) => {
      if (startup.includes('watchdog-test watchdog')) return
      const number = isTalking.push(true) - 1
      greet(socket, () => isTalking[number] === true)
    })
  }
  await onServer(serve, async (db) => {
    const clients = [await connect(db), await connect(db)]
    try {
      isTalking[0] = false
      await clients[0]?.cut
      expect(clients[1]?.ended.is).toBe(false)
    } finally {
      for (const { release } of clients) release()
    }
  })
})

test('connections that have not quite ended when it stops are let go of, without an error that nobody waits for', () =>
  onServer(silently, async (db, server) => {
    const socket = db.openSocket()
    const errors: Error[] = []
    socket.on('error', (error) => errors.push(error))
    socket.connect(Number(new URL(server.url).port), '127.0.0.1')
    await once(socket, 'connect')
    const closed = once(socket, 'close')
    await db.close()
    await closed
    expect(errors).toEqual([])
  }))
