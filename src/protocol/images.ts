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

/**
 * Whether an image reaches its end, as far as its format's own structure says. What it shows, and bytes after its end,
 * are of no matter.
 */
export function isWholeImage(bytes: Uint8Array, type: ImageType): boolean {
  return ENDINGS[type](Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
}

const ENDINGS: Record<ImageType, (bytes: Buffer) => boolean> = {
  'image/png': reachesIend,
  'image/jpeg': reachesEndOfImage,
  'image/gif': reachesTrailer,
  'image/webp': isAsLongAsStated,
}

/** Chunks of a length, a name, data and a checksum, the last of which is IEND. Source: https://www.w3.org/TR/png-3/#5DataRep */
function reachesIend(bytes: Buffer): boolean {
  for (let at = 8; at + 12 <= bytes.length; at += 12 + bytes.readUInt32BE(at))
    if (bytes.toString('latin1', at + 4, at + 8) === 'IEND') return true
  return false
}

const START_OF_SCAN = 0xda
const END_OF_IMAGE = Buffer.from('ffd9', 'hex')

/**
 * Segments of a marker and a length, a thumbnail with an end of its own among them, up to the first scan. In what follows
 * a scan's bytes are escaped. Source: ITU-T T.81, B.1.1
 */
function reachesEndOfImage(bytes: Buffer): boolean {
  for (let at = 2; at + 4 <= bytes.length && bytes[at] === 0xff;) {
    if (bytes[at + 1] === START_OF_SCAN) return bytes.includes(END_OF_IMAGE, at)
    at += bytes[at + 1] === 0xff ? 1 : 2 + bytes.readUInt16BE(at + 2)
  }
  return false
}

/** Extensions and images up to the trailer. Source: https://www.w3.org/Graphics/GIF/spec-gif89a.txt */
function reachesTrailer(bytes: Buffer): boolean {
  let at = 13 + sizeOfColorTable(bytes[10])
  while (bytes[at] !== 0x3b) {
    if (bytes[at] === 0x21) at = skipBlocks(bytes, at + 2)
    else if (bytes[at] === 0x2c) at = skipBlocks(bytes, at + 11 + sizeOfColorTable(bytes[at + 9]))
    else return false
  }
  return true
}

const sizeOfColorTable = (flags = 0): number => ((flags & 0x80) === 0 ? 0 : 3 * 2 ** ((flags & 7) + 1))

/** Blocks of a length and data, the last of which is empty. */
function skipBlocks(bytes: Buffer, start: number): number {
  let at = start
  for (let size = bytes[at] ?? 0; size > 0; size = bytes[at] ?? 0) at += size + 1
  return at + 1
}

/** Source: https://developers.google.com/speed/webp/docs/riff_container */
const SMALLEST_WEBP = 20

function isAsLongAsStated(bytes: Buffer): boolean {
  return bytes.length >= SMALLEST_WEBP && bytes.length >= 8 + bytes.readUInt32LE(4)
}
