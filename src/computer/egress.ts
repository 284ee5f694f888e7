import http from 'node:http'
import net from 'node:net'
import type { Duplex } from 'node:stream'

/**
 * The only way out for a display's pages: a proxy on loopback.
 *
 * Requests are judged here rather than in the browser, where what a redirect, a WebSocket or a worker asks for passes
 * whoever intercepts requests, and where a name may lead elsewhere at the moment of the connection.
 *
 * E1 no connection is made to where `allowUrl` or `lookup` refuses.
 */
export interface Egress {
  /** For the browser, `http://127.0.0.1:<port>`. */
  url: string
  /** Cuts every connection. */
  close(): Promise<void>
}

/** Where pages may send requests. */
export interface EgressRules {
  /** Whether a request may go there. It is asked for `https://<host>:<port>/` where the rest is not to be seen. Never throws. */
  allowUrl(url: string): Promise<boolean>
  /** In place of the lookup of a socket: fails for a name that leads where nothing may go. The system's by default. */
  lookup?: net.LookupFunction
}

/** Stands on an answer that is the proxy's own, with what it says. */
export const EGRESS_HEADER = 'x-turnmill-egress'

/** What the browser asks by itself, about the fields of a page's forms. */
const ASKED_BY_NO_PAGE = 'content-autofill.googleapis.com'

/** Longest wait for a connection, in ms. */
const CONNECT_MS = 10_000

/** Headers between the browser and its proxy; those of the connection Node sets itself. */
const OWN_HEADERS = [
  'proxy-connection',
  'proxy-authorization',
  'connection',
  'keep-alive',
  'te',
  'trailer',
  'upgrade',
]

/** What both kinds of requests go through. */
interface Gate {
  /** Whether a request may go there. */
  allows(url: URL): Promise<boolean>
  /** What a connection to there is made with. */
  destination(url: URL): net.TcpNetConnectOpts
  /** Has a socket cut when the proxy closes. */
  keep<T extends Duplex>(socket: T): T
}

/** @param onRefused called with the host of a request that was refused. */
export async function startEgress(rules: EgressRules, onRefused: (host: string) => void): Promise<Egress> {
  const sockets = new Set<Duplex>()
  const gate: Gate = {
    allows: async (url) => {
      if (url.hostname === ASKED_BY_NO_PAGE) return false
      const allowed = await rules.allowUrl(url.href)
      if (!allowed) onRefused(url.host)
      return allowed
    },
    destination: (url) => ({
      ...destinationOf(url),
      ...(rules.lookup === undefined ? {} : { lookup: rules.lookup }),
      timeout: CONNECT_MS,
    }),
    keep: (socket) => {
      sockets.add(socket)
      socket.on('error', () => socket.destroy()).once('close', () => sockets.delete(socket))
      return socket
    },
  }
  const server = http.createServer((request, response) => {
    forward(gate, request, response).catch(() => response.destroy())
  })
  server.on('connection', gate.keep)
  server.on('connect', (request, browser, head) => {
    tunnel(gate, { authority: request.url ?? '', browser, head }).catch(() => browser.destroy())
  })
  server.on('clientError', (_, socket) => socket.destroy())
  const port = await listen(server)
  return {
    url: `http://127.0.0.1:${port}`,
    close: () =>
      new Promise((closed) => {
        server.close(() => closed())
        for (const socket of sockets) socket.destroy()
      }),
  }
}

async function listen(server: http.Server): Promise<number> {
  const { promise: listening, resolve, reject } = Promise.withResolvers<undefined>()
  server.once('error', reject).listen(0, '127.0.0.1', () => resolve(undefined))
  await listening
  return (server.address() as net.AddressInfo).port
}

/** A request by http, sent on under its own name. */
async function forward(
  gate: Gate,
  request: http.IncomingMessage,
  response: http.ServerResponse,
): Promise<void> {
  const url = parse(request.url ?? '')
  if (url?.protocol !== 'http:') {
    answer(response, 400, 'this is a proxy')
    return
  }
  if (!(await gate.allows(url))) {
    answer(response, 403, `${url.host} may not be reached`)
    return
  }
  if (response.destroyed) return
  const onward = http.request({
    ...gate.destination(url),
    path: `${url.pathname}${url.search}`,
    method: request.method,
    headers: { ...without(request.headers, OWN_HEADERS), host: url.host },
    agent: false,
  })
  onward.once('socket', (socket) => gate.keep(socket).once('connect', () => socket.setTimeout(0)))
  onward.once('timeout', () => onward.destroy(Object.assign(new Error('timeout'), { code: 'ETIMEDOUT' })))
  onward.once('response', (incoming) => {
    response.writeHead(incoming.statusCode ?? 502, without(incoming.headers, [...OWN_HEADERS, EGRESS_HEADER]))
    incoming.once('error', () => response.destroy()).pipe(response)
  })
  onward.once('error', (error) => {
    if (response.headersSent) response.destroy()
    else answer(response, 502, `${url.host} cannot be reached (${codeOf(error)})`)
  })
  response.once('close', () => onward.destroy())
  request.once('error', () => onward.destroy()).pipe(onward)
}

interface TunnelRequest {
  /** `<host>:<port>` */
  authority: string
  browser: Duplex
  head: Buffer
}

/** Bytes that are not ours to read: https, and WebSockets. */
async function tunnel(gate: Gate, { authority, browser, head }: TunnelRequest): Promise<void> {
  const url = parse(`https://${authority}/`)
  if (url === null || !(await gate.allows(url))) {
    browser.end('HTTP/1.1 403 Forbidden\r\n\r\n')
    return
  }
  if (browser.destroyed) return
  const onward = gate.keep(net.connect(gate.destination(url)))
  onward.once('timeout', () => onward.destroy())
  onward.once('error', () => browser.end('HTTP/1.1 502 Bad Gateway\r\n\r\n'))
  onward.once('connect', () => {
    onward.setTimeout(0)
    browser.write('HTTP/1.1 200 Connection established\r\n\r\n')
    onward.write(head)
    browser.pipe(onward).pipe(browser)
  })
  onward.once('close', () => browser.end())
  browser.once('close', () => onward.destroy())
}

const parse = (url: string): URL | null => (URL.canParse(url) ? new URL(url) : null)

const PORTS: Record<string, number> = { 'http:': 80, 'https:': 443 }

/** As the URL's parser reads the host, which is what was asked about, whatever notation the browser sent. */
const destinationOf = ({ hostname, port, protocol }: URL): { host: string; port: number } => ({
  host: hostname.replace(/^\[(.*)\]$/, '$1'),
  port: port === '' ? (PORTS[protocol] ?? 0) : Number(port),
})

const without = (headers: http.IncomingHttpHeaders, names: readonly string[]): http.OutgoingHttpHeaders =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => !names.includes(name)))

const codeOf = (error: NodeJS.ErrnoException): string => error.code ?? 'no answer'

function answer(response: http.ServerResponse, status: number, text: string): void {
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', [EGRESS_HEADER]: text }).end(text)
}
