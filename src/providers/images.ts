import type { ImagePart, ToolResultPart } from '../protocol/messages.ts'

/** An image that can be shown: its bytes are at hand. */
export type ShownImage = ImagePart & { data: string }

export const isShown = (image: ImagePart): image is ShownImage =>
  image.data !== undefined && image.data !== ''

/** What a model reads where an image was. */
export const IMAGE_GONE = '[an image that is no longer there]'

/** Source: RFC 2397. */
export const toDataUrl = ({ mediaType, data }: ShownImage): string => `data:${mediaType};base64,${data}`

export const hasImages = ({ images = [] }: ToolResultPart): boolean => images.length > 0
