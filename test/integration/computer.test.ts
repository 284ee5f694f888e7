/** A computer that is a real Chromium, used on real pages over loopback. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import {
  createComputerTools,
  createPlaywrightDriver,
  type ComputerTools,
  type EgressRules,
} from '../../src/computer/index.ts'
import { destinationsOf } from '../../src/models/index.ts'
import type { ComputerAction } from '../../src/protocol/computer.ts'
import type { Tool, ToolOutcome } from '../../src/tools/contract.ts'
import { chromiumPath, chromiumsOf, isAlive, untilGone } from '../support/chromium.ts'
import { html, serveComputerPage, SPOTS, type ComputerPage } from '../support/computer-page.ts'

const SIZE = { width: 640, height: 400 }
const TIMES = { action: 10_000, screenshot: 10_000 }
const EVERYWHERE: EgressRules = { allowUrl: async () => true }

interface Computer extends ComputerTools {
  open(url: string, chatId?: string): Promise<ToolOutcome>
  act(actions: ComputerAction[], options?: { chatId?: string; signal?: AbortSignal }): Promise<ToolOutcome>
}

function startComputer(
  rules = EVERYWHERE,
  executablePath = chromiumPath(),
  times: Partial<typeof TIMES> = {},
): Computer {
  const driver = createPlaywrightDriver({
    executablePath,
    sandbox: null,
    size: SIZE,
    rules,
    times: { ...TIMES, ...times },
  })
  const computer = createComputerTools(driver, { maximum: 3, idleMs: 600_000 })
  const [tool, openPage] = computer.tools({ chatId: 'chat', userId: 'user' }) as [Tool, Tool]
  const call = (
    { check, execute }: Tool,
    input: unknown,
    { chatId = 'chat', signal = new AbortController().signal },
  ): Promise<ToolOutcome> => {
    expect(check(input)).toBeNull()
    return execute(input, {
      ...{ signal, chatId, turnId: 'turn', step: 1, toolCallId: 'call', userId: 'user', apiKeyId: 'key' },
    })
  }
  return {
    ...computer,
    open: (url, chatId = 'chat') => call(openPage, { url }, { chatId }),
    act: (actions, options = {}) => call(tool, { actions }, options),
  }
}

const click = (
  spot: { x: number; y: number },
  { button = 'left', count = 1 }: Partial<Extract<ComputerAction, { type: 'click' }>> = {},
): ComputerAction => ({ type: 'click', ...spot, button, count })
const LOOK: ComputerAction = { type: 'screenshot' }

/** What the head of a PNG says. */
function sizeOf({ images: [image] }: ToolOutcome): { width: number; height: number } {
  const bytes = Buffer.from(image?.bytes ?? [])
  expect(bytes.subarray(0, 8).toString('latin1')).toBe('\x89PNG\r\n\x1a\n')
  return { width: bytes.readUInt32BE(16), height: bytes.readUInt32BE(20) }
}

const pixels = ({ images: [image] }: ToolOutcome): string =>
  Buffer.from(image?.bytes ?? []).toString('base64')

let page: ComputerPage
beforeAll(async () => {
  page = await serveComputerPage()
})
afterAll(() => page.stop())
beforeEach(() => page.forget())

