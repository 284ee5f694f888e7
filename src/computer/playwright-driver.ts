import { setTimeout as sleep } from 'node:timers/promises'
import type { BrowserContext, CDPSession, Page } from 'playwright-core'
import type { ComputerAction } from '../protocol/computer.ts'
import { createBrowserHolder, firstLine, type BrowserOptions, type BrowserUse } from './browser.ts'
import { ComputerFailure, type ComputerDriver, type ComputerSession, type DisplaySize } from './driver.ts'
import { EGRESS_HEADER, startEgress, type Egress, type EgressRules } from './egress.ts'
import { isPageAddress } from './input.ts'
import { performOn } from './perform.ts'
import { watchScreen, type Screen } from './screen.ts'
import { endsWithin, pause, untilAborted, within } from './waiting.ts'

export interface PlaywrightDriverOptions extends BrowserOptions {
  size: DisplaySize
  rules: EgressRules
  times?: Partial<ComputerTimes>
}

/** How long things may take, in ms. */
export interface ComputerTimes {
  /** One action. */
  action: number
  /** Until a page that was opened is there. */
  navigation: number
  screenshot: number
  /** What a page is given to react before it is looked at. */
  pause: number
  /** And then, to load what it is loading. */
  rest: number
}

const TIMES: ComputerTimes = {
  action: 10_000,
  navigation: 30_000,
  screenshot: 10_000,
  pause: 250,
  rest: 5000,
}

/** What Chromium says of a page that has no picture yet, or is just giving way to another one, and how often it is asked for one. */
const NOTHING_DRAWN = /Unable to capture screenshot|Not attached to an active page/
const CAPTURES = 5

/** How long a display may take to close before its browser is asked whether it is frozen, in ms. */
const CLOSE_MS = 3000

/** Displays that are pages of one headless Chromium per process, each in a profile of its own. It runs while one is open. */
export function createPlaywrightDriver(options: PlaywrightDriverOptions): ComputerDriver {
  const holder = createBrowserHolder(options)
  const sessions = new Set<ComputerSession>()
  const opening = new Set<Promise<ComputerSession>>()
  let stopped = false

  async function open(): Promise<ComputerSession> {
    const use = await holder.use()
    try {
      const session = await openSession(use, { ...options, isStopping: () => stopped })
      sessions.add(session)
      return {
        ...session,
        close: async () => {
          await session.close()
          sessions.delete(session)
        },
      }
    } catch (error) {
      await use.release()
      if (error instanceof ComputerFailure) throw error
      throw new ComputerFailure(`the browser gave no page: ${firstLine(error)}`, { lost: true, cause: error })
    }
  }

  return {
    size: options.size,
    open: async () => {
      if (stopped) throw new ComputerFailure('this worker is stopping', { lost: true })
      const session = open()
      opening.add(session)
      try {
        return await session
      } finally {
        opening.delete(session)
      }
    },
    stop: async () => {
      stopped = true
      await Promise.allSettled(opening)
      await Promise.all([...sessions].map((session) => session.close()))
    },
  }
}

async function openSession(use: BrowserUse, options: SessionOptions): Promise<ComputerSession> {
  let screen: Screen | null = null
  const egress = await startEgress(options.rules, (host) =>
    screen?.note(`A request to ${host} was refused: pages may not reach it.`),
  )
  try {
    const context = await use.browser.newContext({
      viewport: options.size,
      // Loopback goes through it as well: playwright sees to that.
      proxy: { server: egress.url },
      acceptDownloads: false,
      serviceWorkers: 'block',
      locale: 'en-US',
      timezoneId: 'UTC',
    })
    screen = watchScreen(context)
    return createSession({ use, egress, context, screen, options })
  } catch (error) {
    await egress.close()
    throw error
  }
}

interface SessionOptions extends PlaywrightDriverOptions {
  /** Whether all displays of the process are closed, for good. */
  isStopping(): boolean
}

interface SessionParts {
  use: BrowserUse
  egress: Egress
  context: BrowserContext
  screen: Screen
  options: SessionOptions
}

