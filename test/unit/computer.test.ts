/** What a computer may be asked for, and whose display is whose, on a driver without a browser. */
import {
  ComputerFailure,
  createComputerTools,
  type ComputerDriver,
  type ComputerSession,
} from '../../src/computer/index.ts'
import type { ComputerAction } from '../../src/protocol/computer.ts'
import type { Tool, ToolContext, ToolOutcome } from '../../src/tools/contract.ts'

const SIZE = { width: 640, height: 400 }
const OWNER = { chatId: 'chat', userId: 'user' }
const PNG = new Uint8Array([0x89, 0x50, 0x4e, 0x47])

/** A driver whose displays do nothing, and say what they were asked for. */
class FakeDriver implements ComputerDriver {
  readonly size = SIZE
  /** What happened, such as `open a`, `a click` and `close a`. */
  readonly log: string[] = []
  readonly displays = new Map<string, { crash(): void }>()
  /** In place of what an action does. */
  onPerform: (chatId: string, action: ComputerAction, signal: AbortSignal) => Promise<void> = async () =>
    undefined
  onScreenshot: () => Promise<Uint8Array> = async () => PNG
  onOpen: () => Promise<void> = async () => undefined

  async open({ chatId }: { chatId: string }): Promise<ComputerSession> {
    this.log.push(`open ${chatId}`)
    await this.onOpen()
    let isAlive = true
    this.displays.set(chatId, { crash: () => (isAlive = false) })
    return {
      perform: async (action, signal) => {
        this.log.push(`${chatId} ${action.type}`)
        await this.onPerform(chatId, action, signal)
      },
      goto: async (url) => void this.log.push(`${chatId} goto ${url}`),
      screenshot: async () => {
        this.log.push(`${chatId} look`)
        return this.onScreenshot()
      },
      address: () => 'https://page.example/',
      takeNotes: () => [],
      isAlive: async () => isAlive,
      close: async () => void this.log.push(`close ${chatId}`),
    }
  }

  async stop(): Promise<void> {
    this.log.push('stop')
  }
}

const start = (options: Partial<Parameters<typeof createComputerTools>[1]> = {}) => {
  const driver = new FakeDriver()
  const computer = createComputerTools(driver, { maximum: 2, idleMs: 60_000, ...options })
  const [tool, openPage] = computer.tools(OWNER) as [Tool, Tool]
  return { driver, computer, tool, openPage }
}

const contextOf = (chatId: string, signal = new AbortController().signal): ToolContext => ({
  ...{ signal, chatId, turnId: 'turn', step: 1, toolCallId: 'call', userId: 'user', apiKeyId: 'key' },
})

const act = (
  tool: Tool,
  chatId: string,
  actions: ComputerAction[],
  signal?: AbortSignal,
): Promise<ToolOutcome> => tool.execute({ actions }, contextOf(chatId, signal))

const MOVE: ComputerAction = { type: 'move', x: 1, y: 1 }
const WAIT: ComputerAction = { type: 'wait', ms: 1 }
const LOOK: ComputerAction = { type: 'screenshot' }

describe('an input of `computer`', () => {
  const { tool } = start()
  const click = { type: 'click', x: 1, y: 1, button: 'left', count: 1 }

  test.each([
    LOOK,
    click,
    { ...click, x: 639.5, y: 0, button: 'right', count: 3 },
    MOVE,
    { type: 'drag', path: [{ x: 0, y: 0 }, { x: 639, y: 399 }] },
    { type: 'type', text: 'über' },
    { type: 'key', keys: ['Control', 'Shift', 'a'] },
    { type: 'key', keys: [' '] },
    { type: 'scroll', x: 1, y: 1, dx: 0, dy: -300 },
    { type: 'wait', ms: 0 },
  ])('may be %j', (action) => expect(tool.check({ actions: [action] })).toBeNull()) // prettier-ignore

  test.each([
    ['actions[0].x: expected less than 640', { ...click, x: 640 }],
    ['actions[0].y: expected less than 400', { ...click, y: 400 }],
    ['actions[0].x: Too small', { ...click, x: -1 }],
    ['actions[0].x: Invalid input', { ...click, x: '1' }],
    ['actions[0].button', { ...click, button: 'back' }],
    ['actions[0].count', { ...click, count: 4 }],
    ['actions[0]: Unrecognized key', { ...click, modifiers: [] }],
    ['actions[0].type', { type: 'hover' }],
    ['actions[0].path: Too small', { type: 'drag', path: [{ x: 1, y: 1 }] }],
    ['actions[0].path[1].y', { type: 'drag', path: [{ x: 1, y: 1 }, { x: 1, y: 999 }] }],
    ['actions[0].path: Too big', { type: 'drag', path: Array.from({ length: 101 }, () => ({ x: 1, y: 1 })) }],
    ['actions[0].text: Too small', { type: 'type', text: '' }],
    ['actions[0].text: Too big', { type: 'type', text: 'x'.repeat(10_001) }],
    ['actions[0].keys: Too small', { type: 'key', keys: [] }],
    ['actions[0].keys[0]: "Return" is no key', { type: 'key', keys: ['Return'] }],
    ['actions[0].keys[0]: "é" is no key', { type: 'key', keys: ['é'] }],
    ['actions[0].dy', { type: 'scroll', x: 1, y: 1, dx: 0, dy: 1e9 }],
    ['actions[0].ms', { type: 'wait', ms: 30_001 }],
  ])('is refused with %s', (problem, action) => expect(tool.check({ actions: [action] })).toContain(problem)) // prettier-ignore

  test.each([
    ['the input', null],
    ['the input', 'click'],
    ['actions: Invalid input', {}],
    ['actions: Too small', { actions: [] }],
    ['actions: Invalid input', { actions: LOOK }],
    ['actions: Too big', { actions: Array.from({ length: 21 }, () => LOOK) }],
  ])('is refused as a whole with %s', (problem, input) => expect(tool.check(input)).toContain(problem))
})

