import { RUN_STATES, type RunState } from '../protocol/views.ts'

/** What each transition of an auxiliary run is. What makes one begins at `pending`. */
export const RUN_TRANSITION_MEANINGS = {
  claim: 'a worker takes a run that waits, or one whose lease is over; the epoch counts up',
  complete: 'what was found is written to the chat, where the chat still has a use for it',
  fail: 'the error is kept; the chat stays as it is',
  release: 'a worker that stops gives the run back; counts as no takeover',
  reopen: "an operator's retry of its job: the same run once more",
} as const
export type RunTransition = keyof typeof RUN_TRANSITION_MEANINGS

/** Every legal move of an auxiliary run: from → transition → where it lands. A pair that is absent changes nothing. */
export const RUN_MOVES: Record<RunState, Partial<Record<RunTransition, RunState>>> = {
  pending: { claim: 'running' },
  running: { claim: 'running', complete: 'completed', fail: 'failed', release: 'pending' },
  failed: { reopen: 'pending' },
  completed: {},
}

/** The states from which a transition is legal, as the statements are given them. */
export const statesBefore = (transition: RunTransition): RunState[] =>
  RUN_STATES.filter((state) => RUN_MOVES[state][transition] !== undefined)
