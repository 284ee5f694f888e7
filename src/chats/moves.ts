import { TurnmillError, type ErrorCode } from '../protocol/errors.ts'
import type { ChatStatus } from '../protocol/views.ts'

/** What decides whether a command is legal, read under the chat's row lock. */
export interface ChatCell {
  status: ChatStatus
  queue: 'empty' | 'waiting'
  archived: boolean
}

/** What users ask of a chat. */
export const CHAT_COMMANDS = [
  'send',
  'send, interrupting',
  'send, rejecting',
  'edit',
  'editQueued',
  'moveQueued',
  'deleteQueued',
  'promote',
  'interrupt',
  'submitToolResults',
  'retry',
  'compact',
  'clear',
  'archive',
  'unarchive',
  'delete',
] as const
export type ChatCommand = (typeof CHAT_COMMANDS)[number]

/** The parts that commands are made of. Each is one statement or two; a command runs them in the order given. */
export const EFFECTS = {
  append: 'the message goes onto the queue (`queue_full` where that is full)',
  close: 'the open calls of the failed turn get results',
  start: 'the message enters the history, with a turn of its own',
  toHead: 'the queued message goes to the head of the queue',
  promote: 'the head of the queue enters the history, with a turn of its own',
  stop: 'the worker that holds the turn is told to stop',
  end: 'the turn ends as interrupted, its open calls get cancellation results',
  supersede: 'the active turn and the queue are superseded; the message and all after it are removed',
  cascade: 'subagents are interrupted and their queues superseded',
  changeQueue: 'the queued message changes',
  resume: 'the results are kept for the next claim of the same turn',
  repeat: 'a new turn over the same history',
  compact: 'a turn that sums the history up and takes its place',
  clear: 'a boundary: what lies before it is not shown to the model any more',
  archive: 'the whole family is archived, or nothing',
  unarchive: 'the whole family is unarchived',
  remove: 'the chat and its subagents are deleted',
} as const
export type Effect = keyof typeof EFFECTS

/** One row of the table. A cell that no row of its command covers is refused. */
export interface ChatMove {
  from: readonly ChatStatus[]
  /** Either, where absent. */
  queue?: ChatCell['queue']
  /** Whether it is for archived chats; for unarchived ones where absent. */
  archived?: boolean | 'either'
  /** The status it lands in. */
  to: ChatStatus | 'same' | 'gone'
  does: readonly Effect[]
}

const REST = ['idle', 'failed'] as const
/** A turn that no worker holds: it can end at once. */
const UNHELD = ['pending', 'requires_action', 'waiting'] as const
const BUSY = ['pending', 'running', 'interrupting', 'requires_action', 'waiting'] as const
const ANY = [...REST, ...BUSY] as const

const START: readonly ChatMove[] = [
  { from: ['idle'], queue: 'empty', to: 'pending', does: ['start'] },
  { from: ['failed'], queue: 'empty', to: 'pending', does: ['close', 'start'] },
]
// A failed chat keeps its queue, and what is sent then goes behind it.
const START_HEAD: ChatMove = {
  from: REST,
  queue: 'waiting',
  to: 'pending',
  does: ['append', 'close', 'promote'],
}

