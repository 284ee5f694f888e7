/** The tools that come with Turnmill. */
import { once } from 'node:events'
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createProviderFetch } from '../../src/models/index.ts'
import { createBuiltinTools, type Tool } from '../../src/tools/index.ts'
import { run } from '../support/tools.ts'

const fetchAnything = createProviderFetch({ allowPrivate: true })
const NOW = Date.UTC(2026, 10, 25, 23, 30, 5)

const toolNamed = (name: string, fetch = fetchAnything): Tool | undefined =>
  createBuiltinTools({ fetch, now: () => NOW }).find(({ definition }) => definition.name === name)

test('the built-in tools can be chosen, change nothing and may be called again', () => {
  const options = { fetch: fetchAnything, now: () => NOW }
  expect(createBuiltinTools({ ...options, names: [] })).toEqual([])
  const tools = createBuiltinTools(options)
  expect(tools.map(({ definition }) => definition.name)).toEqual(['current_time', 'calculator', 'web_fetch'])
  expect(tools.every(({ readOnly, idempotent }) => readOnly && idempotent)).toBe(true)
})

describe('current_time', () => {
  test.each([
    [{}, { timezone: 'UTC', local: '2026-11-25T23:30:05+00:00', weekday: 'Wednesday' }],
    [{ timezone: 'Asia/Kolkata' }, { local: '2026-11-26T05:00:05+05:30', weekday: 'Thursday' }],
    [{ timezone: 'America/New_York' }, { local: '2026-11-25T18:30:05-05:00', weekday: 'Wednesday' }],
  ])('of %j is the time there', async (input, output) => {
    expect(await run(toolNamed('current_time'), input)).toMatchObject({
      isError: false,
      output: { utc: '2026-11-25T23:30:05.000Z', ...output },
    })
  })

  test.each(['Atlantis/Centre', '+01:00', '', '../etc'])('of %j is refused', async (timezone) => {
    expect(await run(toolNamed('current_time'), { timezone })).toMatchObject({
      isError: true,
      output: expect.stringContaining('expected an IANA time zone'),
    })
  })
})

describe('calculator', () => {
  test.each([
    ['1 + 2 * 3', 7],
    ['-2^2', -4],
    ['(-2)^2', 4],
    ['2^3^2', 512],
    ['2**-1', 0.5],
    ['10 - 4 - 3', 3],
    ['5 % 3 * 2', 4],
    ['0.1 + 0.2', 0.3],
    ['.5e1*2.', 10],
    ['2 * -3', -6],
    ['MAX(1, sqrt(16), 3)', 4],
    ['round(2.345, 2)', 2.35],
    ['log(8, 2) + ln(e) + cos(pi)', 3],
  ])('works out %s', async (expression, output) => {
    expect(await run(toolNamed('calculator'), { expression })).toMatchObject({ isError: false, output })
  })

  test.each([
    ['1 / 0', 'not a finite number'],
    ['1 2', 'there is "2" at 3, where an operator was expected'],
    ['(1', 'ends where ")" was expected'],
    ['sqrt(1, 2)', 'sqrt takes 1 values, not 2'],
    ['constructor', 'there is "constructor" at 1'],
    ['__proto__', 'there is "__proto__" at 1'],
    ['process.exit()', 'which is no arithmetic'],
    ['1; 2', 'which is no arithmetic'],
    ['('.repeat(900), 'nested deeper than 200 levels'],
    ['9'.repeat(1001), 'expression: '],
    [' ', 'the expression ends'],
  ])('refuses %s', async (expression, output) => {
    expect(await run(toolNamed('calculator'), { expression })).toMatchObject({
      isError: true,
      output: expect.stringContaining(output),
    })
  })
})

