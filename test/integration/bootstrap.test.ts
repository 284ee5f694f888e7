/** The first admin's key, which every API process sees to when it starts. */
import pg from 'pg'
import { openDatabase, type Database } from '../../src/db/index.ts'
import { ensureBootstrapKey, newToken, revokeApiKey } from '../../src/keys/index.ts'
import { toProblem } from '../../src/api/problems.ts'
import { Secret } from '../../src/protocol/secret.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'

const PEPPER = new Secret(Buffer.alloc(32, 7).toString('base64'))

let database: TestDatabase
let db: Database
beforeEach(async () => {
  database = await createTestDatabase()
  db = open(database.url)
})
afterEach(async () => {
  await db.close()
  await database.drop()
})

const open = (url: string): Database =>
  openDatabase({ url, poolSize: 2, connectTimeoutMs: 10_000, silenceMs: 10_000, applicationName: 'test' })

test('is made once, with one user, by processes that start at the same moment', async () => {
  const token = newToken()
  const blocker = new pg.Client({ connectionString: database.url })
  await blocker.connect()
  await blocker.query('begin')
  await blocker.query('lock table users in share mode')
  // Each has found that there is no key yet, and waits to make it.
  const made = Promise.all([ensureBootstrapKey(db, PEPPER, token), ensureBootstrapKey(db, PEPPER, token)])
  for (;;) {
    const { rows } = await blocker.query<{ waiting: number }>(
      `select count(*)::int as waiting from pg_locks where not granted and relation = 'users'::regclass`,
    )
    if (rows[0]?.waiting === 2) break
  }
  await blocker.query('commit')
  await blocker.end()
  const [one, other] = await made
  expect(one).toBe(other)
  expect(await db.prisma.apiKey.count()).toBe(1)
  expect(await db.prisma.user.findMany()).toMatchObject([{ name: 'admin', role: 'admin' }])
  // And once only, whoever starts later.
  await ensureBootstrapKey(db, PEPPER, token)
  expect(await db.prisma.user.count()).toBe(1)
})

test.each([
  ['pepper', new Secret(Buffer.alloc(32, 8).toString('base64')), (token: Secret) => token],
  [
    'secret',
    PEPPER,
    (token: Secret) => new Secret(token.reveal().slice(0, -43) + newToken().reveal().slice(-43)),
  ],
])('is refused with another %s than it was stored with', async (_, pepper, change) => {
  const token = newToken()
  await ensureBootstrapKey(db, PEPPER, token)
  await expect(ensureBootstrapKey(db, pepper, change(token))).rejects.toThrow(
    'TURNMILL_API_KEY_PEPPER or TURNMILL_BOOTSTRAP_API_KEY has another value than when it was stored',
  )
})

test('that is new stands beside the old one, which is told of until it is revoked', async () => {
  const told: unknown[] = []
  const ensure = (token: Secret) => ensureBootstrapKey(db, PEPPER, token, (ids) => told.push(ids))
  const [first, second] = [newToken(), newToken()]
  const old = await ensure(first)
  expect(told).toEqual([])
  await ensure(second)
  await ensure(second)
  expect(told).toEqual([[old], [old]])
  await revokeApiKey(db, old, null)
  await ensure(second)
  expect(told).toHaveLength(2)
})

test('Postgres that cannot be reached is told as such, whoever asked it', async () => {
  const nowhere = open('postgres://nobody@127.0.0.1:1/nothing')
  try {
    const error: unknown = await nowhere.prisma.user.count().catch((reason: unknown) => reason)
    expect(toProblem(error as Error & { code: string; name: string })).toMatchObject({
      code: 'database_unavailable',
      retryAfterMs: 1000,
    })
  } finally {
    await nowhere.close()
  }
})
