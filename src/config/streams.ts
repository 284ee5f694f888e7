import { integer, milliseconds } from './setting.ts'

/** How answers reach those who watch. */
export const STREAMS = {
  partFlushMs: milliseconds({
    name: 'TURNMILL_PART_FLUSH_MS',
    default: '25',
    sentence: 'How long parts are gathered before they are written to the part log.',
  }),
  partFlushBytes: integer(
    {
      name: 'TURNMILL_PART_FLUSH_BYTES',
      default: '2048',
      unit: 'bytes',
      sentence: 'How much text is gathered before parts are written to the part log.',
    },
    1,
    1_048_576,
  ),
  partLogTtlMs: milliseconds({
    name: 'TURNMILL_PART_LOG_TTL_MS',
    default: '3600000',
    sentence: 'How long the part log of a chat is kept after its last part.',
  }),
  streamHeartbeatMs: milliseconds({
    name: 'TURNMILL_STREAM_HEARTBEAT_MS',
    default: '15000',
    sentence: 'How often an idle event stream sends a comment.',
  }),
  watchPollMs: milliseconds({
    name: 'TURNMILL_WATCH_POLL_MS',
    default: '2000',
    sentence: 'How often watched chats are looked at in Postgres, should a notification be lost.',
  }),
}
