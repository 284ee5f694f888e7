import type { ImageType } from '../../src/protocol/messages.ts'

/** One red pixel. */
export const PNG = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg==',
  'base64',
)

const BEGINNINGS: Record<ImageType, string> = {
  'image/png': '\x89PNG\r\n\x1a\n',
  'image/jpeg': '\xff\xd8\xff\xe0',
  'image/gif': 'GIF89a',
  'image/webp': 'RIFF\x00\x00\x00\x00WEBP',
}

/** Bytes that begin as an image of that kind does. */
export function imageBytes(type: ImageType, size = 64): Buffer {
  const bytes = Buffer.alloc(size, 1)
  bytes.write(BEGINNINGS[type], 'latin1')
  return bytes
}

export const dataUrl = (bytes: Uint8Array, type = 'image/png'): string =>
  `data:${type};base64,${Buffer.from(bytes).toString('base64')}`
