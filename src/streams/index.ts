export { comparePositions, formatEventId, parseEventId, type Cursor, type PartPosition } from './cursor.ts'
export type { ChatEvent, PlacedEvent } from './events.ts'
export type { LoggedPart, LogNews, PartLog } from './part-log.ts'
export {
  createPartWriter,
  type AttemptPosition,
  type PartWriter,
  type PartWriterOptions,
} from './part-writer.ts'
export { openPostgresPartLog } from './postgres-part-log.ts'
export { openRedisPartLog } from './redis-part-log.ts'
export { watchChat, type WatchOptions, type WatchRegistry } from './watch-chat.ts'
export { createWatchRegistry } from './watch-registry.ts'