describe('on a page', () => {
  let computer: Computer
  beforeAll(() => {
    computer = startComputer()
  })
  afterAll(() => computer.stop())
  beforeEach(async () => {
    expect(await computer.open(page.url)).toMatchObject({ isError: false })
  })

  test('a click reaches what is there, and the screenshot shows what came of it', async () => {
    const before = await computer.act([LOOK])
    const after = await computer.act([click(SPOTS.button)])
    await page.saw('clicked 1')
    expect(sizeOf(after)).toEqual(SIZE)
    expect(pixels(after)).not.toBe(pixels(before))
    expect(after.output).toBe(`Done.\nThe page is at ${page.url}`)
  })

  test('a double click is one, and so is a click with the right button', async () => {
    await computer.act([click(SPOTS.button, { count: 2 }), click(SPOTS.button, { button: 'right' })])
    await page.saw('double')
    await page.saw('right')
    expect(page.told).not.toContain('clicked 3')
  })

  test('text is typed, of any script, and keys are pressed together', async () => {
    const keys = (...pressed: string[]): ComputerAction => ({ type: 'key', keys: pressed })
    await computer.act([
      click(SPOTS.field),
      { type: 'type', text: 'wrong' },
      keys('Control', 'a'),
      keys('Backspace'),
    ])
    await computer.act([
      { type: 'type', text: 'héllo 世界 ' },
      keys('Shift', 'a'),
      keys('Shift', '/'),
      keys('Enter'),
    ])
    await page.saw('typed héllo 世界 A?')
  })

  test('a line end is the key Enter, also after a long text', async () => {
    await computer.act([click(SPOTS.field), { type: 'type', text: `${'x'.repeat(5000)}\r\n` }])
    await page.saw(`typed ${'x'.repeat(5000)}`)
  })

  test('the wheel scrolls what is under it', async () => {
    const outcome = await computer.act([{ type: 'scroll', ...SPOTS.list, dx: 0, dy: 5000 }])
    await page.saw('scrolled')
    expect(outcome.isError).toBe(false)
  })

  test('something is dragged along a path', async () => {
    const { x, y } = SPOTS.handle
    await computer.act([{ type: 'drag', path: [SPOTS.handle, { x: x + 20, y }, { x: x + 50, y: y + 80 }] }])
    await page.saw('dragged 50 80')
  })

  test('a link leads to its page, and the keys of a browser back and forth', async () => {
    const there = await computer.act([click(SPOTS.link)])
    await page.saw('second')
    expect(there.output).toContain(`The page is at ${page.url}second`)
    const back = await computer.act([{ type: 'key', keys: ['Alt', 'ArrowLeft'] }])
    expect(back.output).toBe(`Done.\nThe page is at ${page.url}`)
    const forth = await computer.act([{ type: 'key', keys: ['Alt', 'ArrowRight'] }])
    expect(forth.output).toContain(`${page.url}second`)
  })

  test('what is done after a click on a link is done to the page that it leads to', async () => {
    await computer.act([click(SPOTS.link), { type: 'wait', ms: 300 }, { type: 'key', keys: ['F5'] }])
    expect(page.requests).toEqual(['/', '/second', '/second'])
  })

  test('a window that opens is shown, and closing goes back', async () => {
    const opened = await computer.act([click(SPOTS.window)])
    expect(opened.output).toContain(`The page is at ${page.url}second\nThe page opened a window`)
    await computer.open(page.url)
    await computer.act([click(SPOTS.button)])
    await page.saw('clicked 1')
  })

  test('a dialog is dismissed, and told of', async () => {
    const { output, isError } = await computer.act([click(SPOTS.question)])
    await page.saw('answered false')
    expect(isError).toBe(false)
    expect(output).toContain('A dialog (confirm) was dismissed, which said "Are you sure?".')
  })

  test('a download is refused, and told of', async () => {
    const clicked = await computer.act([click(SPOTS.download)])
    expect(clicked.output).toBe(`Done.\nThe page is at ${page.url}\nA download was refused: ${page.url}file`)
    const opened = await computer.open(`${page.url}file`)
    expect(opened).toMatchObject({ isError: true, images: [{}] })
    expect(opened.output).toContain('could not be opened: Download is starting')
  })

  test('what cannot be reached is an error, with a screenshot', async () => {
    for (const url of ['http://nowhere.invalid/', 'https://nowhere.invalid/', 'http://127.0.0.1:1/']) {
      const outcome = await computer.open(url)
      expect(outcome).toMatchObject({ isError: true, images: [{ mediaType: 'image/png' }] })
      expect(outcome.output).toMatch(/could not be opened: (\S+ cannot be reached|net::ERR_)/)
    }
  })

  test('a file is out of reach, whatever is typed', async () => {
    const before = await computer.act([LOOK])
    const outcome = await computer.act([
      { type: 'key', keys: ['Control', 'l'] },
      { type: 'type', text: 'file:///etc/passwd\n' },
    ])
    expect(outcome.output).toContain(page.url)
    expect(pixels(outcome)).toBe(pixels(before))
  })

  test('a page that hangs is closed, and the next call gets a new one', async () => {
    const hasty = startComputer(EVERYWHERE, chromiumPath(), { action: 1500 })
    await hasty.open(page.url)
    const hung = await hasty.act([click(SPOTS.hang)])
    expect(hung).toMatchObject({ isError: true, images: [] })
    expect(hung.output).toContain('Action 1 of 1 (click) failed: the page did not react within 2 s')
    const next = await hasty.act([LOOK])
    expect(sizeOf(next)).toEqual(SIZE)
    expect(next.output).toContain('whatever was open before is lost')
    await hasty.stop()
  })

  test('a page that never ends loading is shown as it is', async () => {
    const slow = await serveComputerPage({
      '/slow': (response) => html('<h1>Slow</h1><img src="/never">')(response),
      '/never': () => undefined,
    })
    try {
      expect(await computer.open(`${slow.url}slow`)).toMatchObject({ isError: false, images: [{}] })
    } finally {
      await slow.stop()
    }
  })
})

