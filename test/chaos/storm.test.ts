import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { readOptions, UsageError } from './options.ts'

let storm: ChildProcess | undefined
afterEach(() => void storm?.kill('SIGINT'))

/** Runs the storm as `npm run storm` does, and gives its exit code with all that it printed. */
async function runStorm(...args: string[]): Promise<{ code: number | null; output: string }> {
  const entry = path.resolve('test/chaos/storm.ts')
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', entry, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  storm = child
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => (output += chunk.toString()))
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, output }
}

describe('a small storm', () => {
  test('with a fault of every kind breaks no promise', async () => {
    const { code, output } = await runStorm('--turns', '100', '--kills', '1', '--clients', '20')
    expect(output).toMatch(/\npassed\n/)
    expect(code).toBe(0)
  }, 300_000)
})

describe('the options of the storm', () => {
  test('have defaults, and a seed is drawn where none is given', () => {
    expect(readOptions([])).toMatchObject({ backend: 'redis', turns: 2000, kills: 20, scale: 0.1, only: [] })
    expect(readOptions([]).seed).toBeGreaterThan(0)
  })

  test.each([['--turns', 'many'], ['--backend', 'sqlite'], ['--scale', '0'], ['--only', 'rain'], ['--wind']])(
    'are refused by name: %s %s',
    (...args: (string | undefined)[]) => {
      const given = args.filter((argument) => argument !== undefined)
      expect(() => readOptions(given)).toThrow(UsageError)
      expect(() => readOptions(given)).toThrow(given[0])
    },
  )
})
