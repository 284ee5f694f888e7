import { query, statement, type Database } from '../db/index.ts'
import type { ImagePart, MessagePart, ModelMessage } from '../protocol/messages.ts'

/** What a model is shown of a conversation's images at most: the newest. In base64 they fit into what the gateway takes. */
const MAX_IMAGES = 20
const MAX_BYTES = 20 * 1024 * 1024

/**
 * The newest that fit together, without line breaks, which base64 of Postgres has. A file counts once here, however often
 * it is named. $1 user, $2 files, newest first, $3 bytes at most.
 */
const newestFiles = statement(
  'files/load',
  `select id, size, translate(encode(content, 'base64'), E'\\n', '') as data from (
    select f.id, f.size, f.content, sum(f.size) over (order by named.place) as total
    from unnest($2::uuid[]) with ordinality named (id, place) join files f on f.id = named.id and f.user_id = $1) newest
  where total <= $3`,
)

interface LoadedFile {
  id: string
  size: number
  data: string
}

/**
 * Fills in the bytes of images, of tool results too, for a model to see: of the newest ones, up to 20 and 20 MB. Older
 * ones, those that are gone and those of somebody else stay without. One round trip, none where there is no image.
 */
export async function loadImages(
  db: Database,
  userId: string,
  messages: readonly ModelMessage[],
): Promise<ModelMessage[]> {
  const newest = messages.flatMap(({ parts }) => parts.flatMap(imagesOf)).reverse().slice(0, MAX_IMAGES) // prettier-ignore
  if (newest.length === 0) return [...messages]
  const fileIds = [...new Set(newest.map((image) => image.fileId))]
  const files = await query<LoadedFile>(db, newestFiles(userId, fileIds, MAX_BYTES))
  const shown = choose(newest, new Map(files.map((file) => [file.id, file])))
  return messages.map((message) => ({ ...message, parts: message.parts.map((part) => fill(part, shown)) }))
}

function imagesOf(part: MessagePart): readonly ImagePart[] {
  if (part.type === 'image') return [part]
  return part.type === 'tool-result' ? (part.images ?? []) : []
}

/** The data of each image that is shown: an image counts as often as it stands in the messages. */
function choose(
  newest: readonly ImagePart[],
  files: ReadonlyMap<string, LoadedFile>,
): ReadonlyMap<ImagePart, string> {
  const shown = new Map<ImagePart, string>()
  let bytes = 0
  for (const image of newest) {
    const file = files.get(image.fileId)
    bytes += file?.size ?? 0
    if (bytes > MAX_BYTES) break
    if (file !== undefined) shown.set(image, file.data)
  }
  return shown
}

function fill(part: MessagePart, shown: ReadonlyMap<ImagePart, string>): MessagePart {
  if (part.type === 'image') return withData(part, shown)
  if (part.type !== 'tool-result' || part.images === undefined) return part
  return { ...part, images: part.images.map((image) => withData(image, shown)) }
}

const withData = (image: ImagePart, shown: ReadonlyMap<ImagePart, string>): ImagePart => {
  const data = shown.get(image)
  return data === undefined ? image : { ...image, data }
}
