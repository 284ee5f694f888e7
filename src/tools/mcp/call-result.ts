import { isDeepStrictEqual } from 'node:util'
import { z } from 'zod'
import type { ToolImage, ToolOutcome } from '../contract.ts'
import type { CallResult } from './connection.ts'
import type { Redact } from './redact.ts'

const block = z.union([
  z.looseObject({ type: z.literal('text'), text: z.string() }),
  z.looseObject({ type: z.literal('image'), data: z.string() }),
  z.looseObject({
    type: z.literal('resource'),
    resource: z.looseObject({ uri: z.string(), text: z.string() }),
  }),
  z.looseObject({ type: z.literal('resource_link'), uri: z.string() }),
])
type Block = z.output<typeof block>

/** Of how many blocks of a result models are told. */
const MAX_BLOCKS = 1000
/** The longest text that is compared with structured content, in characters: models would not be told all of a longer one. */
const MAX_COMPARED = 1_000_000

/** What a server's tool answered: its texts and images, or its structured content. */
export function toToolOutcome(result: CallResult, redact: Redact): ToolOutcome {
  const blocks = readBlocks(result.content, redact)
  const texts = blocks.flatMap((one) => (typeof one === 'string' ? [one] : textsOf(one)))
  const images = blocks.flatMap((one) => (typeof one === 'string' ? [] : imagesOf(one)))
  const output = outputOf(texts, result.structuredContent, images.length > 0)
  return { output: redact(output), isError: result.isError, images }
}

function readBlocks(content: readonly unknown[], redact: Redact): (Block | string)[] {
  const blocks = content.slice(0, MAX_BLOCKS).map((raw) => readBlock(raw, redact))
  const more = content.length - blocks.length
  return more === 0 ? blocks : [...blocks, `[${more} more blocks were left out]`]
}

/** A block of a known kind, or a note in place of another one. */
function readBlock(raw: unknown, redact: Redact): Block | string {
  const { data } = block.safeParse(raw)
  if (data !== undefined) return data
  const type = typeof raw === 'object' && raw !== null && 'type' in raw ? raw.type : undefined
  // The beginning of a secret would not be known for one.
  return `[a block of type ${redact(JSON.stringify(type ?? null)).slice(0, 100)} was left out]`
}

function textsOf(one: Block): string[] {
  switch (one.type) {
    case 'text':
      return [one.text]
    case 'resource':
      return [`${one.resource.uri}:\n${one.resource.text}`]
    case 'resource_link':
      return [one.uri]
    case 'image':
      return []
  }
}

/** Whether it is an image, and of what type, the runner finds out. */
const imagesOf = (one: Block): ToolImage[] =>
  one.type === 'image' ? [{ mediaType: 'image/png', bytes: Buffer.from(one.data, 'base64') }] : []

/** Structured content goes before the text that repeats it; a text that says something else stands beside it. */
function outputOf(texts: readonly string[], structured: unknown, hasImages: boolean): unknown {
  const text = texts.join('\n')
  if (structured === undefined || structured === null)
    return texts.length === 0 ? (hasImages ? null : 'done, without an output') : text
  return texts.length === 0 || repeats(text, structured) ? structured : { text, structured }
}

const repeats = (text: string, structured: unknown): boolean =>
  text.length <= MAX_COMPARED && isDeepStrictEqual(parse(text), parse(JSON.stringify(structured)))

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
