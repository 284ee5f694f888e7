import { TURN_STATES, type ChatStatus, type TurnState } from '../protocol/views.ts'

/** What each transition of an existing turn is. Those that make a turn (create, send, promote, spawn, …) begin at `pending`. */
export const TURN_TRANSITION_MEANINGS = {
  claim:
    'a worker takes an admitted turn whose time has come, or one whose lease is over; the epoch counts up',
  commitStep:
    'an answer that asks for tools is committed, with a row of the ledger per call, before any of them runs',
  startCalls: 'calls are about to run: whoever takes the turn over knows that they may have',
  keepResults:
    'what some calls of a step came to is kept in the ledger, until all are answered or the turn is ended',
  commitResults: 'the results of a step are committed together',
  compact: 'a summary takes the place of the history before it; the turn goes on',
  spawn: 'a subagent is made: its chat, message and turn, and the call as done',
  steer: 'a subagent is sent a message or stopped, by the turn of its parent that is still held',
  requireAction: 'the turn waits for its client, until a deadline, and holds no slot',
  wait: 'the turn waits for subagents, until a deadline, and holds no slot; it runs on where none is at work',
  backoff:
    'the provider is not ready for a while: the slot is given up, `not_before` and what failed are kept',
  release: 'a worker that stops gives the turn back; counts as no takeover',
  finish: 'the last answer is committed and the head of the queue promoted',
  fail: 'the error is kept and so is the queue; subagents at work are interrupted',
  interrupt: 'stop was asked: a worker is told, what nobody holds ends at once',
  finishInterrupt:
    'what there is of the answer is committed, open calls are closed, the head of the queue is promoted',
  submitToolResults: 'the client has answered all calls: the same turn goes on under the same key',
  expireAction: 'the client did not answer in time: its calls are refused and the turn goes on',
  resume: 'no awaited subagent is at work, or the time is up: the turn goes on',
  reopen: "an operator's retry of its job: the same turn once more, while its chat is as it left it",
  supersede: 'an edit replaced what it was working on; what its worker still has is dropped',
} as const
export type TurnTransition = keyof typeof TURN_TRANSITION_MEANINGS

export const TURN_TRANSITIONS = Object.keys(TURN_TRANSITION_MEANINGS) as TurnTransition[]

/**
 * Every legal move of a turn: from → transition → where it may land. A pair that is absent is refused. Where there
 * are two landings, what is found under the lock decides: `wait` goes straight on where no awaited child is open.
 */
export const TURN_MOVES: Record<TurnState, Partial<Record<TurnTransition, readonly TurnState[]>>> = {
  pending: { claim: ['running'], interrupt: ['interrupted'], supersede: ['superseded'] },
  running: {
    claim: ['running'],
    commitStep: ['running'],
    startCalls: ['running'],
    keepResults: ['running'],
    commitResults: ['running'],
    compact: ['running'],
    spawn: ['running'],
    steer: ['running'],
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
    keepResults: ['interrupting'],
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