/** Every legal move of a chat: command → the cells it is allowed in, where it lands, and what it does. */
export const CHAT_MOVES: Record<ChatCommand, readonly ChatMove[]> = {
  send: [...START, START_HEAD, { from: BUSY, to: 'same', does: ['append'] }],
  'send, interrupting': [
    ...START,
    START_HEAD,
    { from: UNHELD, to: 'pending', does: ['append', 'end', 'cascade', 'promote'] },
    { from: ['running'], to: 'interrupting', does: ['append', 'stop', 'cascade'] },
    { from: ['interrupting'], to: 'same', does: ['append'] },
  ],
  'send, rejecting': START,
  edit: [{ from: ANY, to: 'pending', does: ['supersede', 'cascade', 'start'] }],
  editQueued: [{ from: ANY, queue: 'waiting', to: 'same', does: ['changeQueue'] }],
  moveQueued: [{ from: ANY, queue: 'waiting', to: 'same', does: ['changeQueue'] }],
  deleteQueued: [{ from: ANY, queue: 'waiting', to: 'same', does: ['changeQueue'] }],
  promote: [
    { from: REST, queue: 'waiting', to: 'pending', does: ['toHead', 'close', 'promote'] },
    { from: UNHELD, queue: 'waiting', to: 'pending', does: ['toHead', 'end', 'cascade', 'promote'] },
    { from: ['running'], queue: 'waiting', to: 'interrupting', does: ['toHead', 'stop', 'cascade'] },
    { from: ['interrupting'], queue: 'waiting', to: 'same', does: ['toHead'] },
  ],
  interrupt: [
    { from: UNHELD, queue: 'empty', to: 'idle', does: ['end', 'cascade'] },
    { from: UNHELD, queue: 'waiting', to: 'pending', does: ['end', 'cascade', 'promote'] },
    { from: ['running'], to: 'interrupting', does: ['stop', 'cascade'] },
    { from: ['interrupting', 'idle', 'failed'], to: 'same', does: ['cascade'] },
  ],
  submitToolResults: [{ from: ['requires_action'], to: 'pending', does: ['resume'] }],
  retry: [{ from: ['failed'], to: 'pending', does: ['close', 'repeat'] }],
  compact: [{ from: REST, to: 'pending', does: ['close', 'compact'] }],
  clear: [{ from: REST, queue: 'empty', to: 'idle', does: ['close', 'clear'] }],
  archive: [{ from: REST, to: 'same', does: ['archive'] }],
  unarchive: [{ from: REST, archived: true, to: 'same', does: ['unarchive'] }],
  delete: [{ from: ANY, archived: 'either', to: 'gone', does: ['remove', 'cascade'] }],
}

/** What a refusal is called where `move_refused` says too little. */
const REFUSALS: Partial<Record<ChatCommand, ErrorCode>> = {
  'send, rejecting': 'chat_busy',
  submitToolResults: 'not_waiting',
  archive: 'chat_busy',
}

/** The row of the table for a cell; `undefined` where the command is refused. */
export const findMove = (command: ChatCommand, cell: ChatCell): ChatMove | undefined =>
  CHAT_MOVES[command].find(
    (move) =>
      move.from.includes(cell.status) &&
      (move.queue ?? cell.queue) === cell.queue &&
      (move.archived === 'either' || (move.archived ?? false) === cell.archived),
  )

/**
 * What a command does to a chat in this cell.
 *
 * @throws {TurnmillError} `chat_archived`, `chat_busy`, `not_waiting` or `move_refused`, naming the state, the
 * command and what it needs.
 */
export function decideMove(command: ChatCommand, chat: ChatCell & { id: string }): ChatMove {
  const move = findMove(command, chat)
  if (move !== undefined) return move
  if (chat.archived)
    throw new TurnmillError('chat_archived', `chat ${chat.id} is archived: ${command} is refused`)
  const code = REFUSALS[command] ?? 'move_refused'
  throw new TurnmillError(
    code,
    `chat ${chat.id} is ${describeCell(chat)}: ${command} needs ${describeNeed(command)}`,
  )
}

const describeCell = ({ status, queue }: ChatCell): string =>
  queue === 'empty' ? status : `${status} with queued messages`

const describeNeed = (command: ChatCommand): string =>
  CHAT_MOVES[command]
    .map(({ from, queue, archived }) => {
      const place =
        queue === undefined ? '' : queue === 'empty' ? ' with an empty queue' : ' with queued messages'
      return `${archived === true ? 'an archived chat that is ' : ''}${from.join(' or ')}${place}`
    })
    .join(', or ')
