import type { Browser } from 'playwright-core'
import { ComputerFailure } from './driver.ts'
import { endsWithin } from './waiting.ts'

export interface BrowserOptions {
  /** Of Chromium. */
  executablePath: string
  /** Whether Chromium puts its pages into its own sandbox. `null`: unless this process is root, for whom it cannot. */
  sandbox: boolean | null
}

/** A use of the process's browser. */
export interface BrowserUse {
  browser: Browser
  /** Whether it is still there and has time for a question. One that has not is killed. */
  answers(): Promise<boolean>
  /** Ends the use, and with the last one the browser. */
  release(): Promise<void>
  /** Ends it for all who use it. */
  kill(): void
}

/** The one browser of a process: there while somebody uses it. */
export interface BrowserHolder {
  /** Starts one where there is none, or where the last one is gone. @throws {ComputerFailure} where it does not start. */
  use(): Promise<BrowserUse>
}

/** How long it may take to start, in ms. */
const START_MS = 30_000

/** How long it may take to end before it is killed, in ms. */
const END_MS = 3000

/** How long it may take to answer a question, in ms. */
const ANSWER_MS = 5000

/** Nothing is asked for that no page asked for, and what pages ask for is HTTP over a proxy, which UDP would pass by. */
const FLAGS = [
  '--headless',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-quic',
  '--force-webrtc-ip-handling-policy=disable_non_proxied_udp',
]

interface Running {
  browser: Browser
  /** Whether it is still there and has time for a question. One that has not is killed. */
  answers(): Promise<boolean>
  /** Does nothing where it is gone already. */
  kill(): void
}

interface Held {
  starting: Promise<Running>
  uses: number
}

export function createBrowserHolder(options: BrowserOptions): BrowserHolder {
  let current: Held | null = null

  const forget = (held: Held): void => {
    if (current === held) current = null
  }

  function start(): Held {
    const held: Held = { starting: launch(options), uses: 0 }
    held.starting.then(
      ({ browser }) => {
        browser.once('disconnected', () => forget(held))
        if (!browser.isConnected()) forget(held)
      },
      () => forget(held),
    )
    return held
  }

  async function release(held: Held, { browser, kill }: Running): Promise<void> {
    held.uses -= 1
    if (held.uses > 0) return
    forget(held)
    if (!(await endsWithin(browser.close(), END_MS))) kill()
  }

  async function use(): Promise<BrowserUse | null> {
    const held = (current ??= start())
    held.uses += 1
    const running = await held.starting
    if (await running.answers()) return { ...running, release: () => release(held, running) }
    forget(held)
    return null
  }

  return {
    use: async () => {
      // The first one found may be on its way out.
      const found = (await use()) ?? (await use())
      if (found === null) throw new ComputerFailure('the browser does not answer', { lost: true })
      return found
    },
  }
}

async function launch(options: BrowserOptions): Promise<Running> {
  try {
    const browser = await launchChromium(options)
    try {
      return await supervise(browser)
    } catch (error) {
      await browser.close()
      throw error
    }
  } catch (error) {
    const message = `the browser could not be started: ${firstLine(error)}`
    throw new ComputerFailure(message, { lost: true, cause: error })
  }
}

async function launchChromium({ executablePath, sandbox }: BrowserOptions): Promise<Browser> {
  // A process that uses no computer does without the package.
  const { chromium } = await import('playwright-core')
  return chromium.launch({
    executablePath,
    headless: true,
    // Without it, `--no-sandbox` is added. Chromium refuses to start with its sandbox as root.
    chromiumSandbox: sandbox ?? process.geteuid?.() !== 0,
    args: FLAGS,
    // A page opens windows where somebody clicks, as in every browser.
    ignoreDefaultArgs: ['--disable-popup-blocking'],
    // What runs pages has no business with what this process is configured with.
    env: ENVIRONMENT,
    handleSIGINT: false,
    handleSIGTERM: false,
    handleSIGHUP: false,
    timeout: START_MS,
  })
}

const ENVIRONMENT = { PATH: '/usr/local/bin:/usr/bin:/bin', HOME: '/nonexistent', LANG: 'C.UTF-8' }

async function supervise(browser: Browser): Promise<Running> {
  const session = await browser.newBrowserCDPSession()
  const { processInfo } = await session.send('SystemInfo.getProcessInfo')
  const pid = processInfo.find(({ type }) => type === 'browser')?.id
  const kill = (): void => {
    if (pid !== undefined && browser.isConnected()) killGroup(pid)
  }
  return {
    browser,
    kill,
    answers: async () => {
      const answered = await endsWithin(session.send('Browser.getVersion'), ANSWER_MS)
      if (!answered) kill()
      return answered && browser.isConnected()
    },
  }
}

/** Chromium leads a process group of its own, unless it was started by something that leads it. */
function killGroup(pid: number): void {
  for (const target of [-pid, pid])
    try {
      process.kill(target, 'SIGKILL')
    } catch {
      // It is gone already.
    }
}

/** What playwright says, without the name of its method, the address, and the log of what it did. */
export const firstLine = (error: unknown): string => {
  const message = typeof error === 'object' && error !== null && 'message' in error ? error.message : error
  const [line = ''] = String(message).split('\n')
  return line.replace(/^\w+\.\w+: /, '').replace(/ at https?:\S+$/, '')
}
