import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Job } from 'bullmq'
import Fastify from 'fastify'
import { BULL_BOARD_PATH, bullBoard } from '../../src/admin/index.ts'
import { SCOPES } from '../../src/keys/index.ts'
import { TurnmillError } from '../../src/protocol/errors.ts'
import { newId } from '../../src/protocol/ids.ts'
import {
  startTurnWorker,
  TURNS_QUEUE,
  type JobQueue,
  type QueueWorker,
  type TurnJob,
} from '../../src/queue/index.ts'
import { BACKENDS, startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

const RETRY = '/api/queues/:queueName/:jobId/retry'

/** Text and secrets that must not come out of the board, wherever somebody put them in. */
const CANARY = 'canary in the mine'

interface Route {
  method: string
  /** Below the board's own. */
  path: string
}

interface Ask {
  method?: string
  path: string
  authorization?: string
  headers?: Record<string, string>
  body?: unknown
}

interface Told {
  status: number
  headers: Headers
  text: string
}

const bearer = ({ token }: { token: string }): string => `Bearer ${token}`
const basic = ({ token }: { token: string }, name = 'anyone'): string =>
  `Basic ${Buffer.from(`${name}:${token}`).toString('base64')}`

/** Bull Board's scripts, as they are installed. */
function readBundle(): string {
  const folder = path.resolve('node_modules/@bull-board/ui/dist/static/js')
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
  return files
    .filter((file) => file.endsWith('.js'))
    .map((file) => readFileSync(path.join(folder, file), 'utf8'))
    .join('\n')
}

const codeOf = ({ text }: Told): unknown => (JSON.parse(text) as { code?: unknown }).code

test('the board is not there unless it is switched on', async () => {
  const turnmill = await startTurnmill({ workers: 0 })
  try {
    for (const path of ['', '/', '/api/queues', '/static/favicon.ico']) {
      const response = await fetch(turnmill.address + BULL_BOARD_PATH + path, {
        headers: { authorization: bearer(turnmill.admin) },
      })
      expect(response.status).toBe(404)
      expect(response.headers.get('content-type')).toContain('application/problem+json')
    }
  } finally {
    await turnmill.stop()
  }
})

describe.each(BACKENDS)('Bull Board on the %s backend', (backend) => {
  let turnmill: Turnmill
  let member: TestUser
  let queue: JobQueue<TurnJob>
  /** The job of a turn that its provider refused, with the canary in the text. */
  let failedJobId: string
  let routes: Route[]

  beforeAll(async () => {
    turnmill = await startTurnmill({
      backend,
      workers: 0,
      environment: { TURNMILL_BULL_BOARD_ENABLED: 'true' },
    })
    member = await turnmill.addUser()
    queue = turnmill.services.backend.queue<TurnJob>(TURNS_QUEUE)
    turnmill.upstream.script({ type: 'status', status: 400, error: { message: `no: ${CANARY}` } })
    const worker = turnmill.addWorker()
    const { chat, turn } = await member.client.create(`say ${CANARY}`)
    const ended = await member.client.ended(chat.id, turn.id)
    expect(ended.error?.message).toContain(CANARY)
    failedJobId = (await jobOf(turn.id)).jobId
    await worker.stop()
    routes = await readRoutes()
  })
  afterAll(async () => {
    await queue.close()
    await turnmill.stop()
  })

  const jobOf = async (turnId: string): Promise<{ jobId: string }> => {
    const { jobId } = await turnmill.services.db.prisma.turn.findUniqueOrThrow({ where: { id: turnId } })
    return { jobId: jobId ?? '' }
  }

  async function ask({ method = 'GET', path, authorization, headers, body }: Ask): Promise<Told> {
    const response = await fetch(turnmill.address + BULL_BOARD_PATH + path, {
      method,
      redirect: 'manual',
      headers: {
        ...(authorization === undefined ? {} : { authorization }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    return { status: response.status, headers: response.headers, text: await response.text() }
  }

  const askAsAdmin = (question: Ask): Promise<Told> =>
    ask({ authorization: basic(turnmill.admin), ...question })

  /** The routes that the plugin registers, so that a new one of Bull Board's cannot be forgotten here. */
  async function readRoutes(): Promise<Route[]> {
    const app = Fastify()
    const found: Route[] = []
    app.addHook('onRoute', ({ method, url }) => {
      for (const one of [method].flat()) found.push({ method: one, path: url.slice(BULL_BOARD_PATH.length) })
    })
    await app.register(bullBoard(turnmill.services.backend), { prefix: BULL_BOARD_PATH })
    await app.ready()
    // Its queue goes with it, the connection that it shares stays: all tests below use that.
    await app.close()
    return found.filter(({ method }) => method !== 'TRACE') // fetch() does not send it.
  }

  const fill = (path: string): string =>
    path
      .replace(':queueName', TURNS_QUEUE)
      .replace(':jobId', failedJobId)
      .replace(':queueStatus', 'failed')
      .replace(':schedulerId', 'any')
      .replace('/static/*', '/static/favicon.ico')
      .replace('*', 'nothing-of-this-name')

  const stateOfQueue = async (): Promise<unknown> => ({
    counts: await queue.getJobCounts(),
    paused: await queue.isPaused(),
    data: (await queue.getJob(failedJobId))?.data,
  })

  test('has the routes that the guard was made for', async () => {
    const writes = routes.filter(({ method, path }) => !['GET', 'HEAD'].includes(method) && path !== '/*')
    expect(writes.length).toBeGreaterThan(20)
    expect(writes).toContainEqual({ method: 'PUT', path: RETRY })
  })

  describe('asks for the key of an admin', () => {
    test('on every path: nobody gets in without one, nor a member', async () => {
      const wrong = turnmill.admin.token.replace(/.{43}$/, 'A'.repeat(43))
      const scopeless = await turnmill.addUser(['chats:read', 'chats:write'], 'admin')
      const roleless = await turnmill.addUser([...SCOPES], 'admin')
      await turnmill.services.db.prisma.user.update({
        where: { id: roleless.userId },
        data: { role: 'member' },
      })
      const before = await stateOfQueue()
      for (const { method, path } of routes) {
        for (const authorization of [
          undefined,
          'Basic',
          'Basic !!!',
          basic({ token: wrong }),
          bearer({ token: wrong }),
        ]) {
          const told = await ask({ method, path: fill(path), ...(authorization === undefined ? {} : { authorization }) }) // prettier-ignore
          expect({ method, path, authorization, status: told.status }).toMatchObject({ status: 401 })
          expect(told.headers.get('www-authenticate')).toBe('Basic realm="Turnmill"')
          expect(told.headers.get('x-frame-options')).toBe('DENY')
        }
        for (const user of [member, scopeless, roleless]) {
          const told = await ask({ method, path: fill(path), authorization: basic(user) })
          expect({ method, path, status: told.status }).toMatchObject({ status: 403 })
        }
      }
      expect(await stateOfQueue()).toEqual(before)
    })

    test('as a bearer token, or as the password of any user', async () => {
      for (const authorization of [bearer(turnmill.admin), basic(turnmill.admin), basic(turnmill.admin, '')])
        for (const path of ['', '/', '/queue/turns?status=failed', '/api/queues', '/static/favicon.ico'])
          expect({ path, ...(await ask({ path, authorization })) }).toMatchObject({ status: 200 })
    })

    test('the rest of the API takes no password', async () => {
      const response = await fetch(`${turnmill.address}/v1/me`, {
        headers: { authorization: basic(turnmill.admin) },
      })
      expect(response.status).toBe(401)
      expect(response.headers.get('www-authenticate')).toBe('Bearer')
    })
  })

  describe('answers', () => {
    test('every route for looking, and 404 for a path that is none', async () => {
      for (const { method, path } of routes) {
        if (method !== 'GET') continue
        const told = await askAsAdmin({ path: fill(path) })
        expect({ path, status: told.status }).toMatchObject({ status: path === '/*' ? 404 : 200 })
      }
    })

    test('with headers that keep it out of frames, caches and referrers', async () => {
      for (const path of ['/', '/api/queues', '/nothing']) {
        const { headers } = await askAsAdmin({ path })
        expect(Object.fromEntries(headers)).toMatchObject({
          'cache-control': 'no-store',
          'content-security-policy': expect.stringContaining("frame-ancestors 'none'"),
          'referrer-policy': 'no-referrer',
          'x-content-type-options': 'nosniff',
          'x-frame-options': 'DENY',
        })
      }
      const file = await askAsAdmin({ path: '/static/favicon.ico' })
      expect(file.headers.get('cache-control')).toBe('private, max-age=3600')
    })

    test('a page that loads nothing from elsewhere', async () => {
      const { text } = await askAsAdmin({ path: '/' })
      expect(text).toContain('<title>Turnmill</title>')
      expect(text).not.toMatch(/(src|href)="(https?:)?\/\//)
    })

    test('a page without the buttons that would be refused: what its style hides is there to be hidden', async () => {
      const { text } = await askAsAdmin({ path: '/' })
      const style = /<style>([^<]+)<\/style><\/head>/.exec(text)?.[1] ?? ''
      const classes = [...style.matchAll(/class\*='([^']+)'/g)].map(([, name = '']) => name)
      const icons = [...style.matchAll(/\.lucide-([a-z-]+)/g)].map(([, name = '']) => `"${name}"`)
      expect([classes.length, icons.length]).toEqual([4, 2])
      const bundle = readBundle()
      expect([...classes, ...icons].filter((name) => !bundle.includes(name))).toEqual([])
    })
  })

  test('refuses all but looking and retrying, without effect', async () => {
    const before = await stateOfQueue()
    // Of the bare prefix there is only GET: whatever else it is asked finds nothing.
    const paths = new Set(routes.map(({ path }) => path).filter((path) => path !== ''))
    for (const path of paths)
      for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']) {
        if (method === 'PUT' && path === RETRY) continue
        const told = await askAsAdmin({
          method,
          path: fill(path),
          body: method === 'OPTIONS' ? undefined : {},
        })
        expect({ method, path, status: told.status, code: codeOf(told) }).toMatchObject({
          status: 403,
          code: 'forbidden',
        })
        expect(told.headers.get('content-type')).toContain('application/problem+json')
      }
    expect(await stateOfQueue()).toEqual(before)
  })

  describe('shows no text', () => {
    /** What the board tells of every job and of the queue: where the canary is in it. */
    const look = async (): Promise<string[]> => {
      const paths = ['latest', 'failed', 'completed', 'waiting', 'active', 'delayed'].map(
        (status) => `/api/queues?activeQueue=turns&status=${status}&page=1&jobsPerPage=100`,
      )
      const jobs = await queue.getJobs()
      const details = jobs.flatMap(({ id = '' }) =>
        ['', '/logs', '/flow'].map((suffix) => `/api/queues/turns/${encodeURIComponent(id)}${suffix}`),
      )
      const others = ['/api/job-schedulers', '/api/queues/turns/workers', '/api/queues/turns/metrics']
      const found: string[] = []
      for (const path of [...paths, ...details, ...others]) {
        const { status, text } = await askAsAdmin({ path })
        const isForeign = path.includes(encodeURIComponent(CANARY)) && !path.endsWith('/logs')
        expect({ path, status }).toMatchObject({ status: isForeign ? 404 : 200 })
        if (text.includes(CANARY)) found.push(`${path}: ${text}`)
      }
      return found
    }

    const failures = new Map<string, Error>()
    const logged: Error[] = []
    let worker: QueueWorker

    beforeAll(() => {
      worker = startTurnWorker(
        turnmill.services.backend,
        async ({ id }) => {
          const failure = failures.get(id)
          if (failure === undefined || failure instanceof TurnmillError) return failure ?? null
          throw failure
        },
        { concurrency: 1, lockMs: 1000, stalledCheckMs: 500, onError: (error) => logged.push(error) },
      )
    })
    afterAll(() => worker.close())

    const payload = (): TurnJob => ({
      version: 1,
      turnId: newId(),
      chatId: newId(),
      apiKeyId: null,
      trigger: 'send',
    })

    /** A job of our own that fails like this, once it has. */
    async function failed(job: TurnJob, failure: Error): Promise<Job> {
      const jobId = `turn-${job.turnId}-1`
      failures.set(jobId, failure)
      await turnmill.services.queue.enqueue(jobId, job)
      return inState(jobId, 'failed')
    }

    async function inState(jobId: string, state: string): Promise<Job> {
      while ((await queue.getJobState(jobId)) !== state) await sleep(20)
      return (await queue.getJob(jobId)) as Job
    }

    test('of a provider: the queue keeps code and turn of a failure, and neither message nor stack', async () => {
      const job = payload()
      const kept = await failed(job, new TurnmillError('provider_rejected', `it said ${CANARY}`))
      const failedReason = `provider_rejected: turn ${job.turnId}`
      expect(kept).toMatchObject({ failedReason, stacktrace: [] })
      const { text } = await askAsAdmin({ path: `/api/queues/turns/${kept.id}` })
      expect(JSON.parse(text)).toMatchObject({
        status: 'failed',
        job: { id: kept.id, name: 'turn', data: job, failedReason, stacktrace: [], attempts: 1 },
      })
      expect(await look()).toEqual([])
    })

    test('of an unexpected error: that is told to the log', async () => {
      const job = payload()
      const bug = new Error(`select '${CANARY}'`)
      const kept = await failed(job, bug)
      expect(logged).toContain(bug)
      expect(kept).toMatchObject({ failedReason: `turn_failed: turn ${job.turnId}`, stacktrace: [] })
      expect(await look()).toEqual([])
    })

    test('that somebody else wrote into the queue', async () => {
      const forged = {
        ...payload(),
        chatId: CANARY,
        apiKeyId: { secret: CANARY },
        trigger: CANARY,
        [CANARY]: CANARY,
        text: CANARY,
        traceparent: CANARY,
      }
      const options = { jobId: `forged ${CANARY}`, deduplication: { id: CANARY }, [CANARY]: CANARY }
      failures.set(options.jobId, new TurnmillError('turn_failed', CANARY))
      const added = await queue.add(CANARY, forged as never, options)
      await added.log(CANARY)
      await added.updateProgress({ text: CANARY })
      await inState(options.jobId, 'failed')
      await queue.add('turn', payload(), { jobId: `later ${CANARY}`, delay: 3_600_000 })
      await queue.upsertJobScheduler(CANARY, { every: 3_600_000 }, { name: CANARY, data: forged as never })

      expect(await look()).toEqual([])
      const { text } = await askAsAdmin({ path: '/api/queues?activeQueue=turns&status=failed' })
      const unknown = '<not an id>'
      const { turnId } = forged
      expect((JSON.parse(text) as { queues: [{ jobs: unknown[] }] }).queues[0].jobs).toContainEqual(
        expect.objectContaining({
          id: unknown,
          name: unknown,
          data: { version: 1, turnId, chatId: unknown, apiKeyId: unknown, trigger: unknown },
          opts: { attempts: 0 },
          failedReason: `turn_failed: turn ${turnId}`,
        }),
      )
    })

    test('of a turn that its provider refused', async () => {
      expect(await look()).toEqual([])
    })

    test('of a job that an older worker failed, or somebody else', async () => {
      await worker.close()
      const job = payload()
      await turnmill.services.queue.enqueue(`turn-${job.turnId}-1`, job)
      const stranger = turnmill.services.backend.worker<object>(TURNS_QUEUE, async () => {
        throw new Error(`provider_rejected: it said ${CANARY}`)
      })
      const { id } = await inState(`turn-${job.turnId}-1`, 'failed')
      await stranger.close()
      const { text } = await askAsAdmin({ path: `/api/queues/turns/${id}` })
      expect(JSON.parse(text)).toMatchObject({
        job: { failedReason: 'provider_rejected', stacktrace: [], data: job },
      })
      expect(await look()).toEqual([])
    })
  })

  describe('a retry', () => {
    const retry = (headers: Record<string, string>): Promise<Told> =>
      askAsAdmin({ method: 'PUT', path: fill(RETRY), headers })

    test.each([
      ['another site', { 'sec-fetch-site': 'cross-site' }],
      ['a neighbouring domain', { 'sec-fetch-site': 'same-site' }],
      ['another origin, by a browser that says no more', { origin: 'https://evil.example' }],
      ['another port of this machine', { origin: 'http://127.0.0.1:1' }],
      ['a sandboxed page', { origin: 'null' }],
    ])('from %s is refused', async (_, headers) => {
      const before = await stateOfQueue()
      const told = await retry(headers)
      expect([told.status, codeOf(told)]).toEqual([403, 'forbidden'])
      expect(await stateOfQueue()).toEqual(before)
    })

    test('delivers the job again, once, as a second attempt, however often it is clicked', async () => {
      const deliveries: [id: string, attemptsMade: number][] = []
      const { promise: delivered, resolve } = Promise.withResolvers<undefined>()
      const worker = startTurnWorker(
        turnmill.services.backend,
        async ({ id, attemptsMade }) => {
          deliveries.push([id, attemptsMade])
          if (id === failedJobId) resolve(undefined)
          return null
        },
        { concurrency: 1, lockMs: 1000, stalledCheckMs: 500, onError: () => undefined },
      )
      try {
        const clicks = Array.from({ length: 8 }, () => retry({ origin: turnmill.address }))
        const statuses = (await Promise.all(clicks)).map(({ status }) => status)
        expect(statuses).toContain(204)
        // Those that found the job failed no more.
        expect(statuses.filter((status) => ![204, 400, 409].includes(status))).toEqual([])
        await delivered
      } finally {
        await worker.close()
      }
      expect(deliveries.filter(([id]) => id === failedJobId)).toEqual([[failedJobId, 1]])
    })
  })
})
