import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import path from 'node:path'
import { runCli, COMMANDS, type CliEffects } from '../../src/cli.ts'
import { makeScratch } from '../support/scratch.ts'

/** What a run printed and started. */
function record() {
  const said = { out: '', err: '', started: [] as string[] }
  const effects: CliEffects = {
    version: '1.2.3',
    print: (text) => (said.out += text),
    printError: (text) => (said.err += text),
    startProcess: async (name) => void said.started.push(name),
  }
  return { said, effects }
}

async function run(...args: string[]) {
  const { said, effects } = record()
  return { exitCode: await runCli(args, effects), ...said }
}

describe('the command line', () => {
  test.each([
    ['start', 'workers/main'],
    ['api', 'src/main'],
    ['worker', 'workers/all'],
    ['worker turns', 'workers/turns'],
    ['worker auxiliary', 'workers/auxiliary'],
  ])('%s starts %s and lets it live', async (command, entry) => {
    expect(await run(...command.split(' '))).toEqual({ exitCode: null, out: '', err: '', started: [entry] })
  })

  test.each([['help'], ['--help'], ['-h'], ['worker', '--help']])(
    '%s shows every command',
    async (...args) => {
      const { exitCode, out, started } = await run(...args)
      expect(exitCode).toBe(0)
      for (const name of Object.keys(COMMANDS)) expect(out).toContain(`  ${name} `)
      expect(started).toEqual([])
    },
  )

  test('--version shows the version', async () => {
    expect(await run('--version')).toMatchObject({ exitCode: 0, out: '1.2.3' })
  })

  test.each([
    [[], 'no command was given'],
    [['frobnicate'], 'there is no command frobnicate'],
    [['toString'], 'there is no command toString'],
    [['api', 'twice'], 'api takes no arguments, got twice'],
  ])('%j is not understood: help on standard error, exit code 2', async (args, problem) => {
    const { exitCode, out, err } = await run(...args)
    expect({ exitCode, out }).toEqual({ exitCode: 2, out: '' })
    expect(err).toContain(problem)
    expect(err).toContain('usage: turnmill')
  })
})

describe('the executable under a Node that is too old', () => {
  let scratch: string
  beforeEach(async () => {
    scratch = await makeScratch('turnmill-cli-')
  })
  afterEach(() => rm(scratch, { recursive: true, force: true }))

  /** Another file than the Node that npm installed, which says that it is older. */
  async function startUnderOldNode(args: string[], environment: Record<string, string>) {
    const node = path.join(scratch, 'node')
    await copyFile(process.execPath, node)
    const older = path.join(scratch, 'older.mjs')
    const versions = `{ ...process.versions, node: '20.19.0' }`
    await writeFile(older, `Object.defineProperty(process, 'versions', { value: ${versions} })`)
    return spawn(node, ['--import', older, path.resolve('bin/turnmill.js'), ...args], {
      env: { PATH: process.env['PATH'] ?? '', ...environment },
      stdio: 'ignore',
    })
  }

  test('ends the process that it runs under another one, also when it is killed', async () => {
    // A Postgres that says nothing: the command waits for it until it ends.
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const parent = await startUnderOldNode(['migrate'], { DATABASE_URL: `postgres://x@127.0.0.1:${port}/x` })
    const [socket] = (await once(server, 'connection')) as [Socket]
    socket.on('error', () => undefined).resume()
    parent.kill('SIGKILL')
    await once(socket, 'close')
    server.close()
  })
})
