import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
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

async function start(dataDir: string): Promise<AllInOne> {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', 'workers/main.ts'], {
    env: { PATH: process.env['PATH'] ?? '', TURNMILL_DATA_DIR: dataDir, PORT: '0', LOG_LEVEL: 'warn' },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
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
