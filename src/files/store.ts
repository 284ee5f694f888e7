import { query, statement, withTransaction, type Database, type Transaction } from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'
import { isWholeImage, sniffImage } from '../protocol/images.ts'
import type { ImagePart, ImageType } from '../protocol/messages.ts'

/** The largest file, in bytes. */
export const MAX_FILE_BYTES = 10 * 1024 * 1024

/** Whose files they are to be. */
export interface FileOwner {
  userId: string
  /** The chat that a tool made them in, and which takes them along; `null` for what a user sends. */
  chatId: string | null
  /** What all files of the user may take, in bytes. */
  limitBytes: number
}

/** A file as its owner sees it. `createdAt` is ISO 8601 in UTC. */
export interface FileView {
  id: string
  mediaType: ImageType
  size: number
  createdAt: string
}

/** The bytes of an image, and what they are. */
export interface ImageBytes {
  mediaType: ImageType
  bytes: Uint8Array
}

export interface NewFile extends ImageBytes {
  id: string
}

/**
 * No row: the user's files would take too much. Several at once may each see the room that is there for one, so the
 * limit is passed by as much as is sent at once. $1 id, $2 user, $3 chat, $4 media type, $5 content, $6 limit in bytes.
 */
const insertFile = statement(
  'files/insert',
  `insert into files (id, user_id, chat_id, media_type, size, content)
  select $1, $2, $3, $4, octet_length($5::bytea), $5
  where (select coalesce(sum(size), 0) from files where user_id = $2) + octet_length($5::bytea) <= $6::bigint
  returning id, media_type, size, created_at`,
)

/** $1 file, $2 user. */
const fileById = statement(
  'files/read',
  'select media_type, content from files where id = $1 and user_id = $2',
)

/** $1 file, $2 user. */
const deleteById = statement('files/delete', 'delete from files where id = $1 and user_id = $2 returning id')

/** Says that somebody is about to name them: see `pruneFiles`. $1 user, $2 files. */
const touchFiles = statement(
  'files/touch',
  `with mine as (select id from files where user_id = $1 and id = any($2::uuid[]) order by id for no key update)
  update files f set seen_at = clock_timestamp() from mine where f.id = mine.id returning f.id, f.media_type`,
)

// As the partial indexes have it, so that they are used.
const HAS_IMAGES = `parts @? '$[*] ? (@.type == "image" || exists(@.images))'`

// Counted, since for the first one alone the table would be read from its beginning.
const isNamedIn = (table: string): string => `(
      select count(*) from ${table} m where m.${HAS_IMAGES}
        and (m.parts @> jsonb_build_array(jsonb_build_object('fileId', old.id))
          or m.parts @> jsonb_build_array(jsonb_build_object('images', jsonb_build_array(jsonb_build_object('fileId', old.id)))))) > 0`

/** $1 rows at most. The subquery makes the time one value, so that the index finds the rows. */
const prune = statement(
  'files/prune',
  `with old as (
    select id from files where chat_id is null and seen_at < (select clock_timestamp() - interval '24 hours')
    order by seen_at limit $1 for update skip locked),
  named as (
    select old.id from old where ${isNamedIn('messages')} or ${isNamedIn('queued_messages')}),
  kept as (update files f set seen_at = clock_timestamp() from named where f.id = named.id)
  delete from files f using old where f.id = old.id and not exists (select 1 from named where named.id = old.id)`,
)

interface FileRow {
  id: string
  media_type: ImageType
  size: number
  created_at: Date
}

/**
 * Bytes as the file they are, whatever was said of them.
 *
 * @throws {TurnmillError} `unsupported_media_type` for anything but the four kinds of images, `payload_too_large`,
 * `invalid_request` for one that is cut off.
 */
export function toNewFile(bytes: Uint8Array): NewFile {
  const mediaType = sniffImage(bytes)
  if (mediaType === null)
    throw new TurnmillError(
      'unsupported_media_type',
      'the bytes are no image, expected PNG, JPEG, GIF or WebP',
    )
  if (bytes.byteLength > MAX_FILE_BYTES)
    throw new TurnmillError(
      'payload_too_large',
      `the image has ${bytes.byteLength} bytes, expected ${MAX_FILE_BYTES} at most`,
    )
  if (!isWholeImage(bytes, mediaType))
    throw new TurnmillError(
      'invalid_request',
      `the image is cut off: its ${bytes.byteLength} bytes do not reach the end of the ${mediaType}`,
    )
  return { id: newId(), mediaType, bytes }
}

