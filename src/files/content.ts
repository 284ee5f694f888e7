import type { Database } from '../db/index.ts'
import { isTurnmillError, TurnmillError } from '../protocol/errors.ts'
import type { ImageType, MessagePart, TextPart } from '../protocol/messages.ts'
import { findFiles, keepFiles, toNewFile, type FileOwner, type NewFile } from './store.ts'

/** What a user says: text, an image as a data URL, or one that is kept already. */
export type ContentPart = TextPart | { type: 'image'; image: string } | { type: 'image'; fileId: string }

/**
 * Content as a message holds it: its images are files. In the transaction of `db` where it is joined; otherwise images of
 * a message that is refused afterwards are forgotten a day later.
 *
 * @throws {TurnmillError} `invalid_request` naming the part, and `files_full`; nothing is kept then.
 */
export async function storeContent(
  db: Database,
  owner: Omit<FileOwner, 'chatId'>,
  content: readonly ContentPart[],
): Promise<MessagePart[]> {
  const named = content.flatMap((part) => ('fileId' in part ? [part.fileId] : []))
  const kinds = named.length === 0 ? NONE : await findFiles(db, owner.userId, named)
  const placed = content.map((part, index) => place(part, `content/${index}`, kinds))
  const files = placed.flatMap(({ file }) => file ?? [])
  if (files.length > 0) await keepFiles(db, { ...owner, chatId: null }, files)
  return placed.map(({ part }) => part)
}

const NONE: ReadonlyMap<string, ImageType> = new Map()

/** A part as it is stored, and the file that is to be kept for it. */
interface PlacedPart {
  part: MessagePart
  file?: NewFile
}

function place(part: ContentPart, where: string, kinds: ReadonlyMap<string, ImageType>): PlacedPart {
  if (part.type === 'text') return { part }
  if ('image' in part) {
    const file = readImage(part.image, `${where}/image`)
    return { part: { type: 'image', fileId: file.id, mediaType: file.mediaType }, file }
  }
  const { fileId } = part
  const mediaType = kinds.get(fileId)
  if (mediaType === undefined) throw refused(`${where}/fileId: file ${fileId} does not exist`)
  return { part: { type: 'image', fileId, mediaType } }
}

// The kind of an image is what its bytes say. Source: RFC 2397, of which an image needs only this form.
const DATA_URL = /^data:[^,]{0,200};base64,/i
const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/

function readImage(url: string, where: string): NewFile {
  const start = DATA_URL.exec(url)?.[0]
  if (start === undefined) throw refused(`${where}: expected a data URL, \`data:image/png;base64,…\``)
  const text = url.slice(start.length)
  if (text.length % 4 !== 0 || !BASE64.test(text))
    throw refused(`${where}: the data URL holds no valid base64`)
  try {
    return toNewFile(Buffer.from(text, 'base64'))
  } catch (error) {
    throw isTurnmillError(error) ? refused(`${where}: ${error.message}`) : error
  }
}

const refused = (what: string): TurnmillError => new TurnmillError('invalid_request', `body/${what}`)
