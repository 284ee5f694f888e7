import { integer, milliseconds } from './setting.ts'

/** How much users and their chats may have, and for how long. */
export const LIMITS = {
  queueLimit: integer(
    {
      name: 'TURNMILL_QUEUE_LIMIT',
      default: '20',
      unit: 'messages',
      sentence: 'Messages queued per chat at most.',
    },
    1,
    10_000,
  ),
  runningRootTurns: integer(
    {
      name: 'TURNMILL_RUNNING_ROOT_TURNS',
      default: '5',
      unit: 'turns',
      sentence: 'Root turns of one user that run at once.',
    },
    1,
    10_000,
  ),
  runningSubagentTurns: integer(
    {
      name: 'TURNMILL_RUNNING_SUBAGENT_TURNS',
      default: '10',
      unit: 'turns',
      sentence: 'Subagent turns of one user that run at once.',
    },
    1,
    10_000,
  ),
  subagentDepth: integer(
    {
      name: 'TURNMILL_SUBAGENT_DEPTH',
      default: '2',
      unit: 'levels',
      sentence: 'How deep subagents may spawn subagents.',
    },
    0,
    20,
  ),
  subagentChildren: integer(
    {
      name: 'TURNMILL_SUBAGENT_CHILDREN',
      default: '8',
      unit: 'subagents',
      sentence: 'Subagents of one chat that are at work at once.',
    },
    0,
    1000,
  ),
  pendingTurns: integer(
    {
      name: 'TURNMILL_PENDING_TURNS',
      default: '1000',
      unit: 'turns',
      sentence: 'Pending turns of one user at most, then 429.',
    },
    1,
    1_000_000,
  ),
  shedAfterMs: milliseconds({
    name: 'TURNMILL_SHED_AFTER_MS',
    default: '60000',
    sentence:
      'No further turns are taken (503) while the oldest that may run has waited this long for a worker.',
  }),
  messageBodyBytes: integer(
    {
      name: 'TURNMILL_MESSAGE_BODY_BYTES',
      default: '1048576',
      unit: 'bytes',
      sentence: 'The largest request body.',
    },
    1024,
    64 * 1024 * 1024,
  ),
  filesPerUserBytes: integer(
    {
      name: 'TURNMILL_FILES_PER_USER_BYTES',
      default: '1073741824',
      unit: 'bytes',
      sentence: 'What the files of one user may take together; no further ones are kept beyond it.',
    },
    0,
    2 ** 50,
  ),
  debugRetentionHours: integer(
    {
      name: 'TURNMILL_DEBUG_RETENTION_HOURS',
      default: '24',
      unit: 'hours',
      sentence: 'How long recorded model calls are kept.',
    },
    1,
    720,
  ),
}
