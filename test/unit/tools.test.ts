/** Tools: how they are defined, what a call of one comes to (R1, R2), and which of them a turn is given (T1). */
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { z } from 'zod'
import { sniffImage } from '../../src/protocol/images.ts'
import { createLogger } from '../../src/telemetry/logger.ts'
import {
  createToolSource,
  defineTool,
  loadToolModule,
  noTools,
  runTool,
  toolOutcome,
  type Tool,
  type ToolSpec,
} from '../../src/tools/index.ts'
import { LIMITS, PNG, run, toolContext } from '../support/tools.ts'

const logger = createLogger({ level: 'silent', role: 'test' })
const inputSchema = z.object({ town: z.string(), days: z.number().default(1) })

/** A tool that does this. */
const doing = (execute: () => unknown, more: Partial<ToolSpec<typeof inputSchema>> = {}): Tool =>
  defineTool({ name: 'weather', description: 'The weather.', inputSchema, execute, ...more })

const call = (execute: () => unknown) => run(doing(execute), { town: 'Bern' })

describe('a tool', () => {
  test('is told to models by the JSON Schema of its zod schema', () => {
    expect(doing(() => 1).definition).toEqual({
      kind: 'function',
      name: 'weather',
      description: 'The weather.',
      inputSchema: {
        type: 'object',
        properties: { town: { type: 'string' }, days: { type: 'number', default: 1 } },
        required: ['town'],
      },
    })
  })

  test('is given what its zod schema makes of the input', async () => {
    const tool = defineTool({
      name: 'echo',
      description: 'x',
      inputSchema,
      execute: (input) => ({ town: input.town.toUpperCase(), days: input.days + 1 }),
    })
    expect(await run(tool, { town: 'Bern' })).toMatchObject({ output: { town: 'BERN', days: 2 } })
  })

  test('takes a JSON Schema as well, and names the field that does not fit', async () => {
    const tool = defineTool({
      name: 'echo',
      description: 'x',
      inputSchema: {
        $schema: 'http://json-schema.org/draft-07/schema#',
        type: 'object',
        properties: { at: { type: 'object', properties: { x: { type: 'number' } }, required: ['x'] } },
        required: ['at'],
      },
      execute: (input) => input['at'],
    })
    expect(tool.definition).not.toHaveProperty('inputSchema.$schema')
    expect(tool.check({ at: { x: 1 } })).toBeNull()
    expect(tool.check({ at: { x: 'a' } })).toBe('input/at/x must be number')
    expect(await run(tool, {})).toEqual({
      output: "the input does not fit: input must have required property 'at'",
      isError: true,
      images: [],
    })
    expect(await run(tool, { at: { x: 1 } })).toEqual({ output: { x: 1 }, isError: false, images: [] })
  })

  test('names every field of a zod schema that does not fit', () => {
    expect(doing(() => 1).check({ days: 'x' })).toMatch(/^town: .*; days: /)
    expect(doing(() => 1).check(null)).toMatch(/expected object/)
  })

  test('may be made again where it only reads, unless it says otherwise', () => {
    expect(doing(() => 1)).toMatchObject({ idempotent: false, readOnly: false, timeoutMs: 60_000 })
    expect(doing(() => 1, { readOnly: true })).toMatchObject({ idempotent: true, readOnly: true })
    expect(doing(() => 1, { readOnly: true, idempotent: false })).toMatchObject({ idempotent: false })
  })

  test('asks for an approval by its input, and rather once too often', () => {
    const needsApproval = ({ days }: { days: number }): boolean => {
      if (days === 13) throw new Error('I do not know')
      return days > 5
    }
    const tool = doing(() => 1, { needsApproval })
    const asks = (input: unknown): boolean => tool.needsApproval(input)
    expect([{ town: 'x' }, { town: 'x', days: 6 }, { town: 'x', days: 13 }, {}].map(asks)).toEqual([
      false,
      true,
      true,
      false,
    ])
    expect(doing(() => 1, { needsApproval: true }).needsApproval({})).toBe(true)
  })

  const good = { name: 'x', description: 'x', inputSchema: { type: 'object' }, execute: () => 1 }
  test.each<[string, object, string]>([
    ['a name of other letters', { name: 'a.b' }, 'a tool is named "a.b"'],
    ['a name that is too long', { name: 'a'.repeat(65) }, 'a tool is named'],
    ['no description', { description: ' ' }, 'tool x: description is not a text'],
    ['nothing to do', { execute: undefined }, 'tool x: execute is not a function'],
    ['no time', { timeoutMs: 0 }, 'tool x: timeoutMs is not'],
    ['a flag that is none', { idempotent: 'yes' }, 'tool x: idempotent is not true or false'],
    ['no schema', { inputSchema: undefined }, 'tool x: inputSchema is no schema'],
    ['a schema of something else', { inputSchema: z.string() }, 'is of type "string", expected "object"'],
    [
      'a choice at its root',
      { inputSchema: { type: 'object', anyOf: [] } },
      'has "anyOf" at its root, which providers do not take',
    ],
    ['a choice of zod', { inputSchema: z.union([z.object({}), z.object({ a: z.string() })]) }, 'is of type'],
    ['what JSON cannot say', { inputSchema: z.object({ at: z.date() }) }, 'has no form in JSON Schema'],
    [
      'a schema that is none',
      { inputSchema: { type: 'object', properties: { a: { type: 'wood' } } } },
      'is none',
    ],
    [
      'a reference to elsewhere',
      { inputSchema: { type: 'object', properties: { a: { $ref: 'https://example.com/a' } } } },
      'refers to "https://example.com/a", which is not in it',
    ],
    [
      'a reference to nothing',
      { inputSchema: { type: 'object', properties: { a: { $ref: '#/$defs/a' } } } },
      'refers to "#/$defs/a"',
    ],
    ['a field that providers refuse', { inputSchema: z.object({ 'a b': z.string() }) }, 'has a field "a b"'],
    ['a schema of zod 3', { inputSchema: { _def: {} } }, 'is of zod 3'],
  ])('with %s is refused when it is defined', (_, change, message) => {
    const define = () => defineTool({ ...good, ...change })
    expect(define).toThrow(TypeError)
    expect(define).toThrow(message)
  })

  test('may refer to parts of its schema, and to itself', () => {
    const node = z.object({
      name: z.string(),
      get children() {
        return z.array(node)
      },
    })
    const tool = defineTool({ ...good, inputSchema: node })
    expect(tool.check({ name: 'a', children: [{ name: 'b', children: [] }] })).toBeNull()
  })

  test('whose schema throws fails its calls, not its turn', async () => {
    const broken = z.object({}).refine(async () => true)
    const tool = defineTool({ ...good, inputSchema: broken })
    expect(await run(tool)).toMatchObject({
      isError: true,
      output: expect.stringContaining('not be checked'),
    })
  })
})

