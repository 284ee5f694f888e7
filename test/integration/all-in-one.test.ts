import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createClient, type TestClient } from '../support/client.ts'

/** `npm start`: everything in one process, on a Postgres that it brings itself. */
interface AllInOne {
  address: string
  token: string
  printed(): string
  client: TestClient
  stop(signal: NodeJS.Signals): Promise<number | null>
}

const spawnStart = (dataDir: string, environment: Record<string, string> = {}) =>
  spawn(process.execPath, ['--disable-warning=ExperimentalWarning', 'workers/main.ts'], {
    env: {
      ...{ PATH: process.env['PATH'] ?? '', TURNMILL_DATA_DIR: dataDir, PORT: '0', LOG_LEVEL: 'warn' },
      ...environment,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })

/** What a start says that is to fail. */
async function failToStart(dataDir: string, environment?: Record<string, string>): Promise<string> {
  const child = spawnStart(dataDir, environment)
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
  const [code] = (await once(child, 'close')) as [number | null]
  expect(code).toBe(1)
  return said
}

async function start(dataDir: string): Promise<AllInOne> {
  const child = spawnStart(dataDir)
  child.stderr.pipe(process.stderr)
  let printed = ''
  child.stdout.on('data', (chunk: Buffer) => (printed += chunk.toString()))
  const exited = once(child, 'exit').then(([code]) => code as number | null)
  while (!printed.includes('Ctrl-C')) {
    const outcome = await Promise.race([once(child.stdout, 'data').then(() => 'more'), exited])
    if (outcome !== 'more') throw new Error(`npm start exited with ${outcome} before it listened: ${printed}`)
  }
  const address = /http:\/\/\S+:\d+/.exec(printed)?.[0] ?? ''
  const token = /tm_[0-9a-f]{32}_\S{43}/.exec(printed)?.[0] ?? ''
  return {
    address,
    token,
    printed: () => printed,
    client: createClient(address, token),
    stop: (signal) => {
      child.kill(signal)
      return exited
    },
  }
}

/** Processes that still run on this data directory. */
const processesOn = (dataDir: string): string[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(dataDir)
      } catch {
        return false
      }
    })

let dataDir: string
beforeEach(() => {
  dataDir = mkdtempSync(path.join(tmpdir(), 'turnmill-start-'))
})
afterEach(() => rmSync(dataDir, { recursive: true, force: true }))

test('starts with nothing configured, answers, stops cleanly, and finds its data again', async () => {
  const first = await start(dataDir)
  expect(first.printed()).toContain(`curl ${first.address}/v1/chats`)
  const { chat, turn } = await first.client.create('Remember me')
  await expect(first.client.ended(chat.id, turn.id)).resolves.toMatchObject({
    state: 'completed',
    usage: { estimated: false },
  })
  const before = await first.client.messages(chat.id)
  expect(before).toHaveLength(2)
  expect(await first.stop('SIGINT')).toBe(0)
  expect(processesOn(dataDir)).toEqual([])

  const second = await start(dataDir)
  expect(second.token).toBe(first.token)
  expect(await second.client.messages(chat.id)).toEqual(before)
  await second.client.send(chat.id, 'And again')
  await expect(second.client.settled(chat.id)).resolves.toMatchObject({ status: 'idle' })
  expect(await second.stop('SIGTERM')).toBe(0)
}, 90_000)

test('finishes a turn that was running when it was killed', async () => {
  const first = await start(dataDir)
  const { chat, turn } = await first.client.create('Survive this')
  const watch = first.client.watch(chat.id)
  await watch.until((event) => event.type === 'part' && event.part.type === 'text-delta')
  watch.close()
  expect(await first.stop('SIGKILL')).toBeNull()
  // Postgres goes when it notices, and only then is the data directory free.
  while (processesOn(dataDir).length > 0) await new Promise((resolve) => setTimeout(resolve, 50))
  expect(existsSync(path.join(dataDir, 'secrets.json'))).toBe(true)

  const second = await start(dataDir)
  await expect(second.client.ended(chat.id, turn.id)).resolves.toMatchObject({ state: 'completed', epoch: 2 })
  expect(await second.client.messages(chat.id)).toHaveLength(2)
  expect(await second.stop('SIGINT')).toBe(0)
}, 90_000)

describe('secrets that cannot be had', () => {
  const file = (): string => path.join(dataDir, 'secrets.json')

  test('from a file that was cut off are told of, by its name', async () => {
    writeFileSync(file(), '{"bootstrapApiKey": "tm_never-shown')
    const said = await failToStart(dataDir)
    expect(said).toContain(`${file()} does not hold the three secrets that npm start wrote there`)
    expect(said).not.toContain('never-shown')
    expect(processesOn(dataDir)).toEqual([])
  }, 60_000)

  test('from a directory that is a file are told of, by the setting', async () => {
    writeFileSync(file(), '')
    const said = await failToStart(file())
    expect(said).toContain(`${file()} cannot be used, expected TURNMILL_DATA_DIR to name a directory`)
    const beside = await failToStart(file(), { DATABASE_URL: 'postgres://x@127.0.0.1:1/x' })
    expect(beside).toContain('expected TURNMILL_DATA_DIR to name a directory')
  }, 60_000)

  test('and are in use are not made anew', async () => {
    const first = await start(dataDir)
    expect(await first.stop('SIGTERM')).toBe(0)
    const kept = path.join(dataDir, 'kept.json')
    renameSync(file(), kept)
    expect(await failToStart(dataDir)).toContain(`${file()} is missing, and the database holds API keys`)
    expect(existsSync(file())).toBe(false)
    renameSync(kept, file())
    const second = await start(dataDir)
    expect(second.token).toBe(first.token)
    expect(await second.stop('SIGTERM')).toBe(0)
  }, 90_000)
})
