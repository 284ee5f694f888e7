import { isWholeImage, sniffImage } from '../protocol/images.ts'
import { toStorableJson, toStorableText } from '../protocol/messages.ts'
import type { ToolImage, ToolOutcome } from './contract.ts'

/** How much of what a tool answers is kept. */
export interface OutcomeLimits {
  /** The longest output, in bytes of UTF-8. */
  outputBytes: number
}

/** The largest image, in bytes. */
export const MAX_IMAGE_BYTES = 10 * 1024 * 1024
/** The most images of one call. */
export const MAX_IMAGES = 10

/** The longest text of an error, in characters. */
const MAX_ERROR_LENGTH = 2000

/** What a model is told of a call that failed. */
export const failure = (message: string): ToolOutcome => ({
  output: toStorableText(message.slice(0, MAX_ERROR_LENGTH)),
  isError: true,
  images: [],
})

/** The text of anything that was thrown; without its stack, which is for the log. */
export function messageOf(thrown: unknown): string {
  try {
    if (typeof thrown === 'object' && thrown !== null && 'message' in thrown) return String(thrown.message)
    return String(thrown)
  } catch {
    return 'something that has no text'
  }
}

/**
 * Whatever a tool answered as what can be stored and shown: JSON that Postgres can hold, of a bounded size, and images
 * that are images. What was left out is said in the output.
 */
export function settleOutcome(answered: unknown, limits: OutcomeLimits): ToolOutcome {
  try {
    const { output, isError, images } = readOutcome(answered)
    const kept = keepImages(images)
    const json = cutJson(toJson(output), limits.outputBytes)
    return { output: withNotes(json, kept.notes), isError, images: kept.images }
  } catch (error) {
    return failure(`the tool ran, but its output cannot be told: ${firstLine(messageOf(error))}`)
  }
}

const firstLine = (text: string): string => text.split('\n')[0] ?? ''

/** Tools that were not made by `defineTool` may answer with anything. */
function readOutcome(answered: unknown): { output: unknown; isError: boolean; images: readonly unknown[] } {
  if (typeof answered !== 'object' || answered === null || !('output' in answered))
    return { output: answered, isError: false, images: [] }
  const { output, isError, images } = answered as Record<string, unknown>
  return { output, isError: isError === true, images: Array.isArray(images) ? images : [] }
}

/** What JSON says of a value: `null` for what it has no word for, digits for a BigInt. @throws where it says nothing. */
function toJson(value: unknown): unknown {
  if (typeof value === 'string') return value
  const text = JSON.stringify(value, (_, field: unknown) =>
    typeof field === 'bigint' ? field.toString() : field,
  ) as string | undefined
  return text === undefined ? null : toStorableJson(JSON.parse(text))
}

function cutJson(value: unknown, maxBytes: number): unknown {
  if (typeof value === 'string') return cutText(toStorableText(value), maxBytes)
  const text = JSON.stringify(value)
  return Buffer.byteLength(text) <= maxBytes ? value : cutText(text, maxBytes)
}

/** The beginning of a text, and how much was left out. */
export function cutText(text: string, maxBytes: number): string {
  const size = Buffer.byteLength(text)
  if (size <= maxBytes) return text
  // A character that is not whole at the end is held back.
  const kept = new TextDecoder().decode(Buffer.from(text).subarray(0, maxBytes), { stream: true })
  return `${kept}\n[${size - Buffer.byteLength(kept)} of ${size} bytes were left out]`
}

function keepImages(images: readonly unknown[]): { images: ToolImage[]; notes: string[] } {
  const kept: ToolImage[] = []
  const notes: string[] = []
  for (const image of images) {
    const found = kept.length === MAX_IMAGES ? `there are more than ${MAX_IMAGES}` : readImage(image)
    if (typeof found === 'string') notes.push(`[an image was left out: ${found}]`)
    else kept.push(found)
    if (notes.length === MAX_IMAGES) break
  }
  return { images: kept, notes }
}

/** An image, or why it is none. What it is said to be does not count. */
function readImage(image: unknown): ToolImage | string {
  const bytes = typeof image === 'object' && image !== null && 'bytes' in image ? image.bytes : undefined
  if (!ArrayBuffer.isView(bytes)) return 'it has no bytes'
  if (bytes.byteLength > MAX_IMAGE_BYTES)
    return `it has ${bytes.byteLength} bytes, expected at most ${MAX_IMAGE_BYTES}`
  const view = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const mediaType = sniffImage(view)
  if (mediaType === null) return 'it is no PNG, JPEG, GIF or WebP'
  return isWholeImage(view, mediaType) ? { mediaType, bytes: view } : 'it is cut off'
}

function withNotes(output: unknown, notes: readonly string[]): unknown {
  if (notes.length === 0) return output
  const text = notes.join('\n')
  if (output === null) return text
  return typeof output === 'string' ? `${output}\n${text}` : { output, notes }
}