describe('web_fetch', () => {
  let server: Server
  let address: string
  let answer: RequestListener
  const paths: string[] = []
  beforeAll(async () => {
    server = createServer((request, response) => {
      paths.push(request.url ?? '')
      answer(request, response)
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  })
  afterAll(() => {
    server.close()
    server.closeAllConnections()
  })
  beforeEach(() => void paths.splice(0))

  const sends =
    (body: string | Buffer, type = 'text/html; charset=utf-8', status = 200): RequestListener =>
    (_, response) =>
      response.writeHead(status, { 'content-type': type }).end(body)
  const fetchPage = (path = '/page', more: object = {}, fetch = fetchAnything) =>
    run(toolNamed('web_fetch', fetch), { url: address + path, ...more })

  test('gives the text of a page', async () => {
    answer = sends(
      '<html><head><title>Mills &amp; turns</title><style>p{}</style></head><body><nav>menu</nav><h1>Mills</h1>' +
        '<script>alert(1)</script><p>They <a href="/turn">turn</a>.</p><table><tr><td>a</td><td>b</td></tr></table></body></html>',
    )
    expect(await fetchPage()).toEqual({
      isError: false,
      images: [],
      output: {
        url: `${address}/page`,
        status: 200,
        title: 'Mills & turns',
        text: `Mills\n\nThey turn [${address}/turn].\n\na   b`,
        truncated: false,
      },
    })
  })

  test('gives other text as it is, in its charset, as much as is wanted', async () => {
    answer = sends(Buffer.from('M\xfchle '.repeat(100), 'latin1'), 'text/plain; charset=iso-8859-1')
    expect(await fetchPage('/page', { maxCharacters: 100 })).toMatchObject({
      output: { text: 'Mühle '.repeat(17).slice(0, 100), truncated: true },
    })
    answer = sends('{"a": 1}', 'application/ld+json')
    expect(await fetchPage()).toMatchObject({ output: { text: '{"a": 1}', truncated: false } })
  })

  test('says what a page that is not there says', async () => {
    answer = sends('no such mill', 'text/plain', 404)
    expect(await fetchPage()).toMatchObject({ isError: true, output: { status: 404, text: 'no such mill' } })
  })

  test('reads a megabyte, and lets go of the rest', async () => {
    const closed = Promise.withResolvers<undefined>()
    answer = (_, response) => {
      response.writeHead(200, { 'content-type': 'text/plain' })
      const flood = (): void => void response.write('x'.repeat(65_536), (error) => error ?? flood())
      response.once('close', () => closed.resolve(undefined))
      flood()
    }
    const { output } = await fetchPage('/page', { maxCharacters: 200_000 })
    expect(output).toMatchObject({ truncated: true, text: 'x'.repeat(200_000) })
    await closed.promise
  })

  test('does not let a page keep it busy', async () => {
    answer = sends('<div>'.repeat(200_000))
    expect(await fetchPage()).toMatchObject({
      isError: true,
      output: 'the page is no HTML that can be read as text',
    })
  })

  test.each([
    ['application/pdf', '%PDF', 'is application/pdf, which is no text'],
    ['image/png', 'x', 'is image/png, which is no text'],
    ['text/plain', 'a\u0000b', 'says it is text/plain, and is no text'],
  ])('refuses %s', async (type, body, output) => {
    answer = sends(body, type)
    expect(await fetchPage()).toMatchObject({ isError: true, output: expect.stringContaining(output) })
  })

  const redirects =
    (to: (path: string) => string | null): RequestListener =>
    (request, response) => {
      const location = to(request.url ?? '')
      if (location === null) sends('there', 'text/plain')(request, response)
      else response.writeHead(302, { location }).end()
    }

  test('follows five redirects, and no more', async () => {
    answer = redirects((path) => (path === '/0' ? null : `/${Number(path.slice(1)) - 1}`))
    expect(await fetchPage('/5')).toMatchObject({ output: { url: `${address}/0`, text: 'there' } })
    expect(await fetchPage('/6')).toMatchObject({
      isError: true,
      output: `${address}/6 redirects more than 5 times`,
    })
    expect(paths).toHaveLength(12)
  })

  test('asks of each redirect whether it may be followed', async () => {
    answer = redirects(() => 'https://169.254.169.254/latest/meta-data')
    const guarded = createProviderFetch({ allowPrivate: false })
    const mixed = (url: string, init?: RequestInit) =>
      url.startsWith(address) ? fetchAnything(url, init) : guarded(url, init)
    expect(await fetchPage('/page', {}, mixed)).toMatchObject({
      isError: true,
      output: 'https://169.254.169.254/latest/meta-data is not fetched: only https at a public address is',
    })
    answer = redirects(() => 'file:///etc/passwd')
    expect(await fetchPage()).toMatchObject({
      isError: true,
      output: expect.stringContaining('file: cannot be'),
    })
  })

  test.each([
    ['http://127.0.0.1/', 'only https at a public address is'],
    ['https://localhost/', 'only https at a public address is'],
    ['https://[::1]/', 'only https at a public address is'],
    ['ftp://example.com/', 'ftp: cannot be fetched, expected http or https'],
    ['https://me:secret@example.com/', 'with a user and a password is not fetched'],
    ['nonsense', '"nonsense" is no URL'],
  ])('does not fetch %s', async (url, output) => {
    const tool = toolNamed('web_fetch', createProviderFetch({ allowPrivate: false }))
    const outcome = await run(tool, { url })
    expect(outcome).toMatchObject({ isError: true, output: expect.stringContaining(output) })
    expect(JSON.stringify(outcome)).not.toContain('leads to')
  })

  test('lets go of a page when it is stopped', async () => {
    const stop = new AbortController()
    const closed = Promise.withResolvers<undefined>()
    answer = (_, response) => {
      response.writeHead(200, { 'content-type': 'text/plain' }).write('begun')
      response.once('close', () => closed.resolve(undefined))
      stop.abort(new Error('stopped'))
    }
    await expect(run(toolNamed('web_fetch'), { url: address }, stop.signal)).rejects.toThrow('stopped')
    await closed.promise
  })
})
