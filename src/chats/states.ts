import { TURN_STATES, type ChatStatus, type TurnState } from '../protocol/views.ts'

/** Transitions of an existing turn. Those that make one (create, send, promote, spawn, …) begin at `pending`. */
export const TURN_TRANSITIONS = [
  'claim',
  'commitStep',
  'commitResults',
  'spawn',
  'requireAction',
  'wait',
  'backoff',
  'release',
  'finish',
  'fail',
  'interrupt',
  'finishInterrupt',
  'submitToolResults',
  'expireAction',
  'resume',
  'reopen',
  'supersede',
] as const
export type TurnTransition = (typeof TURN_TRANSITIONS)[number]

/**
 * Every legal move of a turn: from → transition → where it may land. A pair that is absent is refused. Where there
 * are two landings, what is found under the lock decides: `wait` goes straight on where no awaited child is open.
 */
export const TURN_MOVES: Record<TurnState, Partial<Record<TurnTransition, readonly TurnState[]>>> = {
  pending: { claim: ['running'], interrupt: ['interrupted'], supersede: ['superseded'] },
  running: {
    claim: ['running'],
    commitStep: ['running'],
    commitResults: ['running'],
    spawn: ['running'],
    requireAction: ['requires_action'],
    wait: ['waiting', 'running'],
    backoff: ['pending'],
    release: ['pending'],
    finish: ['completed'],
    fail: ['failed'],
    interrupt: ['interrupting'],
    supersede: ['superseded'],
  },
  interrupting: {
    claim: ['interrupting'],
    fail: ['failed'],
    interrupt: ['interrupting'],
    finishInterrupt: ['interrupted'],
    supersede: ['superseded'],
  },
  requires_action: {
    submitToolResults: ['pending'],
    expireAction: ['pending'],
    interrupt: ['interrupted'],
    supersede: ['superseded'],
  },
  waiting: { resume: ['pending'], interrupt: ['interrupted'], supersede: ['superseded'] },
  completed: {},
  failed: { reopen: ['pending'] },
  interrupted: {},
  superseded: {},
}

/** The states from which a transition is legal: what its statement checks under the lock. */
export const statesBefore = (transition: TurnTransition): TurnState[] =>
  TURN_STATES.filter((state) => TURN_MOVES[state][transition] !== undefined)

/** The states that a transition leaves for one of these. */
export const statesThatLand = (transition: TurnTransition, landing: TurnState): TurnState[] =>
  TURN_STATES.filter((state) => TURN_MOVES[state][transition]?.includes(landing) === true)

/** Whether a chat has a turn that has not ended. */
export const isBusy = (status: ChatStatus): boolean => status !== 'idle' && status !== 'failed'

/** What a chat shows once its turn has come to a state. A turn that ended lets the head of the queue follow. */
export function chatAfter(turn: TurnState, queue: 'empty' | 'waiting'): ChatStatus {
  if (turn === 'failed') return 'failed'
  if (turn === 'completed' || turn === 'interrupted' || turn === 'superseded')
    return queue === 'empty' ? 'idle' : 'pending'
  return turn
}