/**
 * Keeps one file.
 *
 * @throws {TurnmillError} `unsupported_media_type`, `payload_too_large`, `invalid_request`, `files_full`.
 */
export const createFile = (db: Database, owner: FileOwner, bytes: Uint8Array): Promise<FileView> => {
  const file = toNewFile(bytes)
  return withTransaction(db, (tx) => insert(tx, owner, file))
}

/**
 * Keeps files, all or none.
 *
 * @throws {TurnmillError} `files_full`.
 */
export const keepFiles = (db: Database, owner: FileOwner, files: readonly NewFile[]): Promise<FileView[]> =>
  withTransaction(db, (tx) => Promise.all(files.map((file) => insert(tx, owner, file))))

async function insert(tx: Transaction, owner: FileOwner, file: NewFile): Promise<FileView> {
  const { userId, chatId, limitBytes } = owner
  const [row] = await tx.query<FileRow>(
    insertFile(file.id, userId, chatId, file.mediaType, file.bytes, limitBytes),
  )
  if (row === undefined) throw full(owner)
  return toFileView(row)
}

const toFileView = (row: FileRow): FileView => ({
  id: row.id,
  mediaType: row.media_type,
  size: row.size,
  createdAt: row.created_at.toISOString(),
})

const full = ({ userId, limitBytes }: FileOwner): TurnmillError =>
  new TurnmillError(
    'files_full',
    `the files of user ${userId} would take more than ${limitBytes} bytes; delete some, or chats that name them`,
  )

/**
 * Keeps what a tool has made, all or nothing.
 *
 * @throws {TurnmillError} `unsupported_media_type`, `payload_too_large`, `invalid_request`, `files_full`.
 */
export async function storeImages(
  db: Database,
  owner: FileOwner,
  images: readonly ImageBytes[],
): Promise<ImagePart[]> {
  const files = images.map(({ bytes }) => toNewFile(bytes))
  if (files.length > 0) await keepFiles(db, owner, files)
  return files.map(({ id, mediaType }) => ({ type: 'image', fileId: id, mediaType }))
}

/** @throws {TurnmillError} `not_found` where it does not exist or belongs to somebody else. */
export async function readFile(
  db: Database,
  userId: string,
  fileId: string,
): Promise<{ mediaType: ImageType; bytes: Buffer }> {
  const [row] = await query<{ media_type: ImageType; content: Buffer }>(db, fileById(fileId, userId))
  if (row === undefined) throw noFile(fileId)
  return { mediaType: row.media_type, bytes: row.content }
}

/**
 * Deletes a file at once. Messages that name it stay, and a model is told that there was an image.
 *
 * @throws {TurnmillError} `not_found` where it does not exist or belongs to somebody else.
 */
export async function deleteFile(db: Database, userId: string, fileId: string): Promise<void> {
  const [row] = await query(db, deleteById(fileId, userId))
  if (row === undefined) throw noFile(fileId)
}

const noFile = (fileId: string): TurnmillError =>
  new TurnmillError('not_found', `file ${fileId} does not exist`)

/** The kinds of those of the files that exist and belong to the user. Keeps them for a day, so that a message may name them. */
export async function findFiles(
  db: Database,
  userId: string,
  fileIds: readonly string[],
): Promise<Map<string, ImageType>> {
  const rows = await query<FileRow>(db, touchFiles(userId, fileIds))
  return new Map(rows.map((row) => [row.id, row.media_type]))
}

/**
 * Retention: forgets what a user sent and no message names, a day after it was sent or last found to be named. `limit`
 * files are looked at; those that are named are not looked at for another day. A message that is about to name one holds
 * its row, or finds that it is gone. What a tool made goes with its chat.
 */
export async function pruneFiles(db: Database, limit: number): Promise<void> {
  await query(db, prune(limit))
}