describe('a call of a tool', () => {
  const trap = {
    get message(): string {
      throw new Error('no')
    },
  }
  const trapped = { images: [trap, { get bytes(): never { throw new Error('no') } }] } // prettier-ignore
  const cycle: Record<string, unknown> = {}
  cycle['self'] = cycle
  let deep: unknown = 1
  for (let depth = 0; depth < 100_000; depth++) deep = [deep]

  test.each<[string, () => unknown, unknown]>([
    ['nothing', () => undefined, null],
    ['a function', () => () => 1, null],
    ['a BigInt', () => ({ big: 12n ** 20n }), { big: '3833759992447475122176' }],
    ['text that Postgres cannot hold', () => 'a\u0000b\ud800', 'a\ufffdb\ufffd'],
    ['fields that Postgres cannot hold', () => ({ 'a\u0000': ['\udc00'] }), { 'a\ufffd': ['\ufffd'] }],
    ['a date', () => new Date(0), '1970-01-01T00:00:00.000Z'],
    ['a promise', async () => ({ ok: true }), { ok: true }],
    ['a number that JSON does not have', () => NaN, null],
  ])('that answers with %s is kept as JSON', async (_, execute, output) => {
    expect(await call(execute)).toEqual({ output, isError: false, images: [] })
  })

  test.each<[string, () => unknown, string]>([
    ['a cycle', () => cycle, 'the tool ran, but its output cannot be told: Converting circular structure'],
    ['depth without end', () => deep, 'the tool ran, but its output cannot be told: '],
    [
      'something that cannot be told',
      () => ({ toJSON: () => { throw new Error('no') } }), // prettier-ignore
      'the tool ran, but its output cannot be told: no',
    ],
    ['a trap', () => Object.assign(toolOutcome({ output: 1 }), trapped), 'its output cannot be told: no'],
  ])('that answers with %s is told so', async (_, execute, output) => {
    expect(await call(execute)).toMatchObject({ isError: true, output: expect.stringContaining(output) })
  })

  const throwing = (thrown: unknown): void => AbortSignal.abort(thrown).throwIfAborted()
  test.each<[string, () => unknown, string]>([
    ['an error', () => throwing(new Error('no town of that name')), 'no town of that name'],
    ['later', () => Promise.reject(new Error('later')), 'later'],
    ['a text', () => throwing('text'), 'text'],
    ['null', () => throwing(null), 'null'],
    ['a trap', () => throwing(trap), 'something that has no text'],
  ])('that throws %s gives its message and no more', async (_, execute, output) => {
    expect(await call(execute)).toEqual({ output, isError: true, images: [] })
  })

  test('that throws a book gives its beginning', async () => {
    const { output } = await call(() => Promise.reject(new Error('x'.repeat(1_000_000))))
    expect(output).toHaveLength(2000)
  })

  test('that answers with megabytes is cut, with a note of what is missing', async () => {
    const text = await call(() => 'ä'.repeat(1_000_000))
    expect(text.output).toMatch(/^ä+\n\[1737856 of 2000000 bytes were left out\]$/)
    const json = await call(() => Array.from({ length: 100_000 }, (_, index) => ({ index })))
    expect(json.output).toMatch(/^\[\{"index":0\},.*\n\[\d+ of \d+ bytes were left out\]$/s)
    expect(Buffer.byteLength(String(json.output))).toBeLessThan(LIMITS.outputBytes + 100)
    const replaced = await call(() => '\0'.repeat(200_000))
    expect(Buffer.byteLength(String(replaced.output))).toBeLessThan(LIMITS.outputBytes + 100)
  })

  test('shows images that are images, whatever they are said to be', async () => {
    const image = (bytes: Uint8Array) => ({ mediaType: 'image/jpeg' as const, bytes })
    const images = [PNG, Buffer.from('<svg/>'), PNG.subarray(0, -1), Buffer.alloc(10 * 1024 * 1024 + 1)].map(
      image,
    )
    const outcome = await call(() => toolOutcome({ output: 'seen', images }))
    expect(outcome.images).toEqual([{ mediaType: 'image/png', bytes: new Uint8Array(PNG) }])
    expect(outcome.output).toBe(
      'seen\n[an image was left out: it is no PNG, JPEG, GIF or WebP]\n[an image was left out: it is cut off]\n' +
        '[an image was left out: it has 10485761 bytes, expected at most 10485760]',
    )
    const many = await call(() => toolOutcome({ output: { a: 1 }, images: Array(12).fill(image(PNG)) }))
    expect(many.images).toHaveLength(10)
    expect(many.output).toEqual({
      output: { a: 1 },
      notes: Array(2).fill('[an image was left out: there are more than 10]'),
    })
  })

  test('may say itself that it failed', async () => {
    expect(await call(() => toolOutcome({ output: { code: 7 }, isError: true }))).toEqual({
      output: { code: 7 },
      isError: true,
      images: [],
    })
  })

  test('of a tool that nobody defined is kept, too', async () => {
    const odd = { ...doing(() => 1), execute: async () => 'just text' } as unknown as Tool
    expect(await run(odd, { town: 'x' })).toEqual({ output: 'just text', isError: false, images: [] })
    const sync = { ...odd, execute: () => { throw new Error('at once') } } // prettier-ignore
    expect(await run(sync, { town: 'x' })).toMatchObject({ isError: true, output: 'at once' })
  })

  test('that hangs ends in time, and its tool is told (R1)', async () => {
    const told = Promise.withResolvers<unknown>()
    const tool = defineTool({
      name: 'hang',
      description: 'x',
      inputSchema: z.object({}),
      timeoutMs: 20,
      execute: (_, { signal }) => {
        signal.addEventListener('abort', () => told.resolve(signal.reason))
        return new Promise(() => undefined)
      },
    })
    expect(await run(tool)).toMatchObject({ isError: true, output: 'the tool did not answer within 20 ms' })
    expect(await told.promise).toMatchObject({ name: 'TimeoutError' })
  })

  test('that is stopped rejects at once, whatever the tool does about it (R2)', async () => {
    const stop = new AbortController()
    const reason = new Error('stopped')
    const begun = Promise.withResolvers<AbortSignal>()
    const tool = defineTool({
      name: 'stubborn',
      description: 'x',
      inputSchema: z.object({}),
      execute: (_, { signal }) => {
        const { promise, resolve } = Promise.withResolvers<string>()
        signal.addEventListener('abort', () => resolve('I was done'))
        begun.resolve(signal)
        return promise
      },
    })
    const outcome = run(tool, {}, stop.signal)
    const signal = await begun.promise
    stop.abort(reason)
    await expect(outcome).rejects.toBe(reason)
    expect(signal.reason).toBe(reason)
    await expect(run(tool, {}, stop.signal)).rejects.toBe(reason)
  })

  test('is told where it stands', async () => {
    const context = toolContext()
    const tool = defineTool({
      name: 'who',
      description: 'x',
      inputSchema: z.object({}),
      execute: (_, { signal: _signal, ...place }) => place,
    })
    const { signal: _, ...place } = context
    expect(await runTool(tool, {}, context, LIMITS)).toMatchObject({ output: place })
  })
})

describe('the tools of a turn', () => {
  const named = (name: string, timeoutMs?: number): Tool =>
    defineTool({
      name,
      description: 'x',
      inputSchema: { type: 'object' },
      execute: () => name,
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
    })
  const owner = { chatId: 'c', userId: 'u' }
  const { signal } = new AbortController()

  test('have unique names, static ones first (T1)', async () => {
    const mcp = { toolsFor: async () => [named('b', 7), named('a'), named('c')] }
    const source = createToolSource({
      tools: [named('a'), named('b')],
      mcp,
      timeoutMs: 5,
      logger,
      maxTools: 3,
    })
    const tools = await source.toolsFor(owner, signal)
    expect(tools.map(({ definition, timeoutMs }) => [definition.name, timeoutMs])).toEqual([
      ['a', 5],
      ['b', 5],
      ['c', 60_000],
    ])
  })

  test('name one time each', async () => {
    const source = createToolSource({
      tools: [named('a', 9), named('b')],
      mcp: noTools,
      timeoutMs: 5,
      logger,
    })
    const tools = await source.toolsFor(owner, signal)
    expect(tools.map(({ timeoutMs }) => timeoutMs)).toEqual([9, 5])
  })

  test('are refused at boot where two have one name, or there are too many', () => {
    const tools = [named('a'), named('a')]
    expect(() => createToolSource({ tools, mcp: noTools, timeoutMs: 5, logger })).toThrow('two tools named a')
    const many = Array.from({ length: 111 }, (_, index) => named(`t${index}`))
    expect(() => createToolSource({ tools: many, mcp: noTools, timeoutMs: 5, logger })).toThrow('at most 110')
  })
})

describe('a module of tools', () => {
  let folder: string
  beforeAll(async () => (folder = await mkdtemp(path.join(tmpdir(), 'turnmill-tools-'))))
  afterAll(() => rm(folder, { recursive: true }))

  const source = fileURLToPath(new URL('../../src/tools/index.ts', import.meta.url))
  const makeTool = (name: string): string =>
    `defineTool({name: '${name}', description: 'x', inputSchema: {type: 'object'}, execute: () => '${name}'})`
  let files = 0
  const write = async (text: string): Promise<string> => {
    const file = path.join(folder, `tools-${files++}.ts`)
    await writeFile(file, `import { defineTool } from ${JSON.stringify(source)}\n${text}`)
    return file
  }

  test.each([
    ['a tool', `export default ${makeTool('a')}`, ['a']],
    ['an array', `export default [${makeTool('a')}, ${makeTool('b')}]`, ['a', 'b']],
    ['a function', `export default async (): Promise<unknown> => [${makeTool('a')}]`, ['a']],
  ])('may export %s', async (_, text, names) => {
    const tools = await loadToolModule(await write(text))
    expect(tools.map(({ definition }) => definition.name)).toEqual(names)
    expect(await run(tools[0])).toMatchObject({ output: 'a' })
  })

  test('may be named from the working directory', async () => {
    const file = await write(`export default ${makeTool('a')}`)
    expect(await loadToolModule(path.relative(process.cwd(), file))).toHaveLength(1)
  })

  test.each([
    ['nothing', 'export const tools = []', 'has no default export'],
    ['something else', 'export default [{name: "a"}]', 'its tool number 1 was not made by defineTool'],
    [
      'a function that throws',
      'export default () => { throw new Error("no key") }',
      'could not give its tools: no key',
    ],
    ['a bad tool', `export default ${makeTool('a b')}`, 'could not be loaded: a tool is named "a b"'],
    ['no module', 'export default (', 'could not be loaded: '],
  ])('that exports %s is refused by name', async (_, text, message) => {
    const file = await write(text)
    await expect(loadToolModule(file)).rejects.toThrow(message)
    await expect(loadToolModule(file)).rejects.toThrow(`the tools module ${file}`)
  })

  test('that imports a package which is not built is told to build it', async () => {
    const unbuilt = await mkdtemp(path.join(folder, 'unbuilt-'))
    const manifest = { name: 'turnmill', type: 'module', exports: './dist/src/index.js' }
    await writeFile(path.join(unbuilt, 'package.json'), JSON.stringify(manifest))
    const file = path.join(unbuilt, 'tools.js')
    await writeFile(file, "import { defineTool } from 'turnmill'\nexport default []")
    // As Node itself imports it.
    const script = `import { loadToolModule } from ${JSON.stringify(source)}
      await loadToolModule(${JSON.stringify(file)}).catch((error) => console.log(error.message))`
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script])
    expect(stdout).toContain(`the tools module ${file} could not be loaded: Cannot find module`)
    expect(stdout).toContain('; what lies in dist is made by `npm run build`')
  })

  test('that is not there is refused by name', async () => {
    await expect(loadToolModule('nowhere.js')).rejects.toThrow(
      `${path.resolve('nowhere.js')} could not be loaded`,
    )
  })
})

test.each([
  ['image/png', PNG],
  ['image/jpeg', Buffer.from('ffd8ffe000104a464946', 'hex')],
  ['image/gif', Buffer.from('GIF89a\x01\x00')],
  ['image/webp', Buffer.from('RIFF\x24\x00\x00\x00WEBPVP8 ')],
  [null, Buffer.from('RIFF\x24\x00\x00\x00WAVEfmt ')],
  [null, Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"/>')],
  [null, Buffer.alloc(0)],
])('an image is %s by its first bytes', (type, bytes) => {
  expect(sniffImage(bytes)).toBe(type)
})
