import type { ImageType } from './messages.ts'

const hasAt = (bytes: Uint8Array, at: number, text: string): boolean =>
  text.length <= bytes.length - at &&
  Array.from(text).every((character, index) => bytes[at + index] === character.charCodeAt(0))

/** The kind of an image by its first bytes; `null` for anything else. What somebody says that it is counts for nothing. */
export function sniffImage(bytes: Uint8Array): ImageType | null {
  if (hasAt(bytes, 0, '\x89PNG\r\n\x1a\n')) return 'image/png'
  if (hasAt(bytes, 0, '\xff\xd8\xff')) return 'image/jpeg'
  if (hasAt(bytes, 0, 'GIF87a') || hasAt(bytes, 0, 'GIF89a')) return 'image/gif'
  if (hasAt(bytes, 0, 'RIFF') && hasAt(bytes, 8, 'WEBP')) return 'image/webp'
  return null
}
