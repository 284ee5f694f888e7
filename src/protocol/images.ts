import type { ImageType } from './messages.ts'

/** How each format begins, in Latin-1; `.` stands for any byte. */
const BEGINNINGS: readonly (readonly [ImageType, RegExp])[] = [
  ['image/png', /^\x89PNG\r\n\x1a\n/],
  ['image/jpeg', /^\xff\xd8\xff/],
  ['image/gif', /^GIF8[79]a/],
  ['image/webp', /^RIFF[\s\S]{4}WEBP/],
]

/** What an image is by its first bytes, whatever it is said to be; `null` where it is none that models take. */
export function sniffImage(bytes: Uint8Array): ImageType | null {
  const beginning = Buffer.from(bytes.subarray(0, 12)).toString('latin1')
  return BEGINNINGS.find(([, pattern]) => pattern.test(beginning))?.[0] ?? null
}
