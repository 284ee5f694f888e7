import { EventEmitter, once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'

/** A page to be used as a person would, which tells its server what was done to it. */
export interface ComputerPage {
  url: string
  /** `127.0.0.1:<port>`. */
  host: string
  /** What was done so far, in order, such as `clicked 1`. */
  readonly told: readonly string[]
  /** Resolves once the page has told this. */
  saw(what: string): Promise<void>
  /** The paths that were asked for, in order. */
  readonly requests: readonly string[]
  /** How often its server was connected to. */
  readonly connections: number
  /** Forgets what was told and asked for. */
  forget(): void
  stop(): Promise<void>
}

/** Where things are on the page, in pixels, and on a display of 640 × 400 or more. */
export const SPOTS = {
  /** Tells `clicked <times>`; a double click also `double`, the right button `right`. */
  button: { x: 100, y: 90 },
  /** A text field: tells `typed <text>` on Enter. */
  field: { x: 320, y: 90 },
  /** Goes to `/second`. */
  link: { x: 500, y: 90 },
  /** Opens `/second` in a window. */
  window: { x: 100, y: 150 },
  /** Asks a question, and tells `answered <true or false>`. */
  question: { x: 250, y: 150 },
  /** Keeps the page busy for ever. */
  hang: { x: 400, y: 150 },
  /** A file to download. */
  download: { x: 530, y: 150 },
  /** Tells `dragged <dx> <dy>` when something is dragged from here. */
  handle: { x: 100, y: 220 },
  /** Scrolls: tells `scrolled` when it has reached its end. */
  list: { x: 320, y: 260 },
} as const

export async function serveComputerPage(
  pages: Record<string, (response: http.ServerResponse) => void> = {},
): Promise<ComputerPage> {
  let told: string[] = []
  let requests: string[] = []
  let connections = 0
  const news = new EventEmitter().setMaxListeners(0)
  const server = http.createServer((request, response) => {
    const url = new URL(request.url ?? '/', 'http://page')
    if (url.pathname === '/favicon.ico') {
      response.writeHead(404).end()
      return
    }
    if (url.pathname === '/told') {
      told.push(url.searchParams.get('what') ?? '')
      news.emit('told')
      response.writeHead(204).end()
      return
    }
    requests.push(url.pathname)
    const page = pages[url.pathname] ?? PAGES[url.pathname]
    if (page === undefined) response.writeHead(404).end('nothing here')
    else page(response)
  })
  server.on('connection', () => (connections += 1))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    url: `http://${host}/`,
    host,
    get told() {
      return told
    },
    get requests() {
      return requests
    },
    saw: async (what) => {
      while (!told.includes(what)) await once(news, 'told')
    },
    get connections() {
      return connections
    },
    forget: () => {
      told = []
      requests = []
      connections = 0
    },
    stop: async () => {
      const closed = new Promise((resolve) => server.close(resolve))
      server.closeAllConnections()
      await closed
    },
  }
}

/** For a page that is served. */
export const html =
  (body: string) =>
  (response: http.ServerResponse): void =>
    void response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(body)

/** In the middle of its spot. */
const at = ({ x, y }: { x: number; y: number }, width = 100, height = 30): string =>
  `style="position: absolute; left: ${x - width / 2}px; top: ${y - height / 2}px; width: ${width}px; height: ${height}px; box-sizing: border-box"`

const FIRST = `<!doctype html>
<title>Turnmill test page</title>
<body style="font: 16px sans-serif; margin: 20px; background: #f4f1ea">
<h1 style="margin: 0">A page to click through</h1>
<button id="button" ${at(SPOTS.button)}>Clicked 0</button>
<input id="field" ${at(SPOTS.field, 180)} placeholder="Type here">
<a id="link" href="/second" ${at(SPOTS.link)}>Second page</a>
<button id="window" ${at(SPOTS.window)}>Window</button>
<button id="question" ${at(SPOTS.question)}>Question</button>
<button id="hang" ${at(SPOTS.hang)}>Hang</button>
<a href="/file" ${at(SPOTS.download)}>Download</a>
<div id="handle" ${at(SPOTS.handle, 60, 60).replace('"position', '"background: #6b8f71; position')}></div>
<div id="list" ${at(SPOTS.list, 180, 100).replace('"position', '"overflow: auto; border: 1px solid; position')}>
  ${Array.from({ length: 40 }, (_, index) => `Line ${index + 1}`).join('<br>')}
</div>
<script>
  const tell = (what) => fetch('/told?what=' + encodeURIComponent(what), { method: 'POST' })
  const on = (id, event, listener) => document.getElementById(id).addEventListener(event, listener)
  let clicks = 0
  on('button', 'click', (event) => {
    event.target.textContent = 'Clicked ' + ++clicks
    tell('clicked ' + clicks)
  })
  on('button', 'dblclick', () => tell('double'))
  on('button', 'contextmenu', (event) => { event.preventDefault(); tell('right') })
  on('field', 'keydown', (event) => { if (event.key === 'Enter') tell('typed ' + event.target.value) })
  on('window', 'click', () => window.open('/second'))
  on('question', 'click', () => tell('answered ' + confirm('Are you sure?')))
  on('hang', 'click', () => { for (;;); })
  let start = null
  on('handle', 'mousedown', (event) => { start = { x: event.clientX, y: event.clientY } })
  addEventListener('mouseup', (event) => {
    if (start !== null) tell('dragged ' + (event.clientX - start.x) + ' ' + (event.clientY - start.y))
    start = null
  })
  on('list', 'scroll', ({ target }) => {
    if (target.scrollTop + target.clientHeight >= target.scrollHeight - 1) tell('scrolled')
  })
</script>`

const PAGES: Record<string, (response: http.ServerResponse) => void> = {
  '/': html(FIRST),
  '/second': html(
    `<!doctype html><title>Second page</title><h1>The second page</h1><script>fetch('/told?what=second')</script>`,
  ),
  '/file': (response) =>
    void response
      .writeHead(200, {
        'content-type': 'application/octet-stream',
        'content-disposition': 'attachment; filename="file.bin"',
      })
      .end('bytes'),
}
