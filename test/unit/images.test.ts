import { isWholeImage, sniffImage } from '../../src/protocol/images.ts'
import { IMAGE_TYPES } from '../../src/protocol/messages.ts'
import { imageBytes, PNG, WHOLE } from '../support/images.ts'

describe('an image', () => {
  test.each(IMAGE_TYPES)('of type %s is known by its first bytes', (type) => {
    expect(sniffImage(imageBytes(type))).toBe(type)
  })

  test('may be of the older kind of GIF, and may be a real one', () => {
    expect(sniffImage(Buffer.from('GIF87a'))).toBe('image/gif')
    expect(sniffImage(PNG)).toBe('image/png')
  })

  test.each([
    ['nothing', ''],
    ['SVG', '<svg xmlns="http://www.w3.org/2000/svg"/>'],
    ['a page', '<!doctype html><script>alert(1)</script>'],
    ['a PDF', '%PDF-1.7'],
    ['sound', 'RIFF\0\0\0\0WAVE'],
    ['half a beginning', '\x89PNG\r\n'],
    ['RIFF alone', 'RIFF'],
  ])('is not %s', (_, text) => {
    expect(sniffImage(Buffer.from(text, 'latin1'))).toBeNull()
  })
})

describe('an image is whole', () => {
  test.each(IMAGE_TYPES)('as %s, wherever it is cut off, only with its last byte', (type) => {
    const whole = WHOLE[type]
    expect(isWholeImage(whole, type)).toBe(true)
    expect(isWholeImage(imageBytes(type), type)).toBe(true)
    for (let length = 0; length < whole.length; length++)
      expect([length, isWholeImage(whole.subarray(0, length), type)]).toEqual([length, false])
  })

  test('as JPEG not by the end of its thumbnail, and with filled markers', () => {
    const [start, rest] = [WHOLE['image/jpeg'].subarray(0, 2), WHOLE['image/jpeg'].subarray(2)]
    const thumbnail = Buffer.concat([Buffer.from('ffe10008', 'hex'), Buffer.from('ffd8ffd90000', 'hex')])
    const jpeg = Buffer.concat([start, thumbnail, Buffer.from('ffff', 'hex'), rest])
    expect(isWholeImage(jpeg, 'image/jpeg')).toBe(true)
    expect(isWholeImage(jpeg.subarray(0, -2), 'image/jpeg')).toBe(false)
  })

  test('as GIF with tables of colors and many blocks, not by a trailer’s byte within them', () => {
    const head = Buffer.concat([
      Buffer.from('GIF89a'),
      Buffer.from('01000100810000', 'hex'),
      Buffer.alloc(12, 0x3b),
    ])
    const image = Buffer.concat([
      Buffer.from('2c0000000001000100', 'hex'), Buffer.from([0x80]), Buffer.alloc(6, 0x3b), Buffer.from([2]),
      ...[255, 255, 1].flatMap((size) => [Buffer.from([size]), Buffer.alloc(size, 0x3b)]), Buffer.from([0]),
    ]) // prettier-ignore
    const gif = Buffer.concat([head, image, image, Buffer.from(';')])
    expect(isWholeImage(gif, 'image/gif')).toBe(true)
    expect(isWholeImage(gif.subarray(0, -1), 'image/gif')).toBe(false)
  })
})
