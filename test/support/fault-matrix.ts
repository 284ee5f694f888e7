/** The fault matrix: the points at which a process dies or fails, and the scenes that reach them. */
import type { SceneName } from './fault-scenes.ts'

export interface Point {
  name: string
  /** Other writes of the same transaction, which it stands for: they take effect together or not at all. */
  carries: readonly string[]
}

const at = (...names: string[]): Point[] => names.map((name) => ({ name, carries: [] }))

type Write = string | [name: string, ...carries: string[]]

const inPhases = (phases: readonly string[], writes: readonly Write[]): Point[] =>
  writes.flatMap((write) => {
    const [name, ...carries] = typeof write === 'string' ? [write] : write
    return phases.map((phase) => ({ name: `${phase} ${name}`, carries }))
  })

/** Each a transaction, by one of its writes and what else it carries. */
const transaction = (...writes: Write[]): Point[] => inPhases(['before', 'executed', 'committed'], writes)

/** The same, where there is nothing between the transaction's beginning and its commit that another one would not show. */
const commit = (...writes: Write[]): Point[] => inPhases(['executed', 'committed'], writes)

const single = (...names: string[]): Point[] =>
  names.flatMap((name) => at(`before ${name}`, `committed ${name}`))

/** What the process is doing there. */
export interface Doing {
  doing: string
  /** That reach the points. */
  scenes: readonly SceneName[]
  points: Point[]
}

export const POINTS: readonly Doing[] = [
  {
    doing: 'produce',
    scenes: ['queue'],
    points: [
      ...single('keys/find'),
      ...transaction(
        ['chats/create', 'idempotency/reserve', 'idempotency/keep', 'chats/admit'],
        'chats/append-queued',
        'chats/insert-message-and-turn',
      ),
    ],
  },
  {
    doing: 'produce',
    scenes: ['edit'],
    points: transaction(
      ['chats/supersede-turn', 'chats/supersede-queues', 'chats/delete-messages-from', 'chats/show-compressed', 'chats/rename-by-fallback'],
    ), // prettier-ignore
  },
  { doing: 'produce', scenes: ['stop'], points: transaction('chats/stop-running') },
  { doing: 'produce', scenes: ['failure'], points: transaction('chats/retry') },
  { doing: 'enqueue', scenes: ['queue'], points: at('before enqueue', 'after enqueue') },
  {
    doing: 'claim',
    scenes: ['queue'],
    points: [...transaction('chats/claim'), ...single('chats/read-context')],
  },
  {
    doing: 'call',
    scenes: ['queue'],
    points: at('before call', 'after headers', 'amid body', 'after body'),
  },
  {
    doing: 'books',
    scenes: ['queue'],
    points: single('gateway/authorise', 'gateway/open', 'gateway/settle'),
  },
  { doing: 'stream', scenes: ['queue'], points: at('before append', 'after append') },
  { doing: 'commit', scenes: ['queue'], points: transaction('chats/finish') },
  {
    doing: 'commit',
    scenes: ['stop'],
    points: transaction(['chats/finish-interrupt', 'chats/close-open-calls']),
  },
  { doing: 'commit', scenes: ['failure'], points: transaction('chats/fail') },
  { doing: 'commit', scenes: ['retries'], points: transaction('chats/note-retry', 'chats/backoff') },
  { doing: 'promote', scenes: ['stop'], points: transaction('chats/promote-head') },
  // Enough to do for long enough.
  { doing: 'renew', scenes: ['queue', 'stop', 'retries'], points: single('chats/renew') },
  {
    doing: 'reconcile',
    scenes: ['queue'],
    points: [
      ...single('reconcile/admit', 'reconcile/suspects', 'reconcile/enqueue-anew', 'subagents/rested-parents', 'gateway/settle-overdue'),
      ...at('before findLost', 'after findLost'),
    ], // prettier-ignore
  },
  {
    doing: 'tools',
    scenes: ['tools'],
    points: transaction(
      'chats/commit-step',
      'chats/start-calls',
      'chats/keep-results',
      'chats/commit-results',
    ),
  },
  { doing: 'tools', scenes: ['advisor'], points: transaction('chats/add-spent') },
  {
    doing: 'client',
    scenes: ['answers'],
    points: commit('chats/require-action', ['tools/answer', 'tools/resume']),
  },
  {
    doing: 'client',
    scenes: ['stopWhileAsked'],
    points: commit(['chats/end-unheld', 'chats/close-open-calls']),
  },
  { doing: 'silence', scenes: ['silence'], points: commit(['tools/expire', 'tools/resume']) },
  {
    doing: 'family',
    scenes: ['family'],
    points: commit('subagents/spawn', 'chats/wait', ['subagents/resume', 'chats/admit-for']),
  },
  {
    doing: 'family',
    scenes: ['steering'],
    points: transaction('subagents/held-parent'),
  },
  {
    doing: 'compaction',
    scenes: ['compaction'],
    points: commit('chats/compact-turn', 'chats/compact', 'chats/finish-without-answer'),
  },
  { doing: 'drain', scenes: ['drain'], points: commit('chats/release') },
  { doing: 'reopening', scenes: ['reopening'], points: commit('reopen/turn') },
  {
    doing: 'management',
    scenes: ['management'],
    points: commit(['manage/archive', 'manage/update'], 'manage/clear', 'manage/delete'),
  },
  {
    doing: 'queueing',
    scenes: ['queueing'],
    points: commit('queue/edit', 'queue/move', 'queue/delete'),
  },
]

/** All of them. */
export const ALL = POINTS.flatMap(({ points }) => points)

/** Writes that are no points, by the beginnings of their names. */
export const EXCEPT: Record<string, string> = {
  'auxiliary/': 'titles and labels have a fallback; auxiliary.test.ts takes their workers away',
  'chats/debug': 'a flag in a transaction of its own, for recordings that nothing depends on',
  'debug/': 'recordings, which nothing depends on',
  'files/': 'uploads: a file that no message names is forgotten',
  'gateway/prune-': 'retention: what one pass does not delete, the next one does',
  'idempotency/prune': 'retention, too',
  'reconcile/prune-queue': 'retention, too',
  'keys/bootstrap': 'set-up, before there is anything to lose',
  'models/': 'settings of admins and users, each in a transaction of its own',
  'streams/append': 'the part log of Postgres, which is told by `append`',
  'tools/put-mcp-headers': 'a setting, too',
  'users/': 'settings of admins, each in a transaction of its own',
}
