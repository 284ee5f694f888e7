import type { BrowserContext, Page } from 'playwright-core'

/** The pages of a display, of which it shows the newest. */
export interface Screen {
  /** The page that is shown; a new and empty one where there is none any more. */
  page(): Promise<Page>
  /** Where the page is that is shown. */
  address(): string
  /** Resolves once what is shown is not on its way to another address. */
  arrived(): Promise<void>
  /** The same, and has been loaded. */
  rest(): Promise<void>
  /** What happened by itself since this was asked last. */
  takeNotes(): string[]
  note(text: string): void
}

/** Pages of one display at most: windows that a page opens. */
const MAXIMUM_PAGES = 5

/** What is told of what happened. */
const MAXIMUM_NOTES = 10
const NOTE_LENGTH = 300

export function watchScreen(context: BrowserContext): Screen {
  let pages: Page[] = []
  let notes: string[] = []
  const arriving = new Map<Page, Arrival>()

  const note = (text: string): void => {
    if (notes.length < MAXIMUM_NOTES && !notes.includes(text)) notes.push(cut(text))
  }

  function watch(page: Page): void {
    pages.push(page)
    page.on('close', () => {
      pages = pages.filter((one) => one !== page)
      settle(page)
    })
    page.on('crash', () => {
      note('The page crashed and was closed.')
      drop(page)
    })
    page.on('dialog', (dialog) => {
      const leaving = dialog.type() === 'beforeunload'
      if (!leaving)
        note(`A dialog (${dialog.type()}) was dismissed, which said ${JSON.stringify(dialog.message())}.`)
      void (leaving ? dialog.accept() : dialog.dismiss()).catch(() => undefined)
    })
    page.on('download', (download) => {
      note(`A download was refused: ${download.url()}`)
      settle(page)
    })
    page.on('request', (request) => {
      if (!request.isNavigationRequest() || request.frame() !== page.mainFrame()) return
      arriving.get(page)?.done()
      arriving.set(page, beginArrival())
    })
    page.on('framenavigated', (frame) => {
      if (frame === page.mainFrame()) settle(page)
    })
    page.on('requestfailed', (request) => {
      if (request.isNavigationRequest() && request.frame() === page.mainFrame()) settle(page)
    })
    const [oldest] = pages
    if (pages.length > MAXIMUM_PAGES && oldest !== undefined) drop(oldest)
  }

  function settle(page: Page): void {
    arriving.get(page)?.done()
    arriving.delete(page)
  }

  function drop(page: Page): void {
    pages = pages.filter((one) => one !== page)
    settle(page)
    void page.close().catch(() => undefined)
  }

  context.on('page', (page) => {
    if (pages.length > 0) note('The page opened a window, which is shown now.')
    watch(page)
  })

  return {
    note,
    takeNotes: () => {
      const taken = notes
      notes = []
      return taken
    },
    address: () => pages.at(-1)?.url() ?? 'about:blank',
    page: async () => pages.at(-1) ?? (await context.newPage()),
    arrived: async () => {
      const page = pages.at(-1)
      if (page !== undefined) await arriving.get(page)?.over
    },
    rest: async () => {
      for (let page = pages.at(-1); page !== undefined; page = pages.at(-1)) {
        await arriving.get(page)?.over
        await page.waitForLoadState('load').catch(() => undefined)
        if (page === pages.at(-1) && !arriving.has(page)) return
      }
    },
  }
}

/** A page on its way to another address. */
interface Arrival {
  over: Promise<void>
  done(): void
}

function beginArrival(): Arrival {
  const { promise, resolve } = Promise.withResolvers<undefined>()
  return { over: promise, done: () => resolve(undefined) }
}

const cut = (text: string): string => (text.length > NOTE_LENGTH ? `${text.slice(0, NOTE_LENGTH)}…` : text)