describe('where pages may not go', () => {
  let computer: Computer
  let forbidden: ComputerPage
  let allowed: ComputerPage

  beforeAll(async () => {
    forbidden = await serveComputerPage()
    const redirect = (to: string) => (response: Parameters<ReturnType<typeof html>>[0]) =>
      void response.writeHead(302, { location: to }).end()
    const ways = `
      fetch('${forbidden.url}fetched', { mode: 'no-cors' }).catch(() => {})
      new Image().src = '${forbidden.url}image'
      navigator.sendBeacon('${forbidden.url}beacon')
      new Worker(URL.createObjectURL(new Blob(["fetch('${forbidden.url}worker', { mode: 'no-cors' })"])))
      const socket = new WebSocket('ws://${forbidden.host}/socket')
      socket.onerror = () => fetch('/told?what=refused')
      socket.onopen = () => fetch('/told?what=opened')`
    allowed = await serveComputerPage({
      '/redirect': redirect(`${forbidden.url}redirected`),
      '/ways': html(`<iframe src="${forbidden.url}frame"></iframe><script>${ways}</script>`),
      '/link': html(`<a href="${forbidden.url}" style="position: fixed; inset: 0">Out</a>`),
    })
    computer = startComputer({ allowUrl: async (url) => new URL(url).host === allowed.host })
  })
  afterAll(async () => {
    await computer.stop()
    await allowed.stop()
    await forbidden.stop()
  })
  beforeEach(() => forbidden.forget())

  test('no page is opened', async () => {
    const outcome = await computer.open(forbidden.url)
    expect(outcome).toMatchObject({ isError: true, images: [{}] })
    expect(outcome.output).toContain(`The page ${forbidden.url} may not be reached.`)
    expect(forbidden.connections).toBe(0)
  })

  test('no redirect leads (E1)', async () => {
    const outcome = await computer.open(`${allowed.url}redirect`)
    expect(outcome.isError).toBe(true)
    expect(outcome.output).toContain(`could not be opened: ${forbidden.host} may not be reached`)
    expect(forbidden.connections).toBe(0)
  })

  test('no link leads (E1)', async () => {
    await computer.open(`${allowed.url}link`)
    const outcome = await computer.act([click({ x: 100, y: 100 })])
    expect(outcome.output).toContain(`A request to ${forbidden.host} was refused`)
    expect(forbidden.connections).toBe(0)
  })

  test('nothing that a page does leads (E1)', async () => {
    const outcome = await computer.open(`${allowed.url}ways`)
    await allowed.saw('refused')
    expect(outcome.output).toContain(`A request to ${forbidden.host} was refused`)
    expect(forbidden.connections).toBe(0)
  })

  test('neither a private address nor a name that comes to lead to one (E1, by the rules of providers)', async () => {
    const { port } = new URL(forbidden.url)
    let asked = 0
    const guarded = startComputer(
      destinationsOf({
        allowPrivate: false,
        lookup: (_name, _options, answer) =>
          answer(null, [{ address: ++asked === 1 ? '93.184.215.14' : '127.0.0.1', family: 4 }]),
      }),
    )
    try {
      // A name is looked up before its page is opened, by the proxy, and by the proxy's socket.
      for (const host of ['127.0.0.1', '[::1]', '2130706433', 'changing.example'])
        expect(await guarded.open(`https://${host}:${port}/`)).toMatchObject({ isError: true, images: [{}] })
      expect(asked).toBeGreaterThan(1)
      expect((await guarded.open('http://example.com/')).output).toContain('may not be reached')
      expect(forbidden.connections).toBe(0)
    } finally {
      await guarded.stop()
    }
  })

  test('no name leads at the moment of the connection (E1)', async () => {
    const { port } = new URL(forbidden.url)
    for (const scheme of ['http', 'https']) {
      const { lookup } = destinationsOf({ allowPrivate: false })
      const guarded = startComputer({ ...EVERYWHERE, ...(lookup === undefined ? {} : { lookup }) })
      try {
        const outcome = await guarded.open(`${scheme}://localhost:${port}/`)
        expect(outcome).toMatchObject({ isError: true })
        expect(outcome.output).toMatch(/cannot be reached \(provider_address_refused\)|ERR_TUNNEL/)
      } finally {
        await guarded.stop()
      }
    }
    expect(forbidden.connections).toBe(0)
  })
})

