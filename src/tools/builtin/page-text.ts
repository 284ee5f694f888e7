import { Worker } from 'node:worker_threads'

/** What a page says. */
export interface PageText {
  title: string
  text: string
}

/** How long a page may take to be read, in ms. A page of a megabyte takes a quarter of a second. */
const LIMIT_MS = 5000
const MEMORY_MB = 256

/** Beside this file, in the form this file is in: TypeScript from a clone, JavaScript from a package. */
const THREAD = new URL(
  import.meta.url.endsWith('.ts') ? './page-thread.ts' : './page-thread.js',
  import.meta.url,
)

/** How many pages are read at once. */
const THREADS = 4

/**
 * @param url where the page is from: links in it are told in full.
 * @throws {Error} where it could not be read within `LIMIT_MS`; the signal's reason where that aborted.
 */
export type ReadPage = (html: string, url: string, signal: AbortSignal) => Promise<PageText>

/** Reads pages, a few at a time; the others wait. */
export function createPageReader(): ReadPage {
  let free = THREADS
  const waiting: (() => void)[] = []
  const enter = (): Promise<void> => {
    if (free === 0) return new Promise((resolve) => waiting.push(resolve))
    free -= 1
    return Promise.resolve()
  }
  const leave = (): void => {
    const next = waiting.shift()
    if (next === undefined) free += 1
    else next()
  }
  return async (html, url, signal) => {
    await enter()
    try {
      return await readPage(html, url, signal)
    } finally {
      leave()
    }
  }
}

/**
 * The text of an HTML page. It is read in a thread: elements within elements by the hundred thousand keep a parser busy
 * for many seconds, and a worker's other turns must not wait for that.
 */
async function readPage(html: string, url: string, signal: AbortSignal): Promise<PageText> {
  signal.throwIfAborted()
  const thread = new Worker(THREAD, {
    workerData: { html, url },
    env: {},
    resourceLimits: { maxOldGenerationSizeMb: MEMORY_MB },
  })
  const { promise, resolve, reject } = Promise.withResolvers<PageText>()
  const onAbort = (): void => reject(signal.reason as Error)
  signal.addEventListener('abort', onAbort, { once: true })
  const timer = setTimeout(() => reject(unreadable()), LIMIT_MS)
  thread.once('message', resolve)
  thread.once('error', () => reject(unreadable()))
  thread.once('exit', () => reject(unreadable()))
  try {
    return await promise
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', onAbort)
    await thread.terminate()
  }
}

const unreadable = (): Error => new Error('the page is no HTML that can be read as text')