function createSession({ use, egress, context, screen, options }: SessionParts): ComputerSession {
  const times = { ...TIMES, ...options.times }
  const cameras = new Map<Page, Promise<CDPSession>>()
  let touchedAt = -Infinity
  let closing: Promise<void> | null = null
  const isOpen = (): boolean => closing === null && use.browser.isConnected()

  /** Runs what playwright does, and says in words for the model how it failed. */
  async function attempt<T>(work: () => Promise<T>, limits: { ms: number; signal: AbortSignal }): Promise<T> {
    const seconds = Math.ceil(limits.ms / 1000)
    try {
      return await within(work(), { ...limits, otherwise: `the page did not react within ${seconds} s` })
    } catch (error) {
      limits.signal.throwIfAborted()
      if (!isOpen())
        throw new ComputerFailure('the browser crashed, and the page that was open is lost', {
          lost: true,
          cause: error,
        })
      if (error instanceof ComputerFailure) throw error
      throw new ComputerFailure(firstLine(error), { cause: error })
    } finally {
      touchedAt = performance.now()
    }
  }

  /** For `rest` at most: a page that never ends loading is taken as it is. */
  const patiently = (waiting: Promise<void>, signal: AbortSignal): Promise<boolean> =>
    untilAborted(endsWithin(waiting, times.rest), signal)

  async function capture(): Promise<Uint8Array> {
    const page = await screen.page()
    const camera = await (cameras.get(page) ?? openCamera(page))
    const { data } = await camera.send('Page.captureScreenshot', { format: 'png', optimizeForSpeed: true })
    return Buffer.from(data, 'base64')
  }

  // Playwright's own screenshots wait for fonts, and prepare the page for tests.
  function openCamera(page: Page): Promise<CDPSession> {
    const camera = context.newCDPSession(page)
    cameras.set(page, camera)
    page.once('close', () => cameras.delete(page))
    return camera
  }

  async function perform(action: ComputerAction, signal: AbortSignal): Promise<void> {
    if (action.type === 'screenshot') return
    if (action.type === 'wait') return pause(action.ms, signal)
    await patiently(screen.arrived(), signal)
    await attempt(async () => performOn(await screen.page(), action), { ms: times.action, signal })
  }

  async function goto(url: string, signal: AbortSignal): Promise<void> {
    if (!isPageAddress(url) || !(await options.rules.allowUrl(url)))
      throw new ComputerFailure(`the page ${url} may not be reached`)
    try {
      await attempt(() => load(url), { ms: times.navigation, signal })
    } catch (error) {
      if (error instanceof ComputerFailure && !error.lost)
        throw new ComputerFailure(`the page ${url} could not be opened: ${error.message}`, { cause: error })
      throw error
    }
  }

  async function load(url: string): Promise<void> {
    const page = await screen.page()
    const response = await page.goto(url, { waitUntil: 'commit', timeout: 0 })
    const refusal = response?.headers()[EGRESS_HEADER]
    if (refusal !== undefined) throw new ComputerFailure(refusal)
  }

  async function screenshot(signal: AbortSignal): Promise<Uint8Array> {
    await pause(Math.max(0, touchedAt + times.pause - performance.now()), signal)
    await patiently(screen.rest(), signal)
    return attempt(captureOnceDrawn, { ms: times.screenshot, signal })
  }

  /** A page that was opened just now, or could not be, may have drawn nothing yet. */
  async function captureOnceDrawn(): Promise<Uint8Array> {
    for (let tries = 1; ; tries++) {
      try {
        return await capture()
      } catch (error) {
        if (tries === CAPTURES || !isOpen() || !NOTHING_DRAWN.test(String(error))) throw error
        await sleep(times.pause)
      }
    }
  }

  async function end(): Promise<void> {
    if (!(await endsWithin(context.close(), CLOSE_MS))) {
      // One that is only slow is everybody's: it is killed where it does not answer either, or nobody needs it any more.
      if (options.isStopping()) use.kill()
      else await use.answers()
    }
    await egress.close()
    await use.release()
  }

  return {
    perform,
    goto,
    screenshot,
    isAlive: async () => isOpen() && (await use.answers()),
    address: screen.address,
    takeNotes: screen.takeNotes,
    close: () => (closing ??= end()),
  }
}