describe('the browser', () => {
  let computer: Computer
  beforeEach(() => {
    computer = startComputer()
  })
  afterEach(() => computer.stop())

  const only = (pids: readonly number[]): number => {
    expect(pids).toHaveLength(1)
    return pids[0] ?? 0
  }

  test('is one for all chats, each with a profile of its own', async () => {
    await computer.open(page.url, 'one')
    await computer.open(`${page.url}second`, 'two')
    only(chromiumsOf())
    await computer.act([click(SPOTS.button)], { chatId: 'one' })
    await page.saw('clicked 1')
  })

  test('that was killed is started anew by the next call, which says so', async () => {
    await computer.open(page.url)
    const pid = only(chromiumsOf())
    process.kill(pid, 'SIGKILL')
    await untilGone(pid)
    const outcome = await computer.act([LOOK])
    expect(sizeOf(outcome)).toEqual(SIZE)
    expect(outcome.output).toContain('whatever was open before is lost')
    expect(only(chromiumsOf())).not.toBe(pid)
    expect(await computer.open(page.url)).toMatchObject({ isError: false })
  })

  test('that is killed under a call fails it, and not the next one', async () => {
    await computer.open(page.url)
    const hung = computer.act([click(SPOTS.button), click(SPOTS.hang)])
    await page.saw('clicked 1')
    process.kill(only(chromiumsOf()), 'SIGKILL')
    const outcome = await hung
    expect(outcome).toMatchObject({ isError: true, images: [] })
    expect(outcome.output).toContain('the browser crashed, and the page that was open is lost')
    expect(await computer.act([LOOK])).toMatchObject({
      isError: false,
      output: expect.stringContaining('whatever was open before is lost'),
    })
  })

  test('that froze is killed, and started anew by the next call', async () => {
    await computer.open(page.url)
    const pid = only(chromiumsOf())
    process.kill(pid, 'SIGSTOP')
    const outcome = await computer.act([LOOK])
    expect(sizeOf(outcome)).toEqual(SIZE)
    expect(outcome.output).toContain('whatever was open before is lost')
    await untilGone(pid)
  })

  test('ends with the last display, and with the process’s use of it', async () => {
    await computer.open(page.url, 'one')
    await computer.open(page.url, 'two')
    const pid = only(chromiumsOf())
    await computer.release('one')
    expect(isAlive(pid)).toBe(true)
    await computer.release('two')
    expect(isAlive(pid)).toBe(false)
    await computer.open(page.url, 'one')
    const next = only(chromiumsOf())
    await computer.stop()
    expect(isAlive(next)).toBe(false)
    expect(chromiumsOf()).toEqual([])
    expect(await computer.open(page.url)).toMatchObject({ isError: true, output: 'This worker is stopping.' })
  })

  test('ends with a process that was killed', async () => {
    const child = spawn(
      process.execPath,
      [
        '--disable-warning=ExperimentalWarning',
        path.resolve('test/support/computer-process.ts'),
        chromiumPath(),
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    const [printed] = (await once(child.stdout, 'data')) as [Buffer]
    const pid = Number(printed.toString())
    expect(isAlive(pid)).toBe(true)
    child.kill('SIGKILL')
    await untilGone(pid)
  })

  test('that is not there is an error', async () => {
    const nowhere = startComputer(EVERYWHERE, '/nowhere/chromium')
    const outcome = await nowhere.act([LOOK])
    expect(outcome).toMatchObject({ isError: true, images: [] })
    expect(outcome.output).toContain('The browser could not be started')
  })

  test('knows nothing of the environment of its process', async () => {
    process.env['DATABASE_URL'] = 'postgres://secret-canary'
    try {
      await computer.open(page.url)
      const environment = readFileSync(`/proc/${only(chromiumsOf())}/environ`, 'utf8')
      expect(environment).toContain('PATH=')
      expect(environment).not.toContain('canary')
    } finally {
      delete process.env['DATABASE_URL']
    }
  })
})

describe('a stop', () => {
  let computer: Computer
  beforeAll(() => {
    computer = startComputer()
  })
  afterAll(() => computer.stop())

  test.each([
    ['a wait', { type: 'wait', ms: 30_000 }],
    ['an action that hangs', click(SPOTS.hang)],
  ] as const)('in the middle of %s ends the call at once, and its display', async (_, action) => {
    await computer.open(page.url)
    await computer.open(page.url, 'other')
    const stop = new AbortController()
    const call = computer.act([click(SPOTS.button), action], { signal: stop.signal })
    await page.saw('clicked 1')
    const stoppedAt = performance.now()
    stop.abort(new Error('stopped'))
    await expect(call).rejects.toThrow('stopped')
    expect(performance.now() - stoppedAt).toBeLessThan(5000)
    expect((await computer.act([LOOK])).output).toContain('whatever was open before is lost')
    expect((await computer.act([LOOK], { chatId: 'other' })).output).not.toContain('lost')
  })
})
