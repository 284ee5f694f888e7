import { sniffImage } from '../../src/protocol/images.ts'
import { IMAGE_TYPES } from '../../src/protocol/messages.ts'
import { imageBytes, PNG } from '../support/images.ts'

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