test.each([
  ['https://example.com/a?b#c', true],
  ['http://127.0.0.1:3000', true],
  ['file:///etc/passwd', false],
  ['chrome://version', false],
  ['data:text/html,hi', false],
  ['javascript:alert(1)', false],
  ['view-source:https://example.com', false],
  ['example.com', false],
  [7, false],
])('a page at %s: %s', (url, allowed) => expect(start().openPage.check({ url }) === null).toBe(allowed))

test('a page at an endless address is refused', () =>
  expect(start().openPage.check({ url: `https://example.com/${'x'.repeat(2048)}` })).toContain(
    'url: Too big',
  ))

test('the tools say what they are', () => {
  const { tool, openPage } = start()
  expect(tool).toMatchObject({
    definition: { kind: 'computer', name: 'computer', ...SIZE },
    idempotent: false,
    readOnly: false,
  })
  expect(openPage).toMatchObject({ definition: { kind: 'function', name: 'open_page' }, readOnly: false })
})

describe('a call', () => {
  test('does its actions in order, and looks once', async () => {
    const { driver, tool } = start()
    const outcome = await act(tool, 'a', [MOVE, LOOK, WAIT])
    expect(driver.log).toEqual(['open a', 'a move', 'a screenshot', 'a wait', 'a look'])
    expect(outcome).toMatchObject({ isError: false, images: [{ mediaType: 'image/png', bytes: PNG }] })
    expect(outcome.output).toMatch(/^Done\.\nThe page is at https:\/\/page\.example\//)
  })

  test('says which action failed, leaves out the rest, and looks all the same', async () => {
    const { driver, tool } = start()
    driver.onPerform = async (_, { type }) => {
      if (type === 'wait') throw new ComputerFailure('the page did not react')
    }
    const outcome = await act(tool, 'a', [MOVE, WAIT, MOVE])
    expect(driver.log).toEqual(['open a', 'a move', 'a wait', 'a look'])
    expect(outcome).toMatchObject({ isError: true, images: [{ bytes: PNG }] })
    expect(outcome.output).toContain(
      'Action 2 of 3 (wait) failed: the page did not react; what follows it was not done.',
    )
  })

  test('that sees nothing any more closes the display; the next one says that what was open is lost', async () => {
    const { driver, tool } = start()
    expect((await act(tool, 'a', [LOOK])).output).toContain('whatever was open before is lost')
    expect((await act(tool, 'a', [LOOK])).output).not.toContain('lost')
    driver.onScreenshot = () => Promise.reject(new ComputerFailure('the page did not react'))
    const outcome = await act(tool, 'a', [LOOK])
    expect(outcome).toMatchObject({ isError: true, images: [] })
    expect(outcome.output).toContain('the browser was closed')
    driver.onScreenshot = async () => PNG
    expect((await act(tool, 'a', [LOOK])).output).toContain('whatever was open before is lost')
    expect(driver.log.filter((line) => line.endsWith(' a'))).toEqual(['open a', 'close a', 'open a'])
  })

  test('after a crash gets a new display', async () => {
    const { driver, tool } = start()
    await act(tool, 'a', [LOOK])
    driver.displays.get('a')?.crash()
    expect(await act(tool, 'a', [LOOK])).toMatchObject({ isError: false, images: [{ bytes: PNG }] })
    expect(driver.log.filter((line) => line.endsWith(' a'))).toEqual(['open a', 'close a', 'open a'])
  })

  test('where no browser starts is an error, and leaves no place taken', async () => {
    const { driver, tool } = start({ maximum: 1 })
    driver.onOpen = () => Promise.reject(new ComputerFailure('no browser', { lost: true }))
    expect(await act(tool, 'a', [LOOK])).toEqual({ output: 'No browser.', isError: true, images: [] })
    driver.onOpen = async () => undefined
    expect(await act(tool, 'b', [LOOK])).toMatchObject({ isError: false })
  })
})

describe('displays', () => {
  /** A call that goes on until it is let go. */
  function hold(driver: FakeDriver) {
    const { promise: begun, resolve: begin } = Promise.withResolvers<undefined>()
    const { promise: held, resolve: letGo } = Promise.withResolvers<undefined>()
    driver.onPerform = async (_, { type }) => {
      if (type !== 'wait') return
      begin(undefined)
      await held
    }
    return { begun, letGo: () => letGo(undefined) }
  }

  test('are used by one call at a time, in order (S1)', async () => {
    const { driver, tool } = start()
    const { begun, letGo } = hold(driver)
    const calls = [act(tool, 'a', [WAIT]), act(tool, 'a', [MOVE]), act(tool, 'a', [LOOK])]
    await begun
    expect(driver.log).toEqual(['open a', 'a wait'])
    letGo()
    await Promise.all(calls)
    expect(driver.log).toEqual(['open a', 'a wait', 'a look', 'a move', 'a look', 'a screenshot', 'a look'])
  })

  test('of two chats are used at once', async () => {
    const { driver, tool } = start()
    const { begun, letGo } = hold(driver)
    const first = act(tool, 'a', [WAIT])
    await begun
    await act(tool, 'b', [MOVE])
    letGo()
    await first
  })

  test('make room for others, the one unused for longest first (S2)', async () => {
    const { driver, tool } = start()
    for (const chat of ['a', 'b', 'a', 'c']) await act(tool, chat, [LOOK])
    expect(driver.log.filter((line) => /^(open|close)/.test(line))).toEqual([
      'open a',
      'open b',
      'close b',
      'open c',
    ])
  })

  test('in use make no room', async () => {
    const { driver, tool } = start({ maximum: 1 })
    const { begun, letGo } = hold(driver)
    const first = act(tool, 'a', [WAIT])
    await begun
    expect(await act(tool, 'b', [LOOK])).toMatchObject({
      isError: true,
      output: expect.stringContaining('All 1 displays of this worker are in use'),
    })
    letGo()
    await first
    expect(await act(tool, 'b', [LOOK])).toMatchObject({ isError: false })
  })

  test('close when they are idle (S2)', async () => {
    const { driver, tool } = start({ idleMs: 1 })
    const { promise: closed, resolve } = Promise.withResolvers<undefined>()
    const { log } = driver
    log.push = (line) => {
      if (line === 'close a') resolve(undefined)
      return Array.prototype.push.call(log, line)
    }
    await act(tool, 'a', [LOOK])
    await closed
  })

  test('close when a call is stopped, which ends at once (S2)', async () => {
    const { driver, tool } = start()
    const { begun } = hold(driver)
    const stop = new AbortController()
    const call = act(tool, 'a', [WAIT], stop.signal)
    const waiting = act(tool, 'a', [MOVE], stop.signal)
    await begun
    stop.abort(new Error('stopped'))
    await expect(call).rejects.toThrow('stopped')
    await expect(waiting).rejects.toThrow('stopped')
    expect(driver.log).toEqual(['open a', 'a wait', 'close a'])
  })

  test('that are opened too late for their call are closed', async () => {
    const { driver, tool } = start()
    const { promise, resolve } = Promise.withResolvers<undefined>()
    driver.onOpen = () => promise
    const stop = new AbortController()
    const call = act(tool, 'a', [LOOK], stop.signal)
    stop.abort(new Error('stopped'))
    await expect(call).rejects.toThrow('stopped')
    resolve(undefined)
    await new Promise(setImmediate)
    expect(driver.log.at(-1)).toBe('close a')
  })

  test('close at the end, before the driver stops (S2)', async () => {
    const { driver, computer, tool } = start()
    await act(tool, 'a', [LOOK])
    await act(tool, 'b', [LOOK])
    await computer.release('a')
    expect(driver.log.at(-1)).toBe('close a')
    await computer.stop()
    expect(driver.log.slice(-2)).toEqual(['close b', 'stop'])
  })
})
