import fc from 'fast-check'
import { WORK_TRANSITIONS, type Command, type WorkTransition } from './chat-model.ts'

const index = fc.nat(5)
/** Of two keys the second may be revoked. */
const key = fc.nat(1)

const weighted = (weight: number, arbitrary: fc.Arbitrary<Command>) => ({ weight, arbitrary })

const named = <T extends string>(...types: readonly T[]) => ({ type: fc.constantFrom(...types) })

const work = (...transitions: readonly WorkTransition[]): fc.Arbitrary<Command> =>
  fc.record({
    type: fc.constant('work' as const),
    transition: fc.constantFrom(...transitions),
    holder: index,
  })

/** Any command of a user, a worker, an operator or fate; those that need a rare state come more often. */
const anyCommand: fc.Arbitrary<Command> = fc.oneof(
  weighted(12, fc.record({ ...named('send', 'send, interrupting', 'send, rejecting'), key })),
  weighted(4, fc.record({ ...named('edit', 'editQueued'), at: index, key })),
  weighted(2, fc.record({ ...named('moveQueued'), at: index, to: index })),
  weighted(4, fc.record({ ...named('deleteQueued', 'promote'), at: index })),
  weighted(7, fc.record({ ...named('interrupt', 'retry', 'compact', 'clear'), key })),
  weighted(6, fc.record({ ...named('archive', 'unarchive', 'unarchive'), key })),
  weighted(6, fc.record({ ...named('submitToolResults'), key })),
  weighted(16, fc.record(named('deliver'))),
  weighted(8, fc.record(named('revokeKey', 'deliverAgain', 'retryJob', 'emptyQueue', 'reconcile'))),
  weighted(2, fc.record({ ...named('kill'), holder: index })),
  weighted(12, work('commitStep')),
  weighted(14, work('commitResults', 'requireAction', 'requireAction')),
  weighted(16, work('backoff', 'release', 'finish', 'finish', 'fail', 'finishInterrupt')),
)

const byLast = (transition: WorkTransition): Command => ({ type: 'work', transition, holder: -1 })
const deliver: Command = { type: 'deliver' }

/** Ways through a turn that chance alone seldom finds. */
const passage: fc.Arbitrary<Command[]> = fc.constantFrom(
  [deliver, byLast('finish')],
  [deliver, byLast('fail')],
  [deliver, byLast('fail'), { type: 'retry', key: 0 } as const],
  [deliver, byLast('fail'), { type: 'retryJob' } as const, deliver],
  [deliver, { type: 'interrupt', key: 0 } as const, byLast('finishInterrupt')],
  [deliver, byLast('commitStep'), byLast('requireAction')],
  [deliver, byLast('commitStep'), byLast('commitResults')],
  [deliver, byLast('finish'), { type: 'archive', key: 0 } as const],
)

/** A history: commands in any order, and among them such passages. @param maxLength of either. */
export const anyHistory = (maxLength: number): fc.Arbitrary<Command[]> =>
  fc
    .array(
      fc.oneof(
        { weight: 6, arbitrary: anyCommand.map((command) => [command]) },
        { weight: 1, arbitrary: passage },
      ),
      { maxLength, size: 'max' },
    )
    .map((pieces) => pieces.flat())

/** What a run did, by command: a run that exercised nothing proves nothing. */
export interface Coverage {
  accepted: Map<string, number>
  refused: Map<string, number>
}

export const createCoverage = (): Coverage => ({ accepted: new Map(), refused: new Map() })

export const nameOf = (command: Command): string =>
  command.type === 'work' ? command.transition : command.type

export function count({ accepted, refused }: Coverage, command: Command, done: boolean): void {
  const counts = done ? accepted : refused
  counts.set(nameOf(command), (counts.get(nameOf(command)) ?? 0) + 1)
}

/** Every command there is, by name. */
export const COMMAND_NAMES = [
  'send', 'send, interrupting', 'send, rejecting', 'edit', 'editQueued', 'moveQueued', 'deleteQueued', 'promote', 'interrupt',
  'submitToolResults', 'retry', 'compact', 'clear', 'archive', 'unarchive', 'revokeKey', 'deliver', 'deliverAgain', 'retryJob', 'emptyQueue',
  'reconcile', 'kill', ...WORK_TRANSITIONS,
] // prettier-ignore
