import { flag, integer, milliseconds } from './setting.ts'

/** How much one turn may do, and how long it waits for others. */
export const TURNS = {
  turnSteps: integer(
    {
      name: 'TURNMILL_TURN_STEPS',
      default: '100',
      unit: 'steps',
      sentence: 'Model calls that one turn may make; the last of them is offered no tools.',
    },
    1,
    10_000,
  ),
  turnRunningMs: milliseconds({
    name: 'TURNMILL_TURN_RUNNING_MS',
    default: '1800000',
    sentence: 'How long one turn may run. Waiting for a client, for subagents or for a slot is not running.',
  }),
  familySteps: integer(
    {
      name: 'TURNMILL_FAMILY_STEPS',
      default: '500',
      unit: 'steps',
      sentence: 'Model calls that a turn and all its subagents may make together.',
    },
    1,
    1_000_000,
  ),
  familyCostMicros: integer(
    {
      name: 'TURNMILL_FAMILY_COST_MICROS',
      unit: 'micro-dollars',
      sentence:
        'What a turn and all its subagents may cost together before they take no further step; any amount where it is not set.',
    },
    0,
    Number.MAX_SAFE_INTEGER,
  ),
  subagents: flag({
    name: 'TURNMILL_SUBAGENTS_ENABLED',
    default: 'true',
    sentence: 'Whether models are offered the tools that spawn subagents.',
  }),
  advisorUses: integer(
    {
      name: 'TURNMILL_ADVISOR_USES',
      default: '3',
      unit: 'calls',
      sentence: 'How often one turn may ask the advisor; 0 offers none.',
    },
    0,
    1000,
  ),
  actionDeadlineMs: milliseconds({
    name: 'TURNMILL_ACTION_DEADLINE_MS',
    default: '300000',
    sentence: 'How long a turn waits for its client to answer tool calls before they are refused.',
  }),
  waitingDeadlineMs: milliseconds({
    name: 'TURNMILL_WAITING_DEADLINE_MS',
    default: '1800000',
    sentence: 'How long a turn waits for its subagents at most.',
  }),
}
