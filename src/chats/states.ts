import { TurnmillError } from '../protocol/errors.ts'
import { TURN_STATES, type ChatStatus, type TurnState } from '../protocol/views.ts'

/** Transitions of an existing turn. Those that make one (create, send, promote) begin at `pending`. */
export const TURN_TRANSITIONS = [
  'claim',
  'finish',
  'interrupt',
  'finishInterrupt',
  'fail',
  'release',
  'supersede',
] as const
export type TurnTransition = (typeof TURN_TRANSITIONS)[number]

/** Every legal move of a turn: from → transition → where it lands. A pair that is absent is refused. */
export const TURN_MOVES: Record<TurnState, Partial<Record<TurnTransition, TurnState>>> = {
  pending: { claim: 'running', interrupt: 'interrupted', supersede: 'superseded' },
  running: {
    claim: 'running',
    finish: 'completed',
    interrupt: 'interrupting',
    fail: 'failed',
    release: 'pending',
    supersede: 'superseded',
  },
  interrupting: {
    claim: 'interrupting',
    interrupt: 'interrupting',
    finishInterrupt: 'interrupted',
    fail: 'failed',
    supersede: 'superseded',
  },
  requires_action: { interrupt: 'interrupted', supersede: 'superseded' },
  waiting: { interrupt: 'interrupted', supersede: 'superseded' },
  completed: {},
  failed: {},
  interrupted: {},
  superseded: {},
}

/** The states from which a transition is legal: what its statement checks under the lock. */
export const statesBefore = (transition: TurnTransition): TurnState[] =>
  TURN_STATES.filter((state) => TURN_MOVES[state][transition] !== undefined)

/** Whether a chat has a turn that has not ended. */
export const isBusy = (status: ChatStatus): boolean => status !== 'idle' && status !== 'failed'

export const refuse = (thing: string, state: string, transition: string): TurnmillError =>
  new TurnmillError('move_refused', `${thing} is ${state}: ${transition} is not allowed from there`)
