/**
 * Where a turn can be when it is stopped. Each window says what the provider is told, when a turn is in it, and what the
 * stop has to achieve.
 */
export interface StopWindow {
  name: string
  /** What the provider does with the turn's request. */
  behaviour: 'silent' | 'hold' | 'busy' | 'quick'
  /** What the provider has done with it, or the chat's watchers were told, when the turn is in the window. */
  entered: { journal: 'received' | 'held' } | { watcher: 'retry' } | null
  /** The chat's status while it is in the window. */
  status: 'running' | 'pending'
  /** When the stop has taken effect: where there is no socket, once the turn is committed as interrupted. */
  until: 'socket closed' | 'turn interrupted'
  /** Requests of the turn that the provider may ever see. */
  requests: 0 | 1
  /** Whether the user's other turns fill the limit, and one of them must end for the next message's sake. */
  limitIsFull: boolean
}

const common = { status: 'running', until: 'socket closed', requests: 1, limitIsFull: false } as const

export const STOP_WINDOWS: readonly StopWindow[] = [
  { ...common, name: 'before the first byte', behaviour: 'silent', entered: { journal: 'received' } },
  { ...common, name: 'mid-stream', behaviour: 'hold', entered: { journal: 'held' } },
  {
    ...common,
    name: 'asleep before a retry',
    behaviour: 'busy',
    entered: { watcher: 'retry' },
    until: 'turn interrupted',
  },
  {
    name: 'pending',
    behaviour: 'quick',
    entered: null,
    status: 'pending',
    until: 'turn interrupted',
    requests: 0,
    limitIsFull: true,
  },
]
